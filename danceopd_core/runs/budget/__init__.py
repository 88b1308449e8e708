"""The memory of a run: walked, estimated, and what is given up when it does not suffice."""
