"""Finds what is wrong with a deployment and what to do about it. Each check is a module; `examination` makes them all.

Checks only read: they do not create topics, join groups or commit offsets.
"""
