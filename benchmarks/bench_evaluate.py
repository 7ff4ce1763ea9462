"""Evaluation from cached features of 20,000 images: zero-shot, linear probe, retrieval, and all intervals.

Features are random but for a direction per class, at the sizes of the released model (2,048 pooled features, 512
dimensions). The files are read and written as the workflow's jobs do; 80 % of the images train the probe.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import polars as pl

from mammoclip.artifacts import FEATURES
from mammoclip.config import EvaluateSection
from mammoclip.evaluation.examples import take_fraction, with_features
from mammoclip.evaluation.predict import predict_probe, predict_zero_shot
from mammoclip.evaluation.retrieval import retrieval_metrics
from mammoclip.evaluation.summary import summarise

WANTED_SECONDS = 60
POOLED, EMBEDDING = 2048, 512


def make_cohort(num_images: int, seed: int) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Return features, labelled images and what ``images`` says of them: four views a patient, 5 % positive."""
    rng = np.random.default_rng(seed)
    numbers = np.arange(num_images)
    patient = numbers // 4
    split = np.array(["train", "validation", "test"])[np.digitize(rng.random(patient.max() + 1), [0.7, 0.8])[patient]]
    label = (rng.random(patient.max() + 1) < 0.05)[patient].astype(np.int32)
    latent = rng.normal(size=(num_images, 64)).astype(np.float32)
    latent[:, 0] += label
    pooled = latent @ rng.normal(size=(64, POOLED)).astype(np.float32) + rng.normal(size=(num_images, POOLED))
    embedding = latent @ rng.normal(size=(64, EMBEDDING)).astype(np.float32)
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    ids = [f"i{number}" for number in numbers]
    arrays = {"pooled": pooled.astype(np.float32), "embedding": embedding.astype(np.float32)}
    features = pl.DataFrame({"image_id": ids, "model_sha256": "sha"} | arrays).cast(dict(FEATURES.schema))
    rows = pl.DataFrame({"image_id": ids, "patient_id": [f"p{p}" for p in patient], "split": split, "label": label})
    places = {"study_id": pl.col("patient_id"), "laterality": pl.Series(np.array(["L", "R"])[numbers % 4 // 2])}
    return features, rows, rows.select("image_id", "patient_id").with_columns(**places)


@contextmanager
def timed(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Keep how long the block took."""
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start


def main() -> None:
    """Print the seconds of each part and of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    args = parser.parse_args()
    section = EvaluateSection()
    features, rows, images = make_cohort(args.images, 0)
    groups = images.select("image_id", view=pl.Series(["CC", "MLO"] * (len(images) // 2)))
    seconds: dict[str, float] = {}
    with timed("features into arrays", seconds):
        train = take_fraction(rows.filter(split="train"), 1.0, 0)
        frames = {"train": train} | {split: rows.filter(split=split) for split in ("validation", "test")}
        parts = {split: with_features(features, frame) for split, frame in frames.items()}
    with timed("zero-shot", seconds):
        directions = np.random.default_rng(1).normal(size=(2, EMBEDDING))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        zero_shot = predict_zero_shot({split: parts[split] for split in ("validation", "test")}, "mass", directions)
    with timed("linear probe, four strengths", seconds):
        probe = predict_probe(parts, "mass", 2, section.probe_strengths, fraction=1.0, seed=0, num_permutations=0)
    with timed("retrieval, both directions", seconds):
        embeddings = np.array(features["embedding"].to_list(), np.float32)
        texts = embeddings + np.random.default_rng(2).normal(0, 0.05, embeddings.shape).astype(np.float32)
        retrieval_metrics(embeddings, texts, np.arange(len(texts)))
    with timed("metrics and intervals, 2,000 resamples", seconds):
        metrics = [row for table in (zero_shot, probe) for row in summarise(table, images, groups, section, seed=0)]
    auroc = next(row["value"] for row in metrics if row["protocol"] == "linear-probe" and row["metric"] == "auroc")
    print(f"{args.images} images, {len(metrics)} metrics; AUROC of the probe {auroc:.3f}")
    for name, took in seconds.items():
        print(f"  {name:40}{took:7.1f} s")
    print(f"  {'together':40}{sum(seconds.values()):7.1f} s (wanted {WANTED_SECONDS} s at most)")


if __name__ == "__main__":
    main()
