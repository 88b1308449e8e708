"""Pictures of benchmarks' own prompts in the folders that their official scorers read, by any backbone and LoRA."""
