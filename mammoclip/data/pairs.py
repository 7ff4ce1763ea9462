"""Sampling of image-text training examples: two images and two texts of one breast (section 3.1 of the paper).

An example depends on (seed, epoch, index) alone, so any process can make it, in any order, again after a resume.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from mammoclip.data.augmentation import AugmentationStrength, augment
from mammoclip.errors import ArtifactError

Image = npt.NDArray[np.uint8]
ReadImage = Callable[[str], Image]

_SIDES = re.compile(r"\b(left|right)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Example:
    """Two views and two texts of one breast. Images: uint8, height x width."""

    image_1: Image
    image_2: Image
    text_1: str
    text_2: str


@dataclass(frozen=True)
class Breast:
    """One row of the ``breasts`` table with at least one image and one text; images are ``<dataset>/<image_id>``."""

    cc_image_ids: tuple[str, ...]
    mlo_image_ids: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]  # sections, each a tuple of sentences


def trainable_breasts(breasts: pl.DataFrame, split: str) -> list[Breast]:
    """Return the breasts of a split that have an image and a text.

    Raises:
        ArtifactError: if there is none.
    """
    rows = breasts.filter(pl.col("split") == split).select("dataset", "cc_image_ids", "mlo_image_ids", "texts").rows()
    usable = [
        Breast(tuple(f"{dataset}/{i}" for i in cc), tuple(f"{dataset}/{i}" for i in mlo), tuple(map(tuple, texts)))
        for dataset, cc, mlo, texts in rows
        if texts and (cc or mlo)
    ]
    if not usable:
        raise ArtifactError(f"no breast of the split {split!r} has both an image and a text; check the tabulate stage")
    return usable


def shuffle_texts(breasts: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Return ``breasts`` with the texts permuted over patients, within split and side, as a control.

    Each patient gets the texts of another one (a cyclic shift of a random order), so that images and texts keep
    their distributions and lose their connection.
    """
    rng = np.random.default_rng([seed, 1])
    patients = breasts.select("dataset", "split", "patient_id").unique().sort("dataset", "split", "patient_id")
    donors: list[pl.DataFrame] = []
    for _, group in patients.group_by("dataset", "split", maintain_order=True):
        order = rng.permutation(len(group))
        ids = group["patient_id"].gather(order)
        donors.append(group[order.tolist()].with_columns(donor=ids.gather(np.roll(np.arange(len(ids)), 1))))
    donor_texts = breasts.select("dataset", "laterality", donor="patient_id", donated="texts")
    moved = breasts.join(pl.concat(donors), on=["dataset", "split", "patient_id"]).join(
        donor_texts, on=["dataset", "donor", "laterality"], how="left"
    )
    return (
        moved.with_columns(texts=pl.col("donated").fill_null(pl.lit([], breasts.schema["texts"])))
        .select(breasts.columns)
        .sort("dataset", "patient_id", "laterality")
    )


def swap_sides(text: str) -> str:
    """Exchange the words left and right, as a horizontal flip of the image demands.

    >>> swap_sides("mass in the left breast")
    'mass in the right breast'
    """
    return _SIDES.sub(lambda match: "right" if match[0].lower() == "left" else "left", text)


class PairSampler:
    """Draws one training or validation example of a breast.

    Training: a CC and an MLO image when both exist (order random), else two different images of the one view, else the
    one image twice; two texts drawn with replacement, sentences shuffled; augmentation. Validation: the first of each.
    """

    def __init__(
        self,
        breasts: Sequence[Breast],
        read_image: ReadImage,
        seed: int,
        strength: AugmentationStrength | None,
        horizontal_flip_probability: float = 0.0,
    ) -> None:
        """Draw from ``breasts``; without ``strength`` examples are those of validation."""
        self.breasts = breasts
        self._read_image = read_image
        self._seed = seed
        self._strength = strength
        self._flip = horizontal_flip_probability

    def __len__(self) -> int:
        """Return the number of breasts."""
        return len(self.breasts)

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return the order in which the breasts are seen in an epoch; training shuffles."""
        if self._strength is None:
            return np.arange(len(self))
        return np.random.default_rng([self._seed, 2, epoch]).permutation(len(self))

    def example(self, epoch: int, index: int) -> Example:
        """Return the example of breast ``index`` in ``epoch``."""
        breast = self.breasts[index]
        if self._strength is None:
            ids, texts = _first(breast)
            return Example(self._read_image(ids[0]), self._read_image(ids[1]), *texts)
        rng = np.random.default_rng([self._seed, 3, epoch, index])
        ids = _draw_images(breast, rng)
        text_1, text_2 = (_shuffle_sentences(breast.texts[i], rng) for i in rng.integers(len(breast.texts), size=2))
        images = [self._read_image(image_id) for image_id in ids]
        if rng.random() < self._flip:
            images = [np.ascontiguousarray(image[:, ::-1]) for image in images]
            text_1, text_2 = swap_sides(text_1), swap_sides(text_2)
        image_1, image_2 = (augment(image, self._strength, rng) for image in images)
        return Example(image_1, image_2, text_1, text_2)


def _first(breast: Breast) -> tuple[tuple[str, str], tuple[str, str]]:
    ids = [*breast.cc_image_ids[:1], *breast.mlo_image_ids[:1]]
    return (ids[0], ids[-1]), (" ".join(breast.texts[0]), " ".join(breast.texts[-1]))


def _draw_images(breast: Breast, rng: np.random.Generator) -> tuple[str, str]:
    if breast.cc_image_ids and breast.mlo_image_ids:
        pair = [str(rng.choice(breast.cc_image_ids)), str(rng.choice(breast.mlo_image_ids))]
    else:
        ids = breast.cc_image_ids or breast.mlo_image_ids
        pair = [str(i) for i in rng.choice(ids, 2, replace=False)] if len(ids) > 1 else [ids[0], ids[0]]
    if rng.random() < 0.5:
        pair.reverse()
    return pair[0], pair[1]


def _shuffle_sentences(sentences: Sequence[str], rng: np.random.Generator) -> str:
    return " ".join(str(sentence) for sentence in rng.permutation(sentences))
