"""Training data: buckets of prompts and pictures, CSV and metadata files, prompts assigned to routes.

May import `algorithm`, `weights`, `models`, `shapes` and `recipe`.
"""
