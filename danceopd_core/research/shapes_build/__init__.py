"""The build of the embedded model and its teachers from a seed."""
