"""Drafts a blueprint, a mapping and a resource file from the answer of an endpoint."""
