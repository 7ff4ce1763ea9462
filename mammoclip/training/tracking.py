"""Curves of a run, for those who watch it: TensorBoard, and whatever else the DeepSpeed configuration file asks for.

DeepSpeed's monitors write them. It would also log losses of its own through them, per micro-batch and by the number of
samples; the engine gets its configuration `without_monitors`, so that a curve has one meaning.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mammoclip.artifacts import STEPS
from mammoclip.errors import ConfigError

log = logging.getLogger(__name__)

_MONITORS = ("tensorboard", "wandb", "csv_monitor", "comet")


class Tracker:
    """Writes curves over the optimiser steps done: ``train/loss``, ``validation/loss``, ...

    After a resume the steps since the checkpoint are written again: they are the same points.
    """

    def __init__(self, deepspeed: Mapping[str, Any], folder: Path) -> None:
        """Write to TensorBoard in ``folder``, and to Weights & Biases, Comet or CSV if ``deepspeed`` enables them.

        Every process makes one, after ``start_processes``; process 0 writes. Without the package tensorboard the run
        goes on without its curves, and a warning says so.

        Args:
            deepspeed: the DeepSpeed configuration; its section ``tensorboard`` may disable it or name another folder.
            folder: made where it does not exist.

        Raises:
            ConfigError: the package of a monitor that ``deepspeed`` enables is not installed.
        """
        from deepspeed.monitor.config import get_monitor_config  # noqa: PLC0415  (seconds to import)
        from deepspeed.monitor.monitor import MonitorMaster  # noqa: PLC0415

        ours = {"enabled": True, "output_path": str(folder.parent), "job_name": folder.name}
        tensorboard = ours | deepspeed.get("tensorboard", {})
        if tensorboard["enabled"] and importlib.util.find_spec("tensorboard") is None:
            log.warning("pretrain: no curves are written for TensorBoard; pip install tensorboard to have them")
            tensorboard["enabled"] = False
        try:
            self._monitors = MonitorMaster(get_monitor_config({**deepspeed, "tensorboard": tensorboard}))
        except ImportError as error:
            raise ConfigError(
                f"pretrain.deepspeed: a monitor is enabled whose package is not installed ({error}); install it, or "
                "disable the monitor"
            ) from None

    def write_row(self, row: Sequence[Any]) -> None:
        """Write a row of the ``steps`` table, of a training step or of a validation: ``<split>/<column>``."""
        values = dict(zip(STEPS.columns, row, strict=True))
        split, _, step = (values.pop(name) for name in ("split", "epoch", "step"))
        self._write(split, step, values)

    def write_validation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write what else was measured on the validation breasts after ``step``: ``validation/<metric>``."""
        self._write("validation", step, metrics)

    def _write(self, split: str, step: int, values: Mapping[str, float | None]) -> None:
        self._monitors.write_events(
            [(f"{split}/{name}", value, step) for name, value in values.items() if value is not None]
        )


def without_monitors(deepspeed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the DeepSpeed configuration without its monitors, which a `Tracker` uses in the engine's place.

    >>> without_monitors({"gradient_clipping": 1.0, "wandb": {"enabled": True}})
    {'gradient_clipping': 1.0}
    """
    return {key: value for key, value in deepspeed.items() if key not in _MONITORS}
