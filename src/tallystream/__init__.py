"""tallystream: exact, live cost tables from the telemetry of AI coding agents."""

__all__ = ["__version__"]

__version__ = "0.1.0"
