"""The frozen description of a run: its schema, file, overrides, rules and reference; conversion from the node graph.

May import `algorithm`, `weights`, `models` and `shapes`.
"""
