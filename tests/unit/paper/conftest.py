"""A small results folder with every artifact that the stage ``paper`` reads."""

from __future__ import annotations

import argparse
import hashlib
import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest

from mammoclip.artifacts import (
    ATTRIBUTES,
    BREASTS,
    FEATURES,
    FINDINGS,
    IMAGES,
    INDEX,
    LABELS,
    MANIFEST,
    PREDICTIONS,
    REJECTS,
    REPORTS,
    RETRIEVAL,
    STEPS,
    write_table,
)
from mammoclip.config import EvaluateSection, Evaluation, LocalizeSection, PaperSection, PretrainSection
from mammoclip.data.breasts import make_breasts
from mammoclip.evaluation.examples import predictions_frame
from mammoclip.evaluation.retrieve import Breasts, retrieval_table
from mammoclip.paper.inputs import Inputs, load_inputs
from pipelines import compute_metrics
from tests.unit.paper.localized import FINDING, write_localization

HEIGHT, WIDTH = 96, 64
NUM_PATIENTS = 6
SECRET = "A sentence of a report"
TASKS = ("mass", "suspicious_calcification", "density")
SKILL = {"main-run": 2.0, "untrained": 0.0, "shuffled_reports": 0.1}


@pytest.fixture(scope="session")
def paper() -> PaperSection:
    return PaperSection(main_run="main-run", contact_sheet_images=5)


@pytest.fixture(scope="session")
def pretrain() -> PretrainSection:
    runs = {
        "untrained": {"control": "untrained"},
        "main-run": {},
        "shuffled_reports": {"control": "shuffled_reports"},
    }
    return PretrainSection.model_validate({"datasets": ["cohort"], "runs": runs})


@pytest.fixture(scope="session")
def evaluate() -> EvaluateSection:
    protocols, fractions = ["zero-shot", "linear-probe"], [0.5, 1.0]
    row = {"datasets": ["cohort"], "tasks": [*TASKS], "protocols": protocols, "fractions": fractions}
    return EvaluateSection.model_validate(
        {"matrix": [row], "retrieval": ["cohort"], "showcase": ["films"], "num_resamples": 40}
    )


@pytest.fixture(scope="session")
def localize() -> LocalizeSection:
    protocols, fractions = ["detection-frozen", "detection-fine-tune"], [0.5, 1.0]
    one = {"datasets": ["cohort"], "targets": [FINDING], "protocols": protocols, "fractions": fractions}
    all_of_them = {"datasets": ["cohort"], "targets": ["all_findings"], "protocols": protocols[:1], "seeds": [0, 1]}
    matrix = [one, {**all_of_them, "runs": ["main-run"]}]
    return LocalizeSection.model_validate({"detection": {"matrix": matrix}, "factor": {"datasets": ["cohort"]}})


@pytest.fixture(scope="session")
def pristine_results(
    tmp_path_factory: pytest.TempPathFactory, evaluate: EvaluateSection, localize: LocalizeSection
) -> Path:
    """The results folder for tests that only read it."""
    folder = tmp_path_factory.mktemp("pristine") / "results"
    for dataset in ("cohort", "films"):
        _write_dataset(folder, dataset, labelled=dataset == "cohort")
    for run, skill in SKILL.items():
        _write_run(folder, run, skill, evaluate)
        write_localization(folder, run, 0.4 + 0.2 * skill, localize)
    return folder


@pytest.fixture
def results(tmp_path: Path, pristine_results: Path) -> Path:
    """A results folder of the test's own, to be damaged."""
    return Path(shutil.copytree(pristine_results, tmp_path / "results"))


@pytest.fixture
def load(
    results: Path,
    paper: PaperSection,
    pretrain: PretrainSection,
    evaluate: EvaluateSection,
    localize: LocalizeSection,
) -> Callable[[], Inputs]:
    """Load the results folder as it is when called."""
    adapters = {"cohort": "phantom", "films": "cbis_ddsm"}
    sections = {"paper": paper, "pretrain": pretrain, "evaluate": evaluate, "localize": localize}
    return lambda: load_inputs(results, list(adapters), adapters, **sections)


@pytest.fixture
def inputs(load: Callable[[], Inputs]) -> Inputs:
    return load()


def _write_dataset(folder: Path, dataset: str, labelled: bool) -> None:
    index = pl.DataFrame(
        [
            {
                "dataset": dataset,
                "patient_id": f"patient-{patient}",
                "study_id": f"s{patient}",
                "image_id": f"{dataset}-p{patient}-{side}-{view}",
                "laterality": side,
                "view": view,
                "laterality_source": "table",
                "view_source": "table",
                **dict.fromkeys(("magnification", "spot_compression", "implant_displaced", "synthetic_2d"), False),
                "age_years": None,
                "implant": None,
                "path": f"p{patient}/{side}{view}.dcm",
                "transfer_syntax": "1.2.840.10008.1.2.1",
                "rows": HEIGHT,
                "columns": WIDTH,
                "bits_stored": 12,
                "photometric": "MONOCHROME2",
                "manufacturer": "Maker & <Sons>" if patient else None,
                "presentation_intent": "FOR PRESENTATION",
                "size_bytes": 1000,
                "split": "test",
                "fold": None,
            }
            for patient in range(NUM_PATIENTS)
            for side in "LR"
            for view in ("CC", "MLO")
        ],
        schema=INDEX.schema,
    )
    rejects = pl.DataFrame(
        [
            (dataset, "index", "notes.txt", "not_dicom", "no preamble"),
            (dataset, "index", "p9-L-CC", "missing_file", "listed, not there"),
        ],
        schema=REJECTS.schema,
        orient="row",
    )
    lost = pl.DataFrame(
        [(dataset, "shard", index["path"][0], "constant_image", "all pixels are 0")],
        schema=REJECTS.schema,
        orient="row",
    )
    manifest = _write_shard(folder / "shard" / dataset / "00000.tar", index["image_id"].to_list()[1:])
    images = index.join(manifest, on="image_id").select(list(IMAGES.columns))
    write_table(index, INDEX, folder / "index" / f"{dataset}.parquet")
    write_table(rejects, REJECTS, folder / "index" / f"{dataset}.rejects.parquet")
    write_table(manifest, MANIFEST, folder / "shard" / dataset / "manifest.parquet")
    write_table(lost, REJECTS, folder / "shard" / f"{dataset}.rejects.parquet")
    tabulated = folder / "tabulate" / dataset
    write_table(images, IMAGES, tabulated / "images.parquet")
    boxes = images.filter(pl.col("view") == "CC").select(
        "dataset", "image_id", finding=pl.lit("suspicious_calcification"), birads=pl.lit(4), x_min=pl.lit(10.0),
        y_min=pl.lit(20.0), x_max=pl.lit(30.0), y_max=pl.lit(50.0),
    )  # fmt: skip
    write_table(boxes if labelled else FINDINGS.empty(), FINDINGS, tabulated / "findings.parquet")
    attributes = _labels(images) if labelled else ATTRIBUTES.empty()
    reports = _reports(images) if labelled else REPORTS.empty()
    write_table(attributes, ATTRIBUTES, tabulated / "attributes.parquet")
    write_table(reports, REPORTS, tabulated / "reports.parquet")
    write_table(LABELS.empty(), LABELS, tabulated / "labels.parquet")
    breasts = make_breasts(images, images.clear(), attributes, reports, "strict")
    write_table(breasts, BREASTS, tabulated / "breasts.parquet")
    unsettled = pl.DataFrame(
        [(dataset, "tabulate", "labels.csv row 7", "contradictory_rows", "density has several values; it is left out")],
        schema=REJECTS.schema,
        orient="row",
    )
    write_table(unsettled if labelled else REJECTS.empty(), REJECTS, tabulated.with_name(f"{dataset}.rejects.parquet"))


def _write_shard(path: Path, image_ids: list[str]) -> pl.DataFrame:
    path.parent.mkdir(parents=True)
    rows = []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, image_id in enumerate(image_ids):
            ramp = np.linspace(0, 255 - number, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint8)
            png = cv2.imencode(".png", ramp)[1].tobytes()
            offset = tar.offset + tarfile.BLOCKSIZE
            member = tarfile.TarInfo(f"{image_id}.png")
            member.size = len(png)
            tar.addfile(member, io.BytesIO(png))
            digest = hashlib.sha256(png).hexdigest()
            place = (0, HEIGHT, 0, WIDTH, 1.0, 1.0, 0, 0)
            recipe = ("strict", "strict", "stretch", 8)
            rows.append((image_id, path.name, offset, len(png), HEIGHT, WIDTH, *place, *recipe, digest))
    return pl.DataFrame(rows, schema=MANIFEST.schema, orient="row")


def _labels(images: pl.DataFrame) -> pl.DataFrame:
    rows = [
        (dataset, image_id, task, _label(task, number), "table")
        for number, (dataset, image_id) in enumerate(images.select("dataset", "image_id").rows())
        for task in TASKS
    ]
    return pl.DataFrame(rows, schema=ATTRIBUTES.schema, orient="row")


def _reports(images: pl.DataFrame) -> pl.DataFrame:
    """Findings of every breast, in two wordings, and the same impression of all."""
    breasts = images.select("dataset", "patient_id", "study_id", "laterality").unique(maintain_order=True).rows()
    rows = [
        (*breast, "FINDINGS", [f"{SECRET} {number % 2}.", "Nothing else."]) for number, breast in enumerate(breasts)
    ]
    rows += [(*breast, "IMPRESSION", [f"{SECRET}."]) for breast in breasts]
    return pl.DataFrame(rows, schema=REPORTS.schema, orient="row")


def _label(task: str, number: int) -> int:
    return number % 4 if task == "density" else number % 2


def _write_run(folder: Path, run: str, skill: float, evaluate: EvaluateSection) -> None:
    rng = np.random.default_rng(3)
    out = folder / "evaluate" / run
    for cell in evaluate.evaluations([run]):
        write_table(_predict(folder, cell, skill, rng), PREDICTIONS, out / cell.dataset / f"{cell.name}.parquet")
    for dataset in evaluate.showcase if run == "main-run" else []:
        for task in evaluate.tasks:
            cell = Evaluation(run, dataset, task, "zero-shot", 0.0, 0)
            shown = _predict(folder, cell, skill, rng).with_columns(label=pl.lit(None, pl.Int32))
            write_table(shown, PREDICTIONS, out / dataset / f"{cell.name}.parquet")
    for dataset in evaluate.datasets:
        images = pl.read_parquet(folder / "tabulate" / dataset / "images.parquet")
        vectors = rng.normal(size=(len(images), 4)).tolist()
        features = images.select(
            "image_id", model_sha256=pl.lit("0" * 64), pooled=pl.Series(vectors), embedding=pl.Series(vectors)
        )
        write_table(features, FEATURES, out / dataset / "features.parquet")
        write_metrics(folder, run, dataset, evaluate)
    breasts = Breasts(
        [f"patient-{number // 2}" for number in range(12)],
        [(f"text {number % 5}",) * 2 for number in range(12)],
        _unit_vectors(rng),
        _unit_vectors(rng),
    )
    write_table(retrieval_table({"cohort": breasts}, run, 20, 0.95, 0), RETRIEVAL, out / "retrieval.parquet")
    out = folder / "pretrain" / run
    write_table(STEPS.empty() if run == "untrained" else _steps(skill), STEPS, out / "metrics.parquet")
    (out / "model.safetensors").write_bytes(run.encode())
    (out / "model_card.md").write_text("# card\n", encoding="utf-8")


def write_metrics(folder: Path, run: str, dataset: str, evaluate: EvaluateSection) -> None:
    """Write metrics and choices of a run on a data set from its predictions, as the stage does."""
    out = folder / "evaluate" / run / dataset
    cells = [cell for cell in evaluate.evaluations([run]) if (cell.run, cell.dataset) == (run, dataset)]
    predictions = [out / f"{cell.name}.parquet" for cell in cells]
    options = {"run": run, "dataset": dataset, "features": out / "features.parquet", "predictions": predictions}
    compute_metrics.run(argparse.Namespace(config=evaluate, seed=0, results=folder, out=out, **options))


def _predict(folder: Path, cell: Evaluation, skill: float, rng: np.random.Generator) -> pl.DataFrame:
    """Predict the test images; the probe has validation images too, which zero-shot has not, and a control."""
    images = pl.read_parquet(folder / "tabulate" / cell.dataset / "images.parquet").sort("image_id")
    ids, patients = images["image_id"].to_list(), images["patient_id"].to_list()
    labels = np.array([_label(cell.task, number) for number in range(len(ids))])
    told = {"task": cell.task, "fraction": cell.fraction, "seed": cell.seed}

    def scores(strength: float) -> np.ndarray:
        logits = rng.normal(size=(len(ids), 4 if cell.task == "density" else 2))
        logits[np.arange(len(ids)), labels] += strength
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    tables = [predictions_frame(ids, patients, "test", labels, scores(skill), protocol=cell.protocol, **told)]
    if cell.protocol == "linear-probe":
        others = [f"held-out-{number}" for number in range(len(ids))]
        validation = scores(skill / 2)  # not separated perfectly, so that a temperature fits
        tables.append(
            predictions_frame(others, others, "validation", labels, validation, protocol=cell.protocol, **told)
        )
        tables += [
            predictions_frame(
                ids, patients, "test", labels, scores(0), protocol="linear-probe-shuffled", repeat=repeat, **told
            )
            for repeat in range(2)
        ]
    return pl.concat(tables)


def _unit_vectors(rng: np.random.Generator) -> np.ndarray:
    vectors = rng.normal(size=(12, 4))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _steps(skill: float) -> pl.DataFrame:
    rows = [
        (split, step // 10, step, 3.0 - skill * step / 40, 1.0, 1.0, 1.0, 1e-4, 0.07)
        for split, every in (("train", 1), ("validation", 10))
        for step in range(every, 41, every)
    ]
    return pl.DataFrame(rows, schema=STEPS.schema, orient="row")
