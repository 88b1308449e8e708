"""The one exception for bad input: files, folders, settings that the user can mend."""


class InputError(ValueError):
    """What was given cannot be used; the message says what, which, and the way out."""
