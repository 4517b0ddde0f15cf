"""Generates the reference pages on metrics and topics from the code."""
