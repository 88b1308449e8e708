"""Benches: methods, ablations and operators compared in the embedded world, where a judge knows the truth."""
