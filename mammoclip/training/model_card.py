"""The card that lies beside a model's weights: what it is, what it saw, what it is not for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from mammoclip.config import PretrainSection
from mammoclip.datasets.base import Source

_CARD = """# {name}

Mammo-CLIP model trained with mammoclip. **Research software: not a medical device, not for clinical use.**

| | |
|---|---|
| role | {role} |
| image encoder | {section.image_encoder} ({weights}) |
| text encoder | {section.text_encoder} |
| image size | {section.height_px} x {section.width_px} px |
| data sets seen in training | {datasets} |
| objective | {section.loss.objective} |
| epochs | {epochs} |
| batch size, processes | {section.global_batch_size}, {processes} |
| seed | {seed} |
| code | mammoclip {version} |
| best validation loss | {best} |
{scores}
{sources}
The licences of the data sets hold for these weights too. Normalisation and architecture are in `config.json`.
{release}"""

_FORBIDDEN = """
**These weights must not be released.** The licence of {titles} forbids to pass on what is trained on it.
"""

_ROLES = {
    "none": "trained",
    "untrained": "control: initial weights, never trained",
    "shuffled_reports": "control: trained on reports permuted over patients",
}


@dataclass(frozen=True)
class Seen:
    """What a run was trained on: the source and the number of training breasts of each data set, and the scores.

    ``scores`` are those of the validation breasts after the best epoch, by name.
    """

    sources: Mapping[str, Source] = field(default_factory=dict)
    num_breasts: Mapping[str, int] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def keeps_from_release(self) -> list[str]:
        """Titles of the data sets whose licence forbids to pass on what is trained on them."""
        return [source.title for source in self.sources.values() if not source.weights_may_be_released]


def model_card(
    name: str, control: str, section: PretrainSection, steps: pl.DataFrame, seen: Seen, *, seed: int, version: str
) -> str:
    """Return the Markdown card of a run from its configuration, its ``steps`` and what it has seen; none: untrained."""
    losses = steps.filter(pl.col("split") == "validation")["loss"].to_list()
    untrained = control == "untrained"
    return _CARD.format(
        name=name,
        role=_ROLES[control],
        section=section,
        weights=section.image_weights or "random initial weights",
        datasets=", ".join(f"{dataset} ({number} breasts)" for dataset, number in seen.num_breasts.items()) or "none",
        sources="".join(_describe(dataset, source) for dataset, source in seen.sources.items()),
        release=_FORBIDDEN.format(titles=" and ".join(titles)) if (titles := seen.keeps_from_release) else "",
        epochs=0 if untrained else section.num_epochs,
        processes=section.nodes * max(1, section.gpus),
        seed=seed,
        version=version,
        best=f"{min(losses):.3f}" if losses else "-",
        scores="".join(
            f"| validation {score.replace('_', ' ')} | {value:.3f} |\n" for score, value in seen.scores.items()
        ),
    )


def _describe(dataset: str, source: Source) -> str:
    where = f" <{source.url}>" if source.url else ""
    citation = f" {source.citation}" if source.citation else ""
    return f"- {dataset}: {source.title}{where}, licence: {source.licence}.{citation}\n"
