"""Resume checkpoints of a run: each appears whole, in one rename, and the newest two are kept.

A checkpoint is a file ``step-<steps done>.pt``: the state of the run in one piece, which fits any number of processes
and any ZeRO stage. One that was damaged later (full disk, lost power) is recognised by the checksums inside, removed
and passed over.
"""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import Any

import torch

from mammoclip.artifacts import atomic_path
from mammoclip.training.distributed import decide_together
from mammoclip.training.engine import whole_optimizer_state, whole_weights

log = logging.getLogger(__name__)

_KEPT = 2


def save_checkpoint(engine: Any, state: dict[str, Any], work: Path, rank: int) -> None:
    """Write the engine and ``state`` (with its ``step``) under ``work``; every process of the run must call it."""
    checkpoint = {"weights": whole_weights(engine), "optimizer": whole_optimizer_state(engine), "state": state}
    if rank == 0:
        write_checkpoint(checkpoint, state["step"], work)


def write_checkpoint(checkpoint: dict[str, Any], step: int, work: Path) -> None:
    """Write the checkpoint of a step (``weights``, ``optimizer``, ``state``), and remove all but the one before."""
    # Through a file of Python's, whose error says why: given a path, torch does not tell that the disk is full.
    with atomic_path(work / f"step-{step}.pt") as temporary, temporary.open("wb") as file:
        torch.save(checkpoint, file)
    for old in _newest_first(work)[_KEPT:]:
        old.unlink()


def read_checkpoint(work: Path, rank: int) -> dict[str, Any] | None:
    """Return the newest whole checkpoint under ``work`` (``weights``, ``optimizer``, ``state``), or None."""
    step = decide_together(_newest_whole_step(work) if rank == 0 else -1)
    if step < 0:
        return None
    checkpoint: dict[str, Any] = torch.load(work / f"step-{step}.pt", map_location="cpu", weights_only=True)
    return checkpoint


def _newest_whole_step(work: Path) -> int:
    """Return the step of the newest whole checkpoint, -1 without one, and remove damaged ones."""
    for path in _newest_first(work):
        if _is_whole(path):
            return _step(path)
        log.warning("the checkpoint %s is damaged; going back to an older one", path.name)
        path.unlink()
    return -1


def _newest_first(work: Path) -> list[Path]:
    return sorted(work.glob("step-*.pt"), key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def _is_whole(path: Path) -> bool:
    """Return whether the archive (torch's format) and the checksums of its parts are there."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False
