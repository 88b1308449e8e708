"""A run driven by the Train node, and what it will take."""
