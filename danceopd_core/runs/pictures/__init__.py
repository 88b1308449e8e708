"""Pictures of several fields over one opened model, and what a LoRA changes in them."""
