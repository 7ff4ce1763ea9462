"""Stage ``localize``: training of one detector on the image encoder, and what it finds in the test images."""

from __future__ import annotations

import argparse
import os
import shutil
from functools import partial
from pathlib import Path
from typing import get_args

import polars as pl
import torch

from mammoclip.artifacts import (
    ATTRIBUTES,
    DETECTIONS,
    FINDING_NAMES,
    FINDINGS,
    IMAGES,
    LABELS,
    read_table,
    write_table,
)
from mammoclip.config import ALL_FINDINGS, DetectionProtocol, LocalizeSection, findings_of
from mammoclip.data.reader import ShardReader
from mammoclip.evaluation.examples import take_fraction
from mammoclip.evaluation.features import resolve_precision
from mammoclip.localization.boxed import boxed_images, detections_frame, to_boxed_images
from mammoclip.localization.detector import build_detector
from mammoclip.localization.detector_training import DetectionJob, train_detector
from mammoclip.localization.validation_score import mean_average_precision
from mammoclip.models import load
from mammoclip.models.cpu_memory import keep_freed_memory
from mammoclip.training.distributed import start_processes, stop_processes
from pipelines.command import content_folder, run_stage, section_argument

_ARCHITECTURE = (
    "focal_alpha",
    "focal_gamma",
    "anchor_sizes_px",
    "anchor_ratios",
    "max_detections",
    "score_threshold",
    "channels",
)


def run(arguments: argparse.Namespace) -> None:
    """Write the detections in the test images; the first of several processes does."""
    section: LocalizeSection = arguments.config
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    options = section.detection
    targets = findings_of(arguments.target)
    images, findings = read_table(IMAGES, arguments.images), read_table(FINDINGS, arguments.findings)
    attributes, labels = read_table(ATTRIBUTES, arguments.attributes), read_table(LABELS, arguments.labels)
    rows = boxed_images(images, findings, attributes, labels, targets, section.mode)
    parts = {split: rows.filter(pl.col("split") == split) for split in ("train", "validation", "test")}
    parts["train"] = take_fraction(parts["train"], arguments.fraction, arguments.seed)
    boxed = {split: to_boxed_images(part, findings, targets, options.size_px) for split, part in parts.items()}
    rank, world_size = start_processes() if "RANK" in os.environ else (0, 1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    detector = build_detector(
        load(arguments.model).model.image_encoder,
        len(targets),
        options.size_px,
        mode=section.mode,
        trains_encoder=arguments.protocol == "detection-fine-tune",
        bf16=resolve_precision(options.precision, torch.device(device)) == "bf16",
        seed=arguments.seed,
        **options.model_dump(include={*_ARCHITECTURE}),
    ).to(device)
    reader = ShardReader(images, arguments.shards, options.size_px)
    work = work_folder(arguments)
    job = DetectionJob(
        section=options,
        **boxed,
        read_image=reader.read,
        score=partial(mean_average_precision, boxed["test" if section.mode == "compat" else "validation"]),
        mode=section.mode,
        seed=arguments.seed,
        work=work,
        threads=arguments.threads,
        rank=rank,
        world_size=world_size,
    )
    detected = train_detector(detector, job)
    reader.close()
    stop_processes()
    if rank == 0:
        frame = detections_frame(
            detected.test,
            parts["test"],
            targets,
            options.size_px,
            target=arguments.target,
            protocol=arguments.protocol,
            fraction=arguments.fraction,
            seed=arguments.seed,
            selected=detected.selected,
        )
        write_table(frame, DETECTIONS, arguments.out)
        shutil.rmtree(work)


def work_folder(arguments: argparse.Namespace) -> Path:
    """Return the folder of the checkpoints; another model, other data or settings get another one."""
    section: LocalizeSection = arguments.config
    science = [
        section.mode,
        section.detection.model_dump(mode="json", exclude={"matrix"}),
        *(arguments.target, arguments.protocol, arguments.fraction, arguments.seed),
    ]
    tables = (arguments.images, arguments.findings, arguments.attributes, arguments.labels)
    return content_folder(arguments.work, science, [*tables, arguments.model / "model.safetensors"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=section_argument(LocalizeSection), required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--findings", type=Path, required=True)
    parser.add_argument("--attributes", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--target", choices=(*FINDING_NAMES, ALL_FINDINGS), required=True)
    parser.add_argument("--protocol", choices=get_args(DetectionProtocol), required=True)
    parser.add_argument("--fraction", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    run_stage(parser, run)
