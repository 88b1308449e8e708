"""Pushes the LoRA of a run to a repository on Hugging Face, with its model card and the pictures in it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from ..files.run_names import check_name
from .card_facts import card_facts
from .model_card import CARD, SHEET, card_text

IMAGES = "images"


@dataclass(frozen=True)
class Push:
    """What a repository will hold: its model card, and files by their paths there."""

    card: str
    files: dict[str, Path]

    def lines(self) -> list[str]:
        """Each file with its size in bytes, and where it comes from."""
        own = [f"{CARD} ({len(self.card.encode())} bytes)"]
        return own + [f"{name} ({file.stat().st_size} bytes) from {file}" for name, file in self.files.items()]


def planned_push(run: Path, name: str | None = None) -> Push:
    """What would be pushed of a run's folder. name: of the LoRA there; None: the folder's.

    InputError for a folder without a student, or a name that no file can have.
    """
    student = run / "student.safetensors"
    if not student.is_file():
        raise InputError(f"{run} holds no student.safetensors: give the folder of a run that was saved")
    title = check_name(name or run.resolve().name)
    facts = card_facts(run, sheet=run / SHEET)
    pictures = {f"{IMAGES}/{sample.file.name}": sample.file for sample in facts.samples}
    sheet = {f"{IMAGES}/{SHEET}": facts.sheet} if facts.sheet else {}
    card = card_text(facts, title, list(pictures), next(iter(sheet), None))
    return Push(card, {f"{title}.safetensors": student, **pictures, **sheet})


def push(planned: Push, repository: str, private: bool) -> str:
    """Creates the repository if it is not there, commits all files at once, and returns its address.

    InputError if Hugging Face refuses, or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(library_name="danceopd")
    try:
        with tempfile.TemporaryDirectory() as folder:
            card = Path(folder) / CARD
            card.write_text(planned.card, encoding="utf-8")
            made = api.create_repo(repository, private=private, exist_ok=True)
            files = {CARD: card, **planned.files}
            operations = [CommitOperationAdd(path, file) for path, file in files.items()]
            api.create_commit(made.repo_id, operations, commit_message="LoRA with its model card, by DanceOPD")
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise InputError(
            f"{repository}: Hugging Face did not take it ({' '.join(str(error).split())[:300]}): log in with "
            "`hf auth login` as somebody who may write there, or try again online"
        ) from error
    return str(made)
