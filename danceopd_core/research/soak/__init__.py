"""Attacks on runs, by seed and with counts: what survives them is what the tests promise, more often."""
