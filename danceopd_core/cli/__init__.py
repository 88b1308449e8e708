"""The headless commands, one module each. May import everything."""

from .parser import main

__all__ = ["main"]
