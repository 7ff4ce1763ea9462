"""Stage ``evaluate``: training of one classifier on the images, head alone or with the encoder, and its predictions."""

from __future__ import annotations

import argparse
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch

from mammoclip.artifacts import ATTRIBUTES, IMAGES, LABELS, PREDICTIONS, read_table, write_table
from mammoclip.config import EvaluateSection
from mammoclip.data.reader import ShardReader
from mammoclip.evaluation.examples import labelled_images, num_classes, predictions_frame, take_fraction
from mammoclip.evaluation.fine_tune import FineTuneJob, LabelledImages, fine_tune
from mammoclip.models import load
from mammoclip.models.cpu_memory import keep_freed_memory
from mammoclip.training.distributed import start_processes, stop_processes
from pipelines.command import content_folder, run_stage, section_argument


def run(arguments: argparse.Namespace) -> None:
    """Write the predictions on validation and test images; the first of several processes does."""
    section: EvaluateSection = arguments.config
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    task = section.tasks[arguments.task]
    images = read_table(IMAGES, arguments.images)
    attributes = read_table(ATTRIBUTES, arguments.attributes)
    labels = read_table(LABELS, arguments.labels)
    rows = labelled_images(images, attributes, labels, task, arguments.task, section.mode)
    parts = {split: rows.filter(pl.col("split") == split) for split in ("train", "validation", "test")}
    parts["train"] = take_fraction(parts["train"], arguments.fraction, arguments.seed)
    rank, world_size = start_processes() if "RANK" in os.environ else (0, 1)
    model = load(arguments.model, device="cuda" if torch.cuda.is_available() else "cpu")
    reader = ShardReader(images, arguments.shards, model.image_size_px)
    work = work_folder(arguments)
    job = FineTuneJob(
        section=section.fine_tune,
        train=_labelled(parts["train"]),
        validation=_labelled(parts["validation"]),
        test=_labelled(parts["test"]),
        num_classes=num_classes(task, arguments.task),
        read_image=reader.read,
        trains_encoder=arguments.protocol == "fine-tune",
        mode=section.mode,
        seed=arguments.seed,
        work=work,
        threads=arguments.threads,
        rank=rank,
        world_size=world_size,
    )
    tuned = fine_tune(model, job)
    reader.close()
    stop_processes()
    if rank == 0:
        frame = partial(
            predictions_frame,
            task=arguments.task,
            protocol=arguments.protocol,
            fraction=arguments.fraction,
            seed=arguments.seed,
            selected=float(tuned.selected),
        )
        told = [
            frame(part.image_ids, parts[split]["patient_id"].to_list(), split, part.labels, scores)
            for split, part, scores in (
                ("validation", job.validation, tuned.validation),
                ("test", job.test, tuned.test),
            )
        ]
        write_table(pl.concat(told), PREDICTIONS, arguments.out)
        shutil.rmtree(work)


def _labelled(rows: pl.DataFrame) -> LabelledImages:
    return LabelledImages(rows["image_id"].to_list(), rows["label"].to_numpy().astype(np.int64))


def work_folder(arguments: argparse.Namespace) -> Path:
    """Return the folder of the checkpoints; another model, other data or settings get another one."""
    section: EvaluateSection = arguments.config
    science = [
        section.mode,
        section.tasks[arguments.task].model_dump(mode="json"),
        section.fine_tune.model_dump(mode="json"),
        *(arguments.task, arguments.protocol, arguments.fraction, arguments.seed),
    ]
    tables = (arguments.images, arguments.attributes, arguments.labels)
    return content_folder(arguments.work, science, [*tables, arguments.model / "model.safetensors"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=section_argument(EvaluateSection), required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--attributes", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--protocol", choices=("linear-probe", "fine-tune"), required=True)
    parser.add_argument("--fraction", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    run_stage(parser, run)
