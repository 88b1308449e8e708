"""Generates images of benchmark prompts, by any backbone and LoRA, in the folders that the official scorers read."""
