"""The card that lies beside a model's weights: what it is, what it saw, what it is not for."""

from __future__ import annotations

from collections.abc import Mapping

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
| epochs | {epochs} |
| batch size, processes | {section.global_batch_size}, {processes} |
| best validation loss | {best} |

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


def model_card(
    name: str, control: str, section: PretrainSection, steps: pl.DataFrame, sources: Mapping[str, Source]
) -> str:
    """Return the Markdown card of a run from its configuration, its ``steps`` and the sources of its data sets."""
    losses = steps.filter(pl.col("split") == "validation")["loss"].to_list()
    untrained = control == "untrained"
    seen = {} if untrained else sources
    forbidden = [source.title for source in seen.values() if not source.weights_may_be_released]
    return _CARD.format(
        name=name,
        role=_ROLES[control],
        section=section,
        weights=section.image_weights or "random initial weights",
        datasets="none" if untrained else ", ".join(section.datasets),
        sources="".join(_describe(dataset, source) for dataset, source in seen.items()),
        release=_FORBIDDEN.format(titles=" and ".join(forbidden)) if forbidden else "",
        epochs=0 if untrained else section.num_epochs,
        processes=max(1, section.gpus),
        best=f"{min(losses):.3f}" if losses else "-",
    )


def _describe(dataset: str, source: Source) -> str:
    where = f" <{source.url}>" if source.url else ""
    citation = f" {source.citation}" if source.citation else ""
    return f"- {dataset}: {source.title}{where}, licence: {source.licence}.{citation}\n"
