"""Stage ``paper``: tables, figures, contact sheets, provenance and the report."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

from mammoclip.artifacts import write_text
from mammoclip.config import EvaluateSection, PaperSection, PretrainSection
from mammoclip.paper.classification import classification_csv, classification_grid, compare_with_controls
from mammoclip.paper.conservation import balance_books
from mammoclip.paper.crops import assign_colours, data_uri, draw_contact_sheet, read_crops, sample_images
from mammoclip.paper.figures import draw_roc, draw_training, render_figure, save_figure
from mammoclip.paper.grid import to_latex, to_markdown
from mammoclip.paper.inputs import Inputs, load_inputs
from mammoclip.paper.provenance import collect_provenance
from mammoclip.paper.report import MAX_CROPS, Report, Thumbnails, make_thumbnails, render_report
from mammoclip.paper.showcase import build_showcase
from pipelines.command import run_stage, section_argument

log = logging.getLogger("mammoclip.paper")


def run(arguments: argparse.Namespace) -> None:
    """Write every table and figure, and the report last."""
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    paper: PaperSection = arguments.config
    evaluate: EvaluateSection = arguments.evaluate_config
    pretrain: PretrainSection = arguments.pretrain_config
    out: Path = arguments.out
    inputs = load_inputs(
        arguments.results,
        arguments.datasets,
        arguments.adapters,
        paper=paper,
        pretrain=pretrain,
        evaluate=evaluate,
    )
    books = [balance_books(tables) for tables in inputs.datasets.values()]

    grid = classification_grid(inputs, evaluate)
    write_text(classification_csv(inputs), out / "classification.csv")
    write_text(to_markdown(grid), out / "classification.md")
    write_text(to_latex(grid), out / "classification.tex")

    roc, training = draw_roc(inputs, evaluate), draw_training(inputs)
    for name, figure in (("roc", roc), ("training", training)):
        save_figure(figure, out / f"{name}.pdf")
        save_figure(figure, out / f"{name}.png")

    thumbnails = _write_contact_sheets(inputs, paper.contact_sheet_images, arguments.seed, out)
    num_cards = min(paper.contact_sheet_images, MAX_CROPS // max(1, len(evaluate.showcase)))
    showcases = [
        build_showcase(inputs.datasets[name], inputs.main.predictions[name], evaluate.tasks, num_cards, arguments.seed)
        for name in evaluate.showcase
    ]
    sections = {
        "paper": paper.model_dump(mode="json"),
        "evaluate": evaluate.model_dump(mode="json"),
        "pretrain": pretrain.model_dump(mode="json"),
        "datasets": arguments.datasets,
        "adapters": arguments.adapters,
    }
    provenance = collect_provenance(arguments.results, inputs.files, sections, arguments.seed)
    write_text(provenance.to_json(), out / "provenance.json")
    report = Report(
        inputs=inputs,
        evaluate=evaluate,
        pretrain=pretrain,
        comparisons=compare_with_controls(inputs, evaluate),
        classification=grid,
        roc=data_uri(render_figure(roc, "png"), "image/png"),
        training=data_uri(render_figure(training, "png"), "image/png"),
        showcases=showcases,
        thumbnails=thumbnails,
        books=books,
        provenance=provenance,
    )
    html = render_report(report)
    write_text(html, out / "report.html")
    log.info("paper: report.html, %.1f MB", len(html.encode()) / 1e6)


def _write_contact_sheets(inputs: Inputs, num_images: int, seed: int, out: Path) -> list[Thumbnails]:
    colours = assign_colours([finding for tables in inputs.datasets.values() for finding in tables.findings["finding"]])
    thumbnails: list[Thumbnails] = []
    for name, tables in inputs.datasets.items():
        crops = read_crops(tables, sample_images(tables.images, num_images, seed))
        save_figure(draw_contact_sheet(crops, colours), out / f"contact_sheet.{name}.png")
        thumbnails.append(make_thumbnails(name, len(tables.images), crops, colours, len(inputs.datasets)))
        log.info("paper: contact sheet of %s, %d crops", name, len(crops))
    return thumbnails


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
    parser.add_argument(
        "--adapters", type=_adapters, default={}, help="JSON: adapter of each data set, for the credits"
    )
    parser.add_argument("--datasets", nargs="+", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    run_stage(parser, run)
