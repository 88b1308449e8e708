"""Training data: buckets of prompts and pictures, CSV and metadata files, and the learned router for prompts.

Imports `algorithm.fields`, `shapes`, `recipe.schema`, `errors` and `lookup` from the rest of the project.
"""
