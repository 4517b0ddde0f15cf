"""What a request costs: the price book, in integer pico-dollars a token, and an operator's private prices before it."""

from tallystream.agents.pricing.book import Book
from tallystream.agents.pricing.overlay import Overlay, read_overlay

__all__ = ["Book", "Overlay", "read_overlay"]
