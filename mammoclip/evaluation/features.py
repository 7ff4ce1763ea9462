"""Frozen features of every image of a data set, computed once and used by every evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from mammoclip.artifacts import FEATURES
from mammoclip.data.progress import report_progress
from mammoclip.models import LoadedModel, normalise


@torch.inference_mode()
def extract_features(
    model: LoadedModel,
    image_ids: Sequence[str],
    read_image: Callable[[str], npt.NDArray[np.uint8 | np.uint16]],
    batch_size: int,
    what: str,
) -> pl.DataFrame:
    """Return the ``features`` table: pooled encoder output and L2-normalised embedding per image.

    ``read_image`` gives uint8 or uint16, height x width, at the size the model was trained with.
    """
    device = next(model.model.parameters()).device
    rows: list[tuple[str, list[float], list[float]]] = []
    starts = range(0, len(image_ids), batch_size)
    for start in report_progress(starts, len(starts), f"{what}: batches"):
        ids = image_ids[start : start + batch_size]
        images = torch.from_numpy(np.stack([read_image(image_id) for image_id in ids])).to(device)
        pooled = model.model.image_features(normalise(images))
        embeddings = model.model.project_image(pooled)
        rows.extend(zip(ids, pooled.cpu().tolist(), embeddings.cpu().tolist(), strict=True))
    return pl.DataFrame(rows, schema=FEATURES.schema, orient="row")
