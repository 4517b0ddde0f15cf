"""Fuzz programs: `make fuzz`, or `python -m tests.fuzz TARGET --seconds N` for one of `targets.TARGETS`."""
