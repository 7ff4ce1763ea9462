"""What Mammo-FActOR is trained on: the attributes of images, and sentences that speak of each attribute."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import polars as pl

from mammoclip.config import FactorSection, Mode
from mammoclip.errors import ConfigError
from mammoclip.evaluation.examples import released_split
from mammoclip.localization.factor import grammar_sentences, report_sentences
from mammoclip.localization.factor_training import AttributedImages


def attributed_images(
    images: pl.DataFrame, attributes: pl.DataFrame, labels: pl.DataFrame, names: Sequence[str], mode: Mode
) -> dict[str, AttributedImages]:
    """Return the images of each split, by id, with what the data set's tables say of the attributes ``names``.

    Of several rows for an image and attribute one that says present wins. What was read from reports is no ground truth
    and counts as unknown. Compat has the released splits, see ``released_split``.

    Args:
        images: table of this name.
        attributes: table of this name.
        labels: table of this name, compat.
        names: K attributes of value 1, present, or 0, absent; any other value is absent.
        mode: strict or compat.
    """
    stated = attributes.filter(pl.col("source") == "table", pl.col("attribute").is_in(list(names)))
    present = stated.group_by("image_id", "attribute").agg((pl.col("value") == 1).any().cast(pl.Int64).alias("value"))
    rows = images.select("image_id", "split").sort("image_id")
    if mode == "compat":
        released = labels.select("image_id", split=released_split()).unique("image_id")
        rows = rows.drop("split").join(released, on="image_id", how="left", maintain_order="left")
    for name in names:
        of_name = present.filter(attribute=name).select("image_id", pl.col("value").alias(f"value of {name}"))
        rows = rows.join(of_name, on="image_id", how="left", maintain_order="left")
    rows = rows.with_columns(pl.exclude("image_id", "split").fill_null(-1))
    parts = {split: rows.filter(split=split) for split in ("train", "validation", "test")}
    return {
        split: AttributedImages(part["image_id"].to_list(), part.drop("image_id", "split").to_numpy())
        for split, part in parts.items()
    }


def attribute_sentences(section: FactorSection, sentences: Sequence[str], seed: int) -> list[list[str]]:
    """Return the sentences that speak of each of the section's attributes, K lists.

    One's own where the section has them; else those of the prompt grammar, or at most ``sentences_per_attribute`` drawn
    from ``sentences``, those of the training patients' reports.

    Raises:
        ConfigError: nothing speaks of an attribute.
    """
    found = []
    for name in section.attributes:
        if name in section.prompts:
            found.append(section.prompts[name])
        elif section.sentences == "grammar":
            found.append(_of_grammar(name, section.sentences_per_attribute, seed))
        else:
            said = sorted(report_sentences(sentences, name), key=lambda each: _key(seed, each))
            if not said:
                raise ConfigError(
                    f"localize.factor: no report of a training patient says {name!r}; give its prompts, set sentences "
                    "to grammar, or leave the attribute out"
                )
            found.append(said[: section.sentences_per_attribute])
    return found


def _of_grammar(name: str, size: int, seed: int) -> list[str]:
    try:
        return list(grammar_sentences(name, size, seed))
    except ConfigError as error:
        raise ConfigError(f"localize.factor: {error} Or give its prompts.") from None


def _key(seed: int, sentence: str) -> str:
    return hashlib.sha256(f"{seed}/{sentence}".encode()).hexdigest()
