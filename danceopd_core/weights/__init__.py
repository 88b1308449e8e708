"""Weights: LoRA adapters in a network, LoRA files in every layout, full checkpoints.

May import `algorithm`.
"""
