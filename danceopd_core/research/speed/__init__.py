"""Speed of one update beside the official trainer's and beside the bare network's. Not part of the installed pack."""
