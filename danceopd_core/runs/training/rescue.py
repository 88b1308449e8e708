"""What is done when a run cannot be saved: the student is written elsewhere, and one sentence says what there is."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import InputError, shown

if TYPE_CHECKING:
    from .run_dir import RunFolder
    from .session import TrainingSession


class SaveFailed(OSError):
    """A run could not be saved. Its last whole state is as it was."""


def save_failed(session: TrainingSession, folder: RunFolder, error: OSError) -> SaveFailed:
    """Saves the student in the system's temporary folder, if it can be; the exception that says so."""
    update, saved = session.trainer.update, folder.saved
    if not folder.path.is_dir():
        what = f"the folder of the run, {folder.path}, is gone"
    else:
        reason = error.strerror or str(error)
        kept = f"its last whole state is of update {saved}" if saved else "it has no state yet"
        what = f"the run in {folder.path} cannot be saved ({reason}); {kept}"
    place = Path(tempfile.gettempdir()) / f"danceopd-{folder.id[:12]}-{update:06d}.safetensors"
    try:
        session.write_student(place, run=folder.id)
    except (InputError, OSError) as second:
        return SaveFailed(shown(f"{what}; the student of update {update} could not be written to {place} ({second})"))
    return SaveFailed(shown(f"{what}; the student of update {update} is in {place}. Make room, then resume the run"))
