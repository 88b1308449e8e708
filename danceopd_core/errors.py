"""The exception for invalid input, and the faults that it carries."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


def shown(text: str, limit: int | None = None) -> str:
    """Text from outside as it may stand in an error or a log, cut at `limit` characters.

    Characters that are not printable are escaped: a terminal would obey control characters, and a lone surrogate
    cannot be encoded, so it would end whoever sends the text on. Line ends stay where an error has several lines, and
    so do the spaces of every script.
    """
    escaped = text if text.isascii() and text.isprintable() else "".join(map(_shown, text))
    return escaped if limit is None or len(escaped) <= limit else f"{escaped[: limit - 3]}..."


def _shown(character: str) -> str:
    kept = character.isprintable() or character == "\n" or unicodedata.category(character) == "Zs"
    return character if kept else character.encode("unicode_escape").decode()


def encodable(text: str) -> bool:
    """Whether files, terminals and tokenizers can hold the text: it has no lone surrogate, half of a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_shown(error: BaseException) -> bool:
    """Whether a traceback of the error, with those that led to it, is text as `shown` gives it, but for tabs."""
    links: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and found not in links:
        links.append(found)
        found = found.__cause__ or found.__context__
    texts = [str(part) for link in links for part in (link, *getattr(link, "__notes__", ()))]
    return all(shown(text.replace("\t", " ")) == text.replace("\t", " ") for text in texts)


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with the input.

    setting: the recipe key at fault, e.g. "optimizer.betas[1]"; "" if the fault belongs to no single key.
    """

    setting: str
    message: str

    def __str__(self) -> str:
        return shown(f"{self.setting}: {self.message}" if self.setting else self.message)


class InputError(ValueError):
    """Input that the user has to correct: a file, a folder or a setting. The text says what, which and the way out.

    The text is the message, then one line for each fault. faults: without any, the message itself is the one fault.
    """

    def __init__(self, message: str = "", faults: Iterable[Fault] = ()) -> None:
        given = tuple(faults)
        super().__init__("\n  ".join([*filter(None, [shown(message)]), *map(str, given)]))
        self.faults = given or (Fault("", message),)

    @classmethod
    def at(cls, setting: str, message: str) -> InputError:
        """The error of one fault."""
        return cls(faults=[Fault(setting, message)])


@contextmanager
def naming(setting: str) -> Iterator[None]:
    """Faults from inside that belong to no setting are faults of this one."""
    try:
        yield
    except InputError as error:
        faults = [Fault(fault.setting or setting, fault.message) for fault in error.faults]
        raise InputError(faults=faults) from None


def refuse(what: str, faults: Iterable[Fault]) -> None:
    """Raises one InputError about `what` with all the faults, if there are any."""
    found = tuple(faults)
    if found:
        count = "a fault" if len(found) == 1 else f"{len(found)} faults"
        raise InputError(f"{what} has {count}:", found)
