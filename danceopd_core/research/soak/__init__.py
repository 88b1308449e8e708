"""`danceopd soak`: attacks on everything that takes something from outside, drawn from seeds and counted by outcome."""
