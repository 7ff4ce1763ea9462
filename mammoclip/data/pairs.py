"""Sampling of image-text training examples: two images and two texts of one breast (section 3.1 of the paper).

An example depends on (seed, epoch, index) alone, so any process can make it, in any order, again after a resume.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import polars as pl

from mammoclip.config import Mode
from mammoclip.data.augmentation import AugmentationStrength, augment, draw_warp
from mammoclip.data.captions import Captions, CaptionSampler, Paraphrases, swap_sides
from mammoclip.data.mixture import ALIKE, Mixture, check_weights, draw_epoch
from mammoclip.data.prefetch import ReadImage
from mammoclip.data.warp import Image, SamplingNodes, sampling_nodes
from mammoclip.errors import ArtifactError

log = logging.getLogger(__name__)

_GRADES = ("density", "birads")


@dataclass(frozen=True)
class Example:
    """Two views and two texts of one breast. Images: uint8 or uint16, height x width.

    ``warps`` are still to be applied, one to each image; none: they already were, or there are none.
    """

    image_1: Image
    image_2: Image
    text_1: str
    text_2: str
    patient: str
    warps: tuple[SamplingNodes, ...] = ()


@dataclass(frozen=True)
class Breast:
    """One row of the ``breasts`` table with at least one image and one caption; images are ``<dataset>/<image_id>``."""

    cc_image_ids: tuple[str, ...]
    mlo_image_ids: tuple[str, ...]
    captions: Captions
    dataset: str = ""
    patient: str = ""  # ``<dataset>/<patient_id>``

    @property
    def side(self) -> str:
        """``<dataset>/<laterality>``: the captions of one side may stand in for each other as a control."""
        return f"{self.dataset}/{self.captions.laterality}"


def trainable_breasts(breasts: pl.DataFrame, split: str) -> list[Breast]:
    """Return the breasts of a split that have an image, and a report or a label; how many have not is logged.

    Raises:
        ArtifactError: if there is none.
    """
    usable: list[Breast] = []
    without_image = without_words = 0
    for row in breasts.filter(pl.col("split") == split).iter_rows(named=True):
        cc, mlo = (tuple(f"{row['dataset']}/{i}" for i in row[f"{view}_image_ids"]) for view in ("cc", "mlo"))
        captions = _captions(row)
        if not (cc or mlo):
            without_image += 1
        elif not captions:
            without_words += 1
        else:
            usable.append(Breast(cc, mlo, captions, row["dataset"], f"{row['dataset']}/{row['patient_id']}"))
    if not usable:
        raise ArtifactError(
            f"no breast of the split {split!r} has both an image and a report or label; check the tabulate stage"
        )
    if left_out := without_image + without_words:
        log.info(
            "pairs: %d of %d %s breasts are left out: %d without image, %d without report or label",
            left_out,
            left_out + len(usable),
            split,
            without_image,
            without_words,
        )
    return usable


def _captions(row: dict[str, Any]) -> Captions:
    grades = [(name, row[name]) for name in _GRADES if row[name] is not None]
    views = []
    for view in ("cc", "mlo"):
        said = [(name, 1) for name in row[f"{view}_positives"]] + [(name, 0) for name in row[f"{view}_negatives"]]
        if row[f"{view}_image_ids"] and (said or grades):
            views.append((*said, *grades))
    return Captions(tuple(map(tuple, row["texts"])), row["laterality"], tuple(views))


class PairSampler:
    """Draws one training or validation example of a breast.

    Training: a CC and an MLO image when both exist (order random), else two different images of the one view, else the
    one image twice; two texts as ``captions`` draws them; augmentation. Validation: the first of each.

    ``mode`` compat does as the released code: left and right do not follow a flip, see also ``CaptionSampler``.

    With ``shuffle_reports``, a control, the texts are those of another patient's breast of the same side, of another
    patient in every epoch: images and texts keep their distributions and lose their connection. One fixed permutation
    would not do: a model learns by heart whatever connection it has by chance.
    """

    def __init__(
        self,
        breasts: Sequence[Breast],
        read_image: ReadImage,
        seed: int,
        strength: AugmentationStrength | None,
        horizontal_flip_probability: float = 0.0,
        *,
        paraphrases: Paraphrases | None = None,
        shuffle_reports: bool = False,
        mode: Mode = "strict",
        mixture: Mixture = ALIKE,
        warp_later: bool = False,
    ) -> None:
        """Draw from ``breasts``; without ``strength`` examples are those of validation, each breast once in order.

        With ``warp_later`` images are flipped horizontally at most: the rest is in ``Example.warps``.

        Raises:
            ArtifactError: if reports are to be shuffled and a side has a single breast.
            ConfigError: if the mixture weighs a data set without breasts.
        """
        self.breasts = breasts
        self._read_image = read_image
        self._seed = seed
        self._strength = strength
        self._flip = horizontal_flip_probability
        self._datasets = [breast.dataset for breast in breasts]
        self._mixture = mixture
        self._warp_later = warp_later
        check_weights(self._datasets, mixture)
        self._captions = CaptionSampler(paraphrases, mode)
        self._swaps_sides = mode == "strict"
        self._donors = lru_cache(maxsize=2)(self._draw_donors) if shuffle_reports else None
        if shuffle_reports and 1 in Counter(breast.side for breast in breasts).values():
            raise ArtifactError("reports cannot be shuffled: a side of a data set has a single breast in this split")

    def __len__(self) -> int:
        """Return the number of breasts."""
        return len(self.breasts)

    def order(self, epoch: int, global_batch_size: int) -> npt.NDArray[np.int64]:
        """Return the indices of the examples of an epoch, global batches x global_batch_size; training shuffles.

        There are equally many batches in every epoch; what does not fill one is left out.

        Raises:
            ConfigError: if batches are of one data set each, and one fills none.
        """
        if self._strength is not None:
            return draw_epoch(self._datasets, self._mixture, self._seed, epoch, global_batch_size)
        whole = len(self) // global_batch_size
        return np.arange(whole * global_batch_size).reshape(whole, global_batch_size)

    def example(self, epoch: int, index: int) -> Example:
        """Return the example ``index`` of ``epoch``: of the breast ``index % len(self)``, see ``mixture``."""
        row = index % len(self)
        breast = self.breasts[row]
        captions = self.breasts[self._donors(epoch)[row]].captions if self._donors else breast.captions
        if self._strength is None:
            ids = [*breast.cc_image_ids[:1], *breast.mlo_image_ids[:1]]
            texts = self._captions.first(captions)
            return Example(self._read_image(ids[0]), self._read_image(ids[-1]), *texts, breast.patient)
        rng = np.random.default_rng([self._seed, 3, epoch, index])
        ids = _draw_images(breast, rng)
        text_1, text_2 = self._captions.draw(captions, rng)
        images = [self._read_image(image_id) for image_id in ids]
        if rng.random() < self._flip:
            images = [np.asarray(cv2.flip(image, 1), image.dtype) for image in images]
            if self._swaps_sides:
                text_1, text_2 = swap_sides(text_1), swap_sides(text_2)
        warps: tuple[SamplingNodes, ...] = ()
        if self._warp_later:
            # The nodes are made here, in a thread of the loader, and not where a GPU waits for them.
            sizes = [(image.shape[0], image.shape[1]) for image in images]
            warps = tuple(sampling_nodes(draw_warp(rng, self._strength, size), size) for size in sizes)
        else:
            images = [augment(image, self._strength, rng) for image in images]
        return Example(images[0], images[1], text_1, text_2, breast.patient, warps)

    def _draw_donors(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return for each breast the one that lends its texts: the next one in a random order of its side."""
        rng = np.random.default_rng([self._seed, 1, epoch])
        sides = np.array([breast.side for breast in self.breasts])
        donors = np.empty(len(sides), np.int64)
        for side in np.unique(sides):
            order = rng.permutation(np.flatnonzero(sides == side))
            donors[order] = np.roll(order, 1)
        return donors


def _draw_images(breast: Breast, rng: np.random.Generator) -> list[str]:
    if breast.cc_image_ids and breast.mlo_image_ids:
        pair = [str(rng.choice(breast.cc_image_ids)), str(rng.choice(breast.mlo_image_ids))]
    else:
        ids = breast.cc_image_ids or breast.mlo_image_ids
        pair = [str(i) for i in rng.choice(ids, 2, replace=False)] if len(ids) > 1 else [ids[0], ids[0]]
    if rng.random() < 0.5:
        pair.reverse()
    return pair
