"""Connections: who may send. `registry` reads and writes their compacted topic."""
