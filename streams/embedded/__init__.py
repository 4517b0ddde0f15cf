"""Runs Apache Kafka as a child process: one node in KRaft mode, for a laptop and for tests.

Its jars come from Maven and are verified against a committed lock, its Java runtime from PyPI (extra `embedded`).
"""
