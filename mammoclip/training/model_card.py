"""The card that lies beside a model's weights: what it is, what it saw, what it is not for."""

from __future__ import annotations

import polars as pl

from mammoclip.config import PretrainSection

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
| batch size, processes | {section.batch_size}, {processes} |
| best validation loss | {best} |

The licences of the data sets above hold for these weights too. Normalisation and architecture are in `config.json`.
"""

_ROLES = {
    "none": "trained",
    "untrained": "control: initial weights, never trained",
    "shuffled_reports": "control: trained on reports permuted over patients",
}


def model_card(name: str, control: str, section: PretrainSection, steps: pl.DataFrame) -> str:
    """Return the Markdown card of a run from its configuration and its ``steps`` table."""
    losses = steps.filter(pl.col("split") == "validation")["loss"].to_list()
    untrained = control == "untrained"
    return _CARD.format(
        name=name,
        role=_ROLES[control],
        section=section,
        weights=section.image_weights or "random initial weights",
        datasets="none" if untrained else ", ".join(section.datasets),
        epochs=0 if untrained else section.num_epochs,
        processes=max(1, section.gpus),
        best=f"{min(losses):.3f}" if losses else "-",
    )
