"""The training loop: iterates the trainer, keeps its history, saves as the recipe asks."""

from __future__ import annotations

from .run_dir import RunFolder
from .session import TrainingSession


def follow(run: TrainingSession, folder: RunFolder, main: bool = True) -> None:
    """Trains to the end with a progress bar, saving as the recipe asks; an interrupt saves first."""
    from tqdm import tqdm

    recipe, trainer = run.recipe, run.trainer
    bar = tqdm(total=recipe.steps, initial=trainer.update, unit="update", disable=not main, dynamic_ncols=True)
    try:
        for result in trainer:
            if not main:
                continue
            folder.add(result)
            bar.set_postfix(loss=f"{result.loss:.4f}", lr=f"{result.lr:.1e}", refresh=False)
            bar.update()
            if trainer.update % recipe.save_every == 0 and trainer.update < recipe.steps:
                folder.save(run)
    finally:
        bar.close()
        # Whatever ended the run, what it has learned so far is kept and can be resumed.
        if main and trainer.update:
            folder.save(run)
