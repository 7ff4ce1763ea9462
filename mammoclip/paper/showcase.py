"""Real mammograms: every image of a data set without labels beside the main run's zero-shot scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from mammoclip.config import TaskSection
from mammoclip.datasets.base import Source
from mammoclip.errors import ArtifactError
from mammoclip.paper.crops import Crop, crop_data_uri, read_crops, sample_images
from mammoclip.paper.inputs import DatasetTables
from mammoclip.paper.wording import class_names, format_number, task_name


@dataclass(frozen=True)
class Card:
    """One image: the picture, and per task the score in words."""

    crop: Crop
    picture: str
    scores: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Showcase:
    """The cards of one data set; ``num_scored`` images were scored, as many as there are cards or more."""

    dataset: str
    source: Source | None
    num_scored: int
    cards: Sequence[Card]


def build_showcase(
    tables: DatasetTables, predictions: pl.DataFrame, tasks: Mapping[str, TaskSection], num_images: int, seed: int
) -> Showcase:
    """Return a card per scored image, or per image of a seeded sample when there are more than ``num_images``.

    Raises:
        ArtifactError: an image has no score for a task.
    """
    scored = predictions.filter(protocol="zero-shot")
    images = tables.images.join(scored.select("image_id").unique(), on="image_id", how="semi")
    scores = {(image_id, task): row for image_id, task, row in scored.select("image_id", "task", "scores").rows()}
    cards: list[Card] = []
    for crop in read_crops(tables, sample_images(images, num_images, seed)):
        missing = [task for task in tasks if (crop.image_id, task) not in scores]
        if missing:
            raise ArtifactError(
                f"data set {tables.name!r}: image {crop.image_id!r} has no zero-shot score for task {missing[0]!r}; "
                "rerun the evaluate stage"
            )
        lines = [
            (task_name(task), _scores_in_words(section.attribute or task, section, scores[crop.image_id, task]))
            for task, section in tasks.items()
        ]
        cards.append(Card(crop, crop_data_uri(crop, {}), lines))
    return Showcase(tables.name, tables.source, len(images), cards)


def _scores_in_words(attribute: str, section: TaskSection, scores: Sequence[float]) -> str:
    """Return the score of the positive one of two classes, of more that of each."""
    if len(scores) == 2:
        return format_number(scores[1], digits=3)
    names = class_names(attribute, section.values or range(len(scores)))
    pairs = zip(names, scores, strict=True)
    return ", ".join(f"{name}\N{NO-BREAK SPACE}{format_number(score, digits=3)}" for name, score in pairs)
