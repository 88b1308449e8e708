"""The headless commands, one module each. May import everything; torch and the like only inside `run`."""

from .parser import main

__all__ = ["main"]
