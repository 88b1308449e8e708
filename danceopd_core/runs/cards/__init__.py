"""The model card of a run, and how it is pushed."""
