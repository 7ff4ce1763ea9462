"""Stage ``paper``: tables, figures, contact sheets, provenance and the report."""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
from collections.abc import Iterable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from pathlib import Path

import polars as pl

from mammoclip.artifacts import write_text
from mammoclip.config import EvaluateSection, LocalizeSection, PaperSection, PretrainSection
from mammoclip.paper.calibration_table import calibration_grid, calibration_table
from mammoclip.paper.chance import check_chance
from mammoclip.paper.classification import classification_csv, classification_grid, compare_with_controls
from mammoclip.paper.comparisons import comparisons, comparisons_grid
from mammoclip.paper.conservation import balance_books
from mammoclip.paper.crops import assign_colours, draw_contact_sheet, read_crops, sample_images
from mammoclip.paper.data_card import describe_data
from mammoclip.paper.figures import draw_roc, draw_training
from mammoclip.paper.grid import Grid, to_latex, to_markdown
from mammoclip.paper.inputs import Inputs, load_inputs
from mammoclip.paper.localization.pictures import draw_localization
from mammoclip.paper.localization.table import (
    attribution_grid,
    attribution_table,
    detection_grid,
    detection_table,
    lesion_size_grid,
    lesion_size_table,
)
from mammoclip.paper.pictures import Picture, draw_pictures
from mammoclip.paper.provenance import collect_provenance
from mammoclip.paper.rendering import render_figure, save_as_pdf_and_png, save_figure, webp_uri
from mammoclip.paper.report import MAX_CROPS, DatasetCard, NamedFigure, Report, make_thumbnails, render_report
from mammoclip.paper.retrieval_table import retrieval_grid, retrieval_table
from mammoclip.paper.shared_patients import count_shared_patients
from mammoclip.paper.showcase import build_showcase
from mammoclip.paper.subgroup_table import subgroup_grid, subgroup_table
from mammoclip.paper.texts import draw_text_lengths
from mammoclip.paper.wording import NOT_AVAILABLE
from pipelines.command import run_stage, section_argument

log = logging.getLogger("mammoclip.paper")

_ROC_CAPTION = (
    "Coloured: {run}. Grey: the other runs. Dotted diagonal: chance. The AUROC of every curve is in its legend."
)


def run(arguments: argparse.Namespace) -> None:
    """Write every table and figure, and the report last."""
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    paper: PaperSection = arguments.config
    evaluate: EvaluateSection = arguments.evaluate_config
    pretrain: PretrainSection = arguments.pretrain_config
    localize: LocalizeSection = arguments.localize_config
    out: Path = arguments.out
    inputs = load_inputs(
        arguments.results,
        arguments.datasets,
        arguments.adapters,
        paper=paper,
        pretrain=pretrain,
        evaluate=evaluate,
        localize=localize,
    )
    books = [balance_books(tables) for tables in inputs.datasets.values()]

    # Figures are drawn here and rendered elsewhere, meanwhile; a fork would inherit the locks of polars' threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.threads, mp_context=context) as pool:
        roc = pool.submit(save_as_pdf_and_png, draw_roc(inputs, evaluate), out / "roc")
        training = pool.submit(save_as_pdf_and_png, draw_training(inputs), out / "training")
        evaluated = _save_pictures(pool, draw_pictures(inputs, evaluate, arguments.seed), out)
        localized = _save_pictures(pool, draw_localization(inputs, localize, arguments.seed), out)
        grids = _write_tables(inputs, evaluate, localize, arguments.seed, out)
        cards = _make_cards(inputs, paper.contact_sheet_images, arguments.seed, out)
    figures = {run.name: list[NamedFigure]() for run in (inputs.main, *inputs.untrained)}
    caption = _ROC_CAPTION.format(run=inputs.main.name)
    figures[inputs.main.name].append(NamedFigure("ROC curves", caption, roc.result()))
    for picture, uri in evaluated:
        figures[picture.run].append(NamedFigure(picture.title, picture.caption, uri.result()))

    num_cards = min(paper.contact_sheet_images, MAX_CROPS // max(1, len(evaluate.showcase)))
    showcases = [
        build_showcase(inputs.datasets[name], inputs.main.predictions[name], evaluate.tasks, num_cards, arguments.seed)
        for name in evaluate.showcase
    ]
    sections = {
        "paper": paper.model_dump(mode="json"),
        "evaluate": evaluate.model_dump(mode="json"),
        "pretrain": pretrain.model_dump(mode="json"),
        "localize": localize.model_dump(mode="json"),
        "datasets": arguments.datasets,
        "adapters": arguments.adapters,
    }
    provenance = collect_provenance(arguments.results, inputs.files, sections, arguments.seed)
    write_text(provenance.to_json(), out / "provenance.json")
    report = Report(
        inputs=inputs,
        evaluate=evaluate,
        pretrain=pretrain.of_run(paper.main_run),
        localize=localize,
        headlines=compare_with_controls(inputs, evaluate),
        chance=check_chance(inputs, evaluate),
        **grids,
        figures=figures[inputs.main.name],
        control_figures={run.name: figures[run.name] for run in inputs.untrained if figures[run.name]},
        localization_figures=[NamedFigure(picture.title, picture.caption, uri.result()) for picture, uri in localized],
        training=training.result(),
        shared_patients=count_shared_patients(
            {name: tables.breasts for name, tables in inputs.datasets.items() if name in pretrain.all_datasets}
        ),
        showcases=showcases,
        cards=cards,
        books=books,
        provenance=provenance,
    )
    html = render_report(report)
    write_text(html, out / "report.html")
    log.info("paper: report.html, %.1f MB", len(html.encode()) / 1e6)


def _write_tables(
    inputs: Inputs, evaluate: EvaluateSection, localize: LocalizeSection, seed: int, out: Path
) -> dict[str, Grid]:
    """Write every table as CSV, in full precision, and as Markdown and LaTeX; return what these two hold, by name."""
    compared = comparisons(inputs, evaluate, seed)
    calibrated = calibration_table(inputs, evaluate)
    divided = subgroup_table(inputs, evaluate)
    retrieved = retrieval_table(inputs)
    tables: dict[str, tuple[str, Grid]] = {
        "classification": (classification_csv(inputs), classification_grid(inputs, evaluate)),
        "comparisons": (_csv(compared), comparisons_grid(compared, inputs.is_compat)),
        "calibration": (_csv(calibrated), calibration_grid(calibrated, inputs.is_compat)),
        "subgroups": (_csv(divided), subgroup_grid(divided, inputs)),
        "retrieval": (_csv(retrieved), retrieval_grid(inputs)),
        "detection": (_csv(detection_table(inputs, localize)), detection_grid(inputs, localize)),
        "lesion_sizes": (_csv(lesion_size_table(inputs, localize)), lesion_size_grid(inputs, localize)),
        "attribution": (_csv(attribution_table(inputs, localize)), attribution_grid(inputs, localize)),
    }
    for name, (csv, grid) in tables.items():
        write_text(csv, out / f"{name}.csv")
        write_text(to_markdown(grid), out / f"{name}.md")
        write_text(to_latex(grid), out / f"{name}.tex")
    return {name: grid for name, (_, grid) in tables.items()}


def _csv(table: pl.DataFrame) -> str:
    return table.write_csv(null_value=NOT_AVAILABLE)


def _make_cards(inputs: Inputs, num_images: int, seed: int, out: Path) -> list[DatasetCard]:
    """Return the data card of every data set; its contact sheet is written beside the report."""
    colours = assign_colours([finding for tables in inputs.datasets.values() for finding in tables.findings["finding"]])
    cards: list[DatasetCard] = []
    for name, tables in inputs.datasets.items():
        crops = read_crops(tables, sample_images(tables.images, num_images, seed))
        save_figure(draw_contact_sheet(crops, colours), out / f"contact_sheet.{name}.png")
        thumbnails = make_thumbnails(len(tables.images), crops, colours, len(inputs.datasets))
        text_lengths = webp_uri(render_figure(draw_text_lengths(tables.reports), "png")) if len(tables.reports) else ""
        cards.append(DatasetCard(describe_data(tables), text_lengths, thumbnails))
        log.info("paper: data card of %s, %d crops", name, len(crops))
    return cards


def _save_pictures(pool: Executor, pictures: Iterable[Picture], out: Path) -> list[tuple[Picture, Future[str]]]:
    """Have each picture saved by another process, as soon as it is drawn; return it with what the report shows."""
    return [
        (
            picture,
            pool.submit(
                save_as_pdf_and_png,
                picture.figure,
                out / "figures" / picture.name,
                is_photograph=picture.is_photograph,
            ),
        )
        for picture in pictures
    ]


def _adapters(text: str) -> dict[str, str]:
    adapters = json.loads(text)
    if not isinstance(adapters, dict) or not all(isinstance(name, str) for name in adapters.values()):
        raise argparse.ArgumentTypeError(f"expected a JSON object of data set names and adapter names, got {text}")
    return adapters


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=section_argument(PaperSection), required=True)
    parser.add_argument("--evaluate-config", type=section_argument(EvaluateSection), required=True)
    parser.add_argument("--pretrain-config", type=section_argument(PretrainSection), required=True)
    parser.add_argument("--localize-config", type=section_argument(LocalizeSection), required=True)
    parser.add_argument(
        "--adapters", type=_adapters, default={}, help="JSON: adapter of each data set, for the credits"
    )
    parser.add_argument("--datasets", nargs="+", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1, help="processes that render figures")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    run_stage(parser, run)
