"""What the project's own claims are made with: benches, and the building of the embedded model.

May import everything but `cli`. Not in the archive that ComfyUI's registry installs.
"""
