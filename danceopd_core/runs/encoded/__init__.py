"""The buckets of a run encoded by its models."""
