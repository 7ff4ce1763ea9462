"""Small tables of localisation: boxes, attributions, heat maps and metrics, as the stage ``localize`` writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from mammoclip.artifacts import ATTRIBUTIONS, DETECTIONS, HEAT_MAPS, LOCALIZATION, write_table
from mammoclip.config import ALL_FINDINGS, FACTOR, LocalizeSection

FINDING = "suspicious_calcification"
BASELINES = ("similarity-map", "grad-cam", "centre-prior", "random")
SIZES = ("< 0.25", "0.25 to < 0.5", ">= 0.5")
DETECTED = ("ap_25", "ap_50", "coco_ap", *(f"sensitivity_at_{rate:g}_fp" for rate in (0.25, 0.5, 1, 2)))
ATTRIBUTED = ("pointing_game", "energy_inside", "region_iou", *DETECTED)
NO_BOX = "no test image has a box"
SHAPE = (6, 4)


def write_localization(folder: Path, run: str, skill: float, localize: LocalizeSection) -> None:
    """Write what ``localize`` asks of a run for; ``skill`` from 0 to 1 is the share of the lesions that it finds."""
    rng = np.random.default_rng(5)
    metrics: dict[str, list[pl.DataFrame]] = {dataset: [] for dataset in localize.datasets}
    for cell in localize.detectors([run]):
        if cell.run != run:
            continue
        told = {"protocol": cell.protocol, "target": cell.target, "fraction": cell.fraction, "seed": cell.seed}
        path = folder / "localize" / run / cell.dataset / f"{cell.name}.parquet"
        write_table(_boxes(folder, cell.dataset, skill, rng, **told), DETECTIONS, path)
        for protocol in (cell.protocol, f"{cell.protocol}-shuffled"):
            told["protocol"] = protocol
            value = skill * cell.fraction / (1 + cell.seed) if protocol == cell.protocol else 0.01
            metrics[cell.dataset].append(_metrics(run, cell.dataset, value, DETECTED, **told))
            if cell.target == ALL_FINDINGS:
                nothing = _metrics(run, cell.dataset, None, DETECTED, **told).filter(pl.col("lesion_size").is_null())
                counts = {"finding": pl.lit("mass"), "num_lesions": pl.lit(0, pl.Int32)}
                metrics[cell.dataset].append(nothing.with_columns(**counts, reason=pl.lit(NO_BOX)))
    for name, dataset in localize.factors([run]):
        if name == run:
            metrics[dataset] += _write_factor(folder, run, dataset, skill, rng)
    for dataset, tables in metrics.items():
        if tables:
            path = folder / "localize" / run / dataset / "localization.parquet"
            write_table(pl.concat(tables), LOCALIZATION, path)


def _write_factor(folder: Path, run: str, dataset: str, skill: float, rng: np.random.Generator) -> list[pl.DataFrame]:
    out = folder / "localize" / run / dataset / FACTOR
    boxed = pl.read_parquet(folder / "tabulate" / dataset / "findings.parquet")["image_id"].to_list()
    boxes, attributions, maps, metrics = [], [], [], []
    for protocol in (FACTOR, *BASELINES):
        strength = skill if protocol == FACTOR else skill / 2
        told = {"protocol": protocol, "target": FINDING, "fraction": 1.0, "seed": 0}
        boxes.append(_boxes(folder, dataset, strength, rng, **told))
        for image_id in boxed:
            attributions.append((image_id, FINDING, protocol, float(rng.random() < strength), *rng.random(2)))
            if protocol in (FACTOR, "similarity-map", "grad-cam"):
                maps.append((image_id, FINDING, protocol, *SHAPE, rng.normal(0.2, 1, SHAPE).flatten().tolist()))
        for ending in ("", "-shuffled"):
            told["protocol"] = protocol + ending
            value = 0.02 if ending else strength
            metrics.append(_metrics(run, dataset, value, ATTRIBUTED, **told).filter(pl.col("lesion_size").is_null()))
    for table, rows in ((ATTRIBUTIONS, attributions), (HEAT_MAPS, maps)):
        write_table(pl.DataFrame(rows, table.schema, orient="row"), table, out / f"{table.name}.parquet")
    write_table(pl.concat(boxes), DETECTIONS, out / "detections.parquet")
    (out / "factor.safetensors").write_bytes(run.encode())
    return metrics


def _boxes(folder: Path, dataset: str, skill: float, rng: np.random.Generator, **told: str | float) -> pl.DataFrame:
    """Return a box near a share of the true ones, and one anywhere in every image."""
    tabulated = folder / "tabulate" / dataset
    true = pl.read_parquet(tabulated / "findings.parquet").select("image_id", "x_min", "y_min", "x_max", "y_max").rows()
    rows = [(row[0], *(np.array(row[1:]) + rng.normal(0, 0.5, 4)), 0.6 + 0.3 * rng.random()) for row in true]
    rows = [row for row in rows if rng.random() < skill]
    for image_id in pl.read_parquet(tabulated / "images.parquet")["image_id"]:
        left, top = rng.random(2) * 40
        rows.append((image_id, left, top, left + 15, top + 20, 0.5 * rng.random()))
    frame = pl.DataFrame(rows, ["image_id", "x_min", "y_min", "x_max", "y_max", "score"], orient="row")
    stated = {name: pl.lit(value) for name, value in {"finding": FINDING, **told}.items()}
    return (
        frame.with_columns(**stated, selected=pl.lit(2)).select(list(DETECTIONS.columns)).cast(dict(DETECTIONS.schema))
    )


def _metrics(run: str, dataset: str, value: float | None, names: tuple[str, ...], **told: str | float) -> pl.DataFrame:
    bounds = {} if value is None else {"value": value, "ci_low": value / 2, "ci_high": (1 + value) / 2}
    of_all = {"run": run, "dataset": dataset, "finding": FINDING, "mode": "strict", **told}
    counts = {"num_images": 23, "num_lesions": 11, "num_patients": 6}
    rows = [{**of_all, **counts, **bounds, "metric": name} for name in names]
    rows += [
        {**of_all, **counts, "metric": name, "lesion_size": size, "num_lesions": 3, "reason": "fewer than 10 lesions"}
        for size in SIZES
        for name in names
        if name.startswith("sensitivity")
    ]
    return pl.DataFrame(rows, LOCALIZATION.schema)
