"""Stage ``localize``: Mammo-FActOR of one run on one data set, and what heat maps show in the test images."""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import torch

from mammoclip.artifacts import (
    ATTRIBUTES,
    ATTRIBUTIONS,
    DETECTIONS,
    FINDINGS,
    HEAT_MAPS,
    IMAGES,
    LABELS,
    REPORTS,
    read_table,
    write_table,
)
from mammoclip.config import LocalizeSection
from mammoclip.data.reader import ShardReader
from mammoclip.evaluation.features import FeatureRecipe, weights_sha256
from mammoclip.localization.attribution import attribute_images
from mammoclip.localization.boxed import tested_images
from mammoclip.localization.factor import embed_attributes
from mammoclip.localization.factor_file import save_factor
from mammoclip.localization.factor_inputs import attribute_sentences, attributed_images
from mammoclip.localization.factor_training import FactorJob, MapStore, extract_maps, train_factor
from mammoclip.models import load
from mammoclip.models.cpu_memory import keep_freed_memory
from pipelines.command import content_folder, run_stage, section_argument


def run(arguments: argparse.Namespace) -> None:
    """Write the mappings, and the boxes, attributions and heat maps of the test images."""
    section: LocalizeSection = arguments.config
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    options, seed, out = section.factor, arguments.seed, arguments.out
    folder = arguments.results / "tabulate" / arguments.dataset
    images, findings, attributes, labels, reports = (
        read_table(table, folder / f"{table.name}.parquet") for table in (IMAGES, FINDINGS, ATTRIBUTES, LABELS, REPORTS)
    )
    parts = attributed_images(images, attributes, labels, options.attributes, section.mode)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load(arguments.model, device=device)
    model = replace(model, image_size_px=options.size_px or model.image_size_px)
    trained_on = images.filter(images["image_id"].is_in(parts["train"].image_ids))
    spoken = reports.filter(reports["patient_id"].is_in(trained_on["patient_id"].implode()))
    sentences = attribute_sentences(options, spoken["sentences"].explode().drop_nulls().to_list(), seed)
    recipe = FeatureRecipe.of(model, weights_sha256(arguments.model), arguments.precision)
    store = MapStore(arguments.work / "maps", images, recipe, options.pool)
    reader = ShardReader(images, arguments.shards, model.image_size_px)
    what = f"maps {arguments.run}/{arguments.dataset}"
    extract_maps(model, store, reader.read, batch_size=arguments.batch_size, what=what, threads=arguments.threads)
    reader.close()
    job = FactorJob(
        store=store,
        attributes=options.attributes,
        text_embeddings=embed_attributes(model.encode_text, sentences),
        train=parts["train"],
        validation=parts["validation"],
        mode=section.mode,
        seed=seed,
        work=work_folder(arguments),
        num_epochs=options.num_epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        hidden=options.hidden,
        temperature=options.temperature,
        device=device,
        threads=arguments.threads,
    )
    factor = train_factor(job).factor.cpu()
    tested = tested_images(images, findings, attributes, labels, options.attributes, section.mode, seed)
    found = attribute_images(factor, load(arguments.model), store, options.attributes, tested, options, seed)
    save_factor(
        out / "factor.safetensors",
        factor,
        options.attributes,
        sentences,
        image_size_px=model.image_size_px,
        pool=options.pool,
        model_sha256=recipe.model_sha256,
        keep_negative=options.keep_negative,
    )
    for table, frame in (
        (HEAT_MAPS, found.heat_maps),
        (ATTRIBUTIONS, found.attributions),
        (DETECTIONS, found.detections),
    ):
        write_table(frame, table, out / f"{table.name}.parquet")
    shutil.rmtree(arguments.work)


def work_folder(arguments: argparse.Namespace) -> Path:
    """Return the folder of the checkpoints; another model, other data or settings get another one."""
    section: LocalizeSection = arguments.config
    folder = arguments.results / "tabulate" / arguments.dataset
    science = [section.mode, section.factor.model_dump(mode="json", exclude={"runs", "datasets"}), arguments.seed]
    tables = [folder / f"{table.name}.parquet" for table in (IMAGES, ATTRIBUTES, LABELS, REPORTS)]
    return content_folder(arguments.work, science, [*tables, arguments.model / "model.safetensors"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=section_argument(LocalizeSection), required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--batch-size", type=int, required=True, help="images per forward pass of the encoder")
    parser.add_argument("--precision", choices=["auto", "bf16", "fp16", "fp32"], default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    run_stage(parser, run)
