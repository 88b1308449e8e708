"""Weights: LoRAs and their files, adapters in a network, full checkpoints, key conversion, safetensors reading.

Imports only `errors` and `algorithm.fields` from the rest of the project.
"""
