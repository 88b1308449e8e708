"""Memory and time of an update at the size of released models, measured on a GPU. Not part of the installed pack."""
