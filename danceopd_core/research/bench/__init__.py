"""Benches: compares methods, ablations and operators in the embedded world, where scores are exact."""
