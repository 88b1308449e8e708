"""Reproduces the project's results: benches, and the build of the embedded model.

May import everything except `cli`. Not in the archive that ComfyUI's registry installs.
"""
