"""A recipe opened, checked, trained, saved and resumed, in one process or many.

May import everything before it: `algorithm`, `weights`, `models`, `shapes`, `recipe`, `data`.
"""
