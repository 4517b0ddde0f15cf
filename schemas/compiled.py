"""Tells whether this installation has the compiled form of the hot modules (`setup.py` has their list)."""

from __future__ import annotations

from typing import Final

COMPILED: Final = not __file__.endswith(".py")
"""mypyc has compiled this module, and with it the others."""
