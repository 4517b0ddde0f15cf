"""Drafts a blueprint, a mapping and a resource file from an endpoint's answer."""
