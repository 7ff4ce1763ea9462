"""Mammo-CLIP as a system: from raw DICOM to shards, pretraining, evaluation and the tables of the paper.

``mammoclip.load(folder)`` gives a trained model; see `mammoclip.models.load`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mammoclip.models import load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    # torch and transformers take seconds to import, and most of the package does without them.
    if name == "load":
        from mammoclip.models import load  # noqa: PLC0415

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
