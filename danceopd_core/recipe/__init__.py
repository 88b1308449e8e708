"""The frozen description of a run: its schema, its file, its overrides and its rules.

May import `algorithm`, `weights`, `models` and `shapes`.
"""
