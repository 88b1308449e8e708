"""What a run's folder and its LoRA files hold: their names, identities, states, history and metadata."""
