"""Makes ``import torchvision`` work where its compiled operators cannot load (CPU-only torch beside its CUDA build).

torchvision registers fake kernels for its operators at import and fails when the operators themselves are missing; timm
and transformers then fail with it. Only non-maximum suppression is needed here, so it is declared in its place.
"""

from __future__ import annotations

import importlib
import importlib.util
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.library import Library

# torch drops the declarations of a Library object that is garbage-collected: they live as long as this module.
_DECLARED: list[Library] = []


def greedy_nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy non-maximum suppression, with the meaning of ``torchvision.ops.nms``.

    ``boxes`` (N, 4) are ``x1, y1, x2, y2``; ``scores`` (N,). Returns int64 indices of the boxes kept, by falling score
    (equal scores: lower index first). A box goes when its IoU with a kept box of higher score exceeds the threshold.
    """
    order = scores.argsort(descending=True, stable=True)
    x1, y1, x2, y2 = boxes[order].unbind(dim=1)
    areas = (x2 - x1) * (y2 - y1)
    alive = torch.ones(len(order), dtype=torch.bool, device=boxes.device)
    kept: list[int] = []
    for i in range(len(order)):
        if not alive[i]:
            continue
        kept.append(i)
        width = (torch.minimum(x2[i], x2[i + 1 :]) - torch.maximum(x1[i], x1[i + 1 :])).clamp(min=0)
        height = (torch.minimum(y2[i], y2[i + 1 :]) - torch.maximum(y1[i], y1[i + 1 :])).clamp(min=0)
        overlap = width * height
        # Two boxes without area give 0/0: NaN exceeds nothing, both stay, as in the compiled operator.
        alive[i + 1 :] &= ~(overlap / (areas[i] + areas[i + 1 :] - overlap) > iou_threshold)
    return order[torch.tensor(kept, dtype=torch.int64, device=boxes.device)]


def _greedy_qnms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """The same on the integers of quantised boxes: an IoU does not depend on the scale."""
    return greedy_nms(boxes.float(), scores, iou_threshold)


def _compiled_operators_load() -> bool:
    """Whether torchvision's extension loads into this torch; looked up as torchvision does, without importing it."""
    package = importlib.util.find_spec("torchvision")
    if package is None or package.origin is None:
        return False
    folder = str(Path(package.origin).parent)
    extension = FileFinder(folder, (ExtensionFileLoader, EXTENSION_SUFFIXES)).find_spec("_C")
    if extension is None or extension.origin is None:
        return False
    try:
        torch.ops.load_library(extension.origin)  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return True


def ensure_torchvision() -> None:
    """Declare ``torchvision::nms`` and ``qnms`` on the CPU unless torchvision's own operators load; safe to repeat.

    Call it before the first import of torchvision, timm or a transformers model.
    """
    if hasattr(torch.ops.torchvision, "nms") or _compiled_operators_load():
        return
    library: Any = Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name, implementation in (("nms", greedy_nms), ("qnms", _greedy_qnms)):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.impl(name, implementation, "CPU")
    _DECLARED.append(library)
    extension: Any = importlib.import_module("torchvision.extension")
    # Only after the import: what torchvision bound before (roi_align) keeps its Python fallback.
    extension._has_ops = lambda: True
