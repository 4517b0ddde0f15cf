"""The cost of a request: the price book, in integer pico-dollars per token, and the operator's own prices."""

from tallystream.agents.pricing.book import Book
from tallystream.agents.pricing.overlay import Overlay, read_overlay

__all__ = ["Book", "Overlay", "read_overlay"]
