"""The exception for invalid input: files, folders or settings that the user can correct."""


class InputError(ValueError):
    """Invalid input; the message says what is wrong, with which file or setting, and how to correct it."""
