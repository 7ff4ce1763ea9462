"""Tables of the stages that train and evaluate."""

from __future__ import annotations

import polars as pl

from mammoclip.artifacts.data_tables import FINDINGS, IDS
from mammoclip.artifacts.storage import Column, Table

STEPS = Table(
    "steps",
    1,
    {
        "split": Column(pl.String, "train (one row per step) or validation (one row per epoch)"),
        "epoch": Column(pl.Int32, "epoch, from 0"),
        "step": Column(pl.Int32, "optimiser steps done"),
        "loss": Column(pl.Float64, "weighted sum of the terms"),
        "image_text": Column(pl.Float64, "mean of image-to-text and text-to-image"),
        "image_image": Column(pl.Float64, "image-to-image term"),
        "text_text": Column(pl.Float64, "text-to-text term"),
        "learning_rate": Column(pl.Float64, "of the step", nullable=True),
        "temperature": Column(pl.Float64, "1 / exp(logit_scale)"),
    },
)

VALIDATION = Table(
    "validation",
    1,
    {
        "epoch": STEPS.columns["epoch"],
        "step": STEPS.columns["step"],
        "metric": Column(
            pl.String,
            "zero_shot_auroc_<finding>, zero_shot_macro_auroc_density, image_to_text_ or text_to_image_ followed by "
            "recall_at_<1, 5, 10> or median_rank, and chance_recall_at_<1, 5, 10>, that of a random ranking",
        ),
        "value": Column(pl.Float64, "over the validation breasts: from 0 to 1; a median rank from 1, best"),
    },
)

FEATURES = Table(
    "features",
    2,
    {
        "image_id": IDS["image_id"],
        "model_sha256": Column(pl.String, "SHA-256 of the model.safetensors that computed them"),
        "pooled": Column(pl.List(pl.Float32), "pooled output of the image encoder"),
        "embedding": Column(pl.List(pl.Float32), "L2-normalised projection into the joint space"),
    },
)

PROMPTS = Table(
    "prompts",
    2,
    {
        "task": Column(pl.String, "task of evaluate.tasks"),
        "class_index": Column(pl.Int32, "class that the prompt names: 0 negative, 1 positive; density 0-3 for A-D"),
        "prompt": Column(pl.String, "one sentence of the class; zero-shot averages the embeddings of all of them"),
        "model_sha256": FEATURES.columns["model_sha256"],
        "logit_scale": Column(pl.Float64, "of the model: 1 / temperature of the softmax over the classes"),
        "embedding": FEATURES.columns["embedding"],
    },
)

_PROTOCOL = {
    "task": PROMPTS.columns["task"],
    "protocol": Column(
        pl.String,
        "zero-shot, linear-probe, fine-tune; controls: zero-shot-random (random vectors in place of the prompts), "
        "linear-probe-shuffled (labels permuted over training patients), majority (always the most frequent class)",
    ),
    "fraction": Column(pl.Float64, "share of the training patients; 0 for zero-shot"),
    "seed": Column(pl.Int32, "draws the training patients, the order and the initial weights; 0 for zero-shot"),
}

PREDICTIONS = Table(
    "predictions",
    2,
    {
        "image_id": IDS["image_id"],
        "patient_id": IDS["patient_id"],
        "split": Column(pl.String, "validation or test"),
        **_PROTOCOL,
        "repeat": Column(pl.Int32, "0, 1, ... over the repeats of a control; else 0"),
        "label": Column(pl.Int32, "class that is true; null on showcase data sets", nullable=True),
        "scores": Column(pl.List(pl.Float64), "one probability per class, summing to 1, before temperature scaling"),
        "selected": Column(
            pl.Float64,
            "what was selected by validation (compat: by test) images: inverse L2 strength, or epoch; null if nothing",
            nullable=True,
        ),
    },
)

_OF_RUN = {"run": Column(pl.String, "pretraining run"), "dataset": IDS["dataset"]}

METRICS = Table(
    "metrics",
    2,
    {
        **_OF_RUN,
        **_PROTOCOL,
        "mode": Column(pl.String, "compat or strict"),
        "level": Column(pl.String, "image, breast (patient, exam, side) or exam"),
        "pooling": Column(pl.String, "mean or max over the images of a breast or exam; none for images"),
        "subgroup": Column(pl.String, "all, or what divides the test images: density, age, manufacturer, ..."),
        "group": Column(pl.String, "the group; null where all are meant, or where it is not known", nullable=True),
        "metric": Column(pl.String, "auroc, auprc, pf1, ...: docs/evaluation.md"),
        "value": Column(pl.Float64, "point estimate; of a control, the mean over its repeats", nullable=True),
        "ci_low": Column(
            pl.Float64,
            "lower end of the patient-clustered bootstrap interval, or of the quantiles over the repeats",
            nullable=True,
        ),
        "ci_high": Column(pl.Float64, "upper end", nullable=True),
        "n": Column(pl.Int32, "test images, breasts or exams"),
        "n_positive": Column(pl.Int32, "positive ones; null for several classes", nullable=True),
        "num_patients": Column(pl.Int32, "clusters"),
        "reason": Column(pl.String, "why there is no value; null if there is one", nullable=True),
    },
)

CHOICES = Table(
    "choices",
    1,
    {
        **_OF_RUN,
        **_PROTOCOL,
        "choice": Column(pl.String, "selected (see predictions), temperature, threshold (highest balanced accuracy)"),
        "value": Column(pl.Float64, "what the validation images chose", nullable=True),
        "reason": Column(pl.String, "why nothing could be chosen", nullable=True),
    },
)

RETRIEVAL = Table(
    "retrieval",
    1,
    {
        **_OF_RUN,
        "candidates": Column(pl.String, "data set among whose test breasts is searched: the same, or all of them"),
        "metric": Column(
            pl.String,
            "image_to_text_ or text_to_image_ followed by recall_at_<1, 5, 10> or median_rank; chance_recall_at_<k>",
        ),
        "value": Column(pl.Float64, "point estimate"),
        "ci_low": Column(pl.Float64, "lower end of the patient-clustered bootstrap interval", nullable=True),
        "ci_high": Column(pl.Float64, "upper end", nullable=True),
        "n": Column(pl.Int32, "queries: test breasts with images and text"),
        "num_patients": Column(pl.Int32, "clusters"),
    },
)

_OF_FINDING = {
    "finding": Column(pl.String, "mass, suspicious_calcification, ...; all_findings: the mean over the findings"),
    "protocol": Column(
        pl.String,
        "detection-frozen, detection-fine-tune, mammo-factor; beside the last its baselines: grad-cam, similarity-map, "
        "centre-prior, random; followed by -shuffled: control, held against true boxes of other patients' images",
    ),
}
_TRAINED = {
    "target": Column(pl.String, "what was trained together: the finding, or all_findings"),
    "fraction": Column(pl.Float64, "share of the training patients; 0 for what is not trained"),
    "seed": Column(pl.Int32, "draws the training patients, the order and the initial weights"),
}

DETECTIONS = Table(
    "detections",
    1,
    {
        "image_id": IDS["image_id"],
        **_OF_FINDING,
        **_TRAINED,
        "score": Column(pl.Float64, "from 0 to 1; compares boxes of all images, higher means surer"),
        **{name: FINDINGS.columns[name] for name in ("x_min", "y_min", "x_max", "y_max")},
        "selected": Column(pl.Int32, "epoch, from 0, chosen on validation (compat: test) images", nullable=True),
    },
)

ATTRIBUTIONS = Table(
    "attributions",
    1,
    {
        "image_id": IDS["image_id"],
        **_OF_FINDING,
        "pointing_game": Column(pl.Float64, "1 if the hottest pixel lies in a box of the finding, else 0"),
        "energy_inside": Column(pl.Float64, "share of the heat that lies in boxes of the finding"),
        "region_iou": Column(pl.Float64, "intersection over union of what the found and the true boxes cover"),
    },
)

HEAT_MAPS = Table(
    "heat_maps",
    1,
    {
        "image_id": IDS["image_id"],
        **_OF_FINDING,
        "rows": Column(pl.Int32, "cells of the map, down"),
        "columns": Column(pl.Int32, "cells of the map, across"),
        "heat": Column(pl.List(pl.Float32), "rows x columns values, row by row; the cells share the image evenly"),
    },
)

LOCALIZATION = Table(
    "localization",
    1,
    {
        **_OF_RUN,
        **_OF_FINDING,
        **_TRAINED,
        "mode": METRICS.columns["mode"],
        "lesion_size": Column(
            pl.String,
            "longer side of a lesion's box over the height of the image; null: lesions of any size",
            nullable=True,
        ),
        "metric": Column(
            pl.String,
            "ap_25, ap_50 (average precision at IoU .25, .5), coco_ap, sensitivity_at_<0.25, 0.5, 1, 2>_fp (false "
            "positives per image, FROC), pointing_game, energy_inside, region_iou",
        ),
        **{name: METRICS.columns[name] for name in ("value", "ci_low", "ci_high")},
        "num_images": Column(pl.Int32, "test images"),
        "num_lesions": Column(pl.Int32, "true boxes"),
        "num_patients": METRICS.columns["num_patients"],
        "reason": METRICS.columns["reason"],
    },
)
