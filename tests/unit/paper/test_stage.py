"""The whole stage: its command, its files and the report that it writes."""

from __future__ import annotations

import argparse
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from mammoclip.artifacts import BREASTS, LOCALIZATION, METRICS, read_table, write_table
from mammoclip.config import EvaluateSection, LocalizeSection, PaperSection, PretrainSection
from mammoclip.errors import ArtifactError
from pipelines.paper import run
from tests.unit.paper.html_page import Page

TABLES = (
    *("classification", "comparisons", "calibration", "subgroups", "retrieval"),
    *("detection", "lesion_sizes", "attribution"),
)
LOCALIZED = ("detections", "detection_curves")
OUTPUTS = {
    *(f"{name}.{kind}" for name in TABLES for kind in ("csv", "md", "tex")),
    "roc.pdf",
    "roc.png",
    "training.pdf",
    "training.png",
    "contact_sheet.cohort.png",
    "contact_sheet.films.png",
    "provenance.json",
    "report.html",
}


def _arguments(
    results: Path,
    out: Path,
    paper: PaperSection,
    pretrain: PretrainSection,
    evaluate: EvaluateSection,
    localize: LocalizeSection,
) -> argparse.Namespace:
    return argparse.Namespace(
        config=paper,
        evaluate_config=evaluate,
        pretrain_config=pretrain,
        localize_config=localize,
        adapters={"cohort": "phantom", "films": "cbis_ddsm"},
        datasets=["cohort", "films"],
        seed=42,
        threads=1,
        results=results,
        out=out,
    )


@pytest.fixture
def arguments(
    results: Path,
    tmp_path: Path,
    paper: PaperSection,
    pretrain: PretrainSection,
    evaluate: EvaluateSection,
    localize: LocalizeSection,
) -> argparse.Namespace:
    """A run of the stage that a test makes itself."""
    return _arguments(results, tmp_path / "paper", paper, pretrain, evaluate, localize)


@pytest.fixture(scope="module")
def done(
    pristine_results: Path,
    tmp_path_factory: pytest.TempPathFactory,
    paper: PaperSection,
    pretrain: PretrainSection,
    evaluate: EvaluateSection,
    localize: LocalizeSection,
) -> argparse.Namespace:
    """A run of the stage that is done."""
    arguments = _arguments(pristine_results, tmp_path_factory.mktemp("done"), paper, pretrain, evaluate, localize)
    run(arguments)
    return arguments


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage as it is, but for the pictures, which take most of its time."""
    for name in ("draw_pictures", "draw_localization"):
        monkeypatch.setattr(f"pipelines.paper.{name}", lambda *_: [])


@pytest.fixture(scope="module")
def page(done: argparse.Namespace) -> Page:
    return Page((done.out / "report.html").read_text(encoding="utf-8"))


def test_every_output_is_written_and_nothing_else(done: argparse.Namespace) -> None:
    assert {path.name for path in done.out.iterdir()} == OUTPUTS | {"figures"}


def test_the_main_run_has_pictures_of_every_task_as_raster_and_vector(done: argparse.Namespace) -> None:
    names = {path.name for path in (done.out / "figures").iterdir()}
    for task in ("mass", "suspicious_calcification"):
        for kind in ("curves", "histograms", "efficiency", "gallery"):
            assert {f"{kind}.cohort.{task}.png", f"{kind}.cohort.{task}.pdf"} <= names
    assert {"efficiency.cohort.density.png", "reliability.cohort.density.zero-shot.png"} <= names
    assert "curves.cohort.density.png" not in names  # four classes have no ROC curve


def test_the_untrained_control_has_the_same_pictures_in_a_part_to_open(done: argparse.Namespace, page: Page) -> None:
    names = {path.stem for path in (done.out / "figures").iterdir() if path.suffix == ".png"}
    of_control = {name for name in names if name.endswith(".untrained")}
    assert {f"{kind}.cohort.mass.untrained" for kind in ("curves", "histograms", "gallery")} <= of_control
    assert not [name for name in names if name.startswith("efficiency") and name.endswith("untrained")]
    ((_, attributes, text),) = [found for found in page.find("details") if "pictures of the run untrained" in found[2]]
    assert "open" not in attributes
    assert text.startswith(f"{len(of_control)} pictures of the run untrained ROC and precision-recall of untrained")
    titles = [text for _, _, text in page.find("h4") if " of untrained" in text]
    assert len(titles) == len(of_control)
    assert "The same pictures of the untrained control" in [text for _, _, text in page.find("h3")]
    assert "by zero-shot the ROC curve runs along the diagonal" in page.text()


@pytest.mark.usefixtures("without_pictures")
def test_without_an_untrained_control_the_report_says_nothing_of_it(arguments: argparse.Namespace) -> None:
    untrained = arguments.pretrain_config.runs["untrained"].model_copy(update={"control": "shuffled_reports"})
    runs = {**arguments.pretrain_config.runs, "untrained": untrained}
    arguments.pretrain_config = arguments.pretrain_config.model_copy(update={"runs": runs})
    run(arguments)
    page = Page((arguments.out / "report.html").read_text(encoding="utf-8"))
    assert "The same pictures of the untrained control" not in page.text()
    assert "AUROC, untrained" not in (arguments.out / "subgroups.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("without_pictures")
def test_the_report_says_whether_controls_are_where_random_directions_are(
    arguments: argparse.Namespace, page: Page
) -> None:
    path = arguments.results / "evaluate" / "untrained" / "cohort" / "metrics.parquet"
    table = read_table(METRICS, path)
    for task, value in (("mass", 0.5), ("suspicious_calcification", 0.7), ("density", 0.5)):
        of_task = (pl.col("task") == task) & (pl.col("level") == "image") & (pl.col("subgroup") == "all")
        of_task &= pl.col("metric").is_in(["auroc", "macro_auroc"])
        zero, random = (of_task & (pl.col("protocol") == name) for name in ("zero-shot", "zero-shot-random"))
        table = table.with_columns(
            value=pl.when(zero).then(value).otherwise("value"),
            ci_low=pl.when(random).then(0.35).otherwise("ci_low"),
            ci_high=pl.when(random).then(0.65).otherwise("ci_high"),
        )
    write_table(table, METRICS, path)
    run(arguments)
    text = " ".join(Page((arguments.out / "report.html").read_text(encoding="utf-8")).text().split())
    said = "in 2 of 3 tasks for untrained (not Suspicious calcification: 0.70, range 0.35 to 0.65), and in "
    assert said in text
    assert re.search(r"in \d of 3 tasks for untrained.*, and in \d of 3 tasks for shuffled_reports", page.text(), re.S)


def test_what_was_localised_has_pictures_as_raster_and_vector(done: argparse.Namespace, page: Page) -> None:
    names = {path.name for path in (done.out / "figures").iterdir()}
    pictures = {"heat_maps.cohort", *(f"{kind}.cohort.suspicious_calcification" for kind in LOCALIZED)}
    assert {f"{name}.{suffix}" for name in pictures for suffix in ("png", "pdf")} <= names
    assert not [name for name in names if name.startswith(LOCALIZED) and "suspicious_calcification" not in name]
    titles = [text for tag, _, text in page.find("h3")]
    assert "Heat maps of main-run: cohort" in titles
    assert "Boxes that detectors of main-run found: Suspicious calcification, cohort" in titles


def test_the_report_explains_the_protocols_of_localisation_that_occur(page: Page) -> None:
    terms = [text for _, _, text in page.find("dt")]
    assert {"detection-frozen", "mammo-factor", "grad-cam", "centre-prior", "random", "...-shuffled"} <= set(terms)


def test_the_same_input_elsewhere_and_more_processes_give_the_same_bytes(
    done: argparse.Namespace, arguments: argparse.Namespace
) -> None:
    arguments.threads = 2
    run(arguments)
    pictures = [f"figures/{path.name}" for path in (done.out / "figures").iterdir()]
    for name in (*OUTPUTS, *pictures):
        assert (done.out / name).read_bytes() == (arguments.out / name).read_bytes(), name


def test_books_that_do_not_balance_stop_the_stage_before_it_writes(arguments: argparse.Namespace) -> None:
    folder = arguments.results / "tabulate"
    (folder / "films" / "images.parquet").write_bytes((folder / "cohort" / "images.parquet").read_bytes())
    with pytest.raises(ArtifactError, match="'films'"):
        run(arguments)
    assert not arguments.out.exists()


def test_the_report_needs_no_other_resource(page: Page) -> None:
    for tag, attributes, _ in page.find("img", "script", "link", "iframe", "source", "object", "video"):
        assert tag == "img"
        assert str(attributes["src"]).startswith(("data:image/webp", "data:image/jpeg"))
    links = [str(attributes["href"]) for _, attributes, _ in page.find("a")]
    assert all(link.startswith(("#", "https://doi.org/")) for link in links)
    style = page.find("style")[0][2]
    assert "url(" not in style
    assert "@import" not in style


def test_links_inside_the_report_have_targets(page: Page) -> None:
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [str(a["href"])[1:] for _, a, _ in page.find("a") if str(a["href"]).startswith("#")]
    assert targets
    assert set(targets) <= set(ids)
    assert {a["aria-labelledby"] for _, a, _ in page.find("section")} <= set(ids)


def test_headings_are_in_order(page: Page) -> None:
    headings = page.find("h1", "h2", "h3", "h4")
    levels = [int(tag[1]) for tag, _, _ in headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert [text for tag, _, text in headings if tag == "h2"] == [
        "Does it learn?",
        "Against the other runs",
        "Calibration",
        "Subgroups",
        "Retrieval",
        "Where is it?",
        "Pictures",
        "Training",
        "Real mammograms",
        "Data",
        "What went in and what came out",
        "Provenance",
    ]


def test_every_picture_has_an_alternative_text(page: Page, done: argparse.Namespace) -> None:
    pictures = page.find("img")
    assert len(pictures) == 2 + 1 + 2 * 5 + 5 + len(list((done.out / "figures").glob("*.png")))
    assert all(attributes.get("alt") for _, attributes, _ in pictures)


def test_every_table_header_says_what_it_heads(page: Page) -> None:
    assert all(a.get("scope") in {"col", "colgroup", "row", "rowgroup"} for _, a, _ in page.find("th"))
    assert len(page.find("caption")) == len(page.find("thead"))


def test_the_report_has_a_language_and_a_viewport(page: Page) -> None:
    assert page.find("html")[0][1]["lang"] == "en"
    assert "viewport" in [attributes.get("name") for _, attributes, _ in page.find("meta")]


def test_the_report_works_in_dark_and_light(page: Page) -> None:
    assert "prefers-color-scheme: dark" in page.find("style")[0][2]


def test_the_warning_stands_before_the_first_section(page: Page) -> None:
    text = page.text()
    warning = text.index("Research software. Not a medical device. Not for clinical use.")
    assert warning < text.index("Does it learn?")


@pytest.mark.parametrize(
    ("name", "num_group"),
    [("classification", 3), ("comparisons", 2), ("calibration", 2), ("subgroups", 3), ("retrieval", 2),
     ("detection", 2), ("lesion_sizes", 2), ("attribution", 2)],
)  # fmt: skip
def test_the_cells_of_every_table_are_those_of_the_markdown(
    page: Page, done: argparse.Namespace, name: str, num_group: int
) -> None:
    lines = (done.out / f"{name}.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) > 2
    for line in lines[2:]:
        assert page.has_row(*[cell.strip() for cell in line.strip("|").split("|")][num_group:])


@pytest.mark.parametrize("name", TABLES)
def test_every_table_has_a_csv_that_shows_nothing_as_empty(done: argparse.Namespace, name: str) -> None:
    table = pl.read_csv(done.out / f"{name}.csv", infer_schema=False)
    assert len(table)
    assert not [column for column in table.columns if table[column].null_count() or "" in table[column]]
    assert {"run", "dataset"} <= set(table.columns)


def test_every_section_of_results_says_how_it_is_read(page: Page) -> None:
    text = page.text()
    for sentence in (
        "An untrained control need not lie at an AUROC of 0.50",
        "how this one direction ranks other patients, not how other untrained models would",
        "should cover a control run in about 95 % of tasks",
        "untrained is a control: a difference between groups that it shows too",
        "Of several seeds, the mean, with the lowest lower and the highest upper bound",
        "above 0, main-run ranks better",
        "Test images chose neither",
        "A group with too few images of a class has no number",
        "An untrained control lies near chance",
        "No method of this table has ever seen a box",
        "The false positives are those of all images",
    ):
        assert sentence in text


def test_only_protocols_that_occur_are_explained(page: Page) -> None:
    terms = [text for _, _, text in page.find("dt")]
    assert {"zero-shot", "zero-shot-random", "linear-probe", "linear-probe-shuffled", "majority"} <= set(terms)
    assert "fine-tune" not in terms


@pytest.mark.usefixtures("without_pictures")
def test_numbers_of_mode_compat_are_labelled_everywhere(arguments: argparse.Namespace, page: Page) -> None:
    assert "compat" not in page.text()
    evaluate = arguments.evaluate_config.model_copy(update={"mode": "compat"})
    for run_name in arguments.pretrain_config.runs:
        path = arguments.results / "evaluate" / run_name / "cohort" / "metrics.parquet"
        write_table(read_table(METRICS, path).with_columns(mode=pl.lit("compat")), METRICS, path)
        path = arguments.results / "localize" / run_name / "cohort" / "localization.parquet"
        write_table(read_table(LOCALIZATION, path).with_columns(mode=pl.lit("compat")), LOCALIZATION, path)
    localize = arguments.localize_config.model_copy(update={"mode": "compat"})
    run(argparse.Namespace(**{**vars(arguments), "evaluate_config": evaluate, "localize_config": localize}))
    compat = Page((arguments.out / "report.html").read_text(encoding="utf-8"))
    assert "Mode compat: evaluated as the released code does it" in compat.text()
    assert "(zero-shot, compat)" in compat.text()
    assert "In mode compat, as released, images without a lesion are left out" in compat.text()
    assert "without temperature, so they lie near one over the number of prompts" in compat.text()
    for name in (name for name in TABLES if name != "retrieval"):
        header, _, *rows = (arguments.out / f"{name}.md").read_text(encoding="utf-8").splitlines()
        place = [cell.strip() for cell in header.split("|")].index("Mode")
        assert {row.split("|")[place].strip() for row in rows} == {"compat"}
        assert "compat" in (arguments.out / f"{name}.tex").read_text(encoding="utf-8")
        assert "compat" in (arguments.out / f"{name}.csv").read_text(encoding="utf-8")


def test_without_any_evaluation_the_report_says_so_in_every_section(arguments: argparse.Namespace) -> None:
    nothing = {"matrix": [], "retrieval": [], "showcase": []}
    arguments.evaluate_config = arguments.evaluate_config.model_copy(update=nothing)
    arguments.localize_config = LocalizeSection()
    run(arguments)
    text = Page((arguments.out / "report.html").read_text(encoding="utf-8")).text()
    for sentence in (
        "No evaluation is configured.",
        "There is no other run to compare with, or no task of two classes.",
        "No test image is known to be of a subgroup",
        "No data set is configured for retrieval.",
        "No data set is configured for localisation.",
    ):
        assert sentence in text
    assert {path.name for path in arguments.out.iterdir()} == OUTPUTS


def test_a_run_that_the_matrix_leaves_out_is_not_available_in_the_report(arguments: argparse.Namespace) -> None:
    rows = [row.model_copy(update={"runs": ["main-run", "untrained"]}) for row in arguments.evaluate_config.matrix]
    shutil.rmtree(arguments.results / "evaluate" / "shuffled_reports" / "cohort")
    arguments.evaluate_config = arguments.evaluate_config.model_copy(update={"matrix": rows})
    run(arguments)
    page = Page((arguments.out / "report.html").read_text(encoding="utf-8"))
    assert page.has_row("shuffled_reports", "n/a")
    assert "n/a: shuffled_reports has no such evaluation" in page.text()


def test_names_from_the_data_are_escaped(page: Page, done: argparse.Namespace) -> None:
    assert "Maker & <Sons>" in page.text()
    assert "Maker &amp; &lt;Sons&gt;" in (done.out / "report.html").read_text(encoding="utf-8")


def test_real_films_are_credited_and_said_to_mean_nothing(page: Page) -> None:
    text = page.text()
    assert "real film mammograms of CBIS-DDSM" in text
    assert "CC BY 3.0" in text
    assert "10.7937/K9/TCIA.2016.7O02S9CY" in text
    assert "computer-generated phantoms" in text
    assert "no clinical meaning" in text


@pytest.mark.usefixtures("without_pictures")
def test_without_adapters_nothing_is_credited(arguments: argparse.Namespace) -> None:
    run(argparse.Namespace(**{**vars(arguments), "adapters": {}}))
    text = (arguments.out / "report.html").read_text(encoding="utf-8")
    assert "CBIS-DDSM" not in text
    assert "doi.org" not in text


@pytest.mark.usefixtures("without_pictures")
def test_without_a_showcase_the_report_says_so(arguments: argparse.Namespace) -> None:
    arguments.evaluate_config = arguments.evaluate_config.model_copy(update={"showcase": []})
    run(arguments)
    page = Page((arguments.out / "report.html").read_text(encoding="utf-8"))
    assert "No showcase data set is configured." in page.text()


def test_no_patient_is_named_and_no_text_is_shown(done: argparse.Namespace) -> None:
    text = (done.out / "report.html").read_text(encoding="utf-8")
    patients = pl.read_parquet(done.results / "index" / "cohort.parquet")["patient_id"].unique().to_list()
    reports = pl.read_parquet(done.results / "tabulate" / "cohort" / "reports.parquet")
    sentences = reports["sentences"].explode().unique().to_list()
    assert (len(patients), len(sentences)) == (6, 4)
    assert not [secret for secret in (*patients, *sentences) if secret in text]


def test_every_data_set_has_one_card_and_one_sample(page: Page) -> None:
    headings = [(tag, text) for tag, _, text in page.find("h3", "h4") if " of untrained" not in text]  # its pictures
    assert [text for tag, text in headings if tag == "h4" or text in ("cohort", "films")] == [
        "films",  # real mammograms
        *("cohort", "Images", "Labels", "Report texts", "Boxes", "Sample"),
        *("films", "Images", "Labels", "Report texts", "Boxes", "Sample"),
        *("cohort", "films"),  # what went in and what came out
    ]
    assert page.text().count("5 of 23 images, cropped, drawn at random") == 2


@pytest.mark.usefixtures("without_pictures")
def test_data_sets_that_share_patients_and_train_together_are_told(arguments: argparse.Namespace) -> None:
    page = _page_when_trained_on(["cohort", "films"], arguments)
    assert page.has_row("cohort, films", "6", "0")
    assert "share no patient" not in page.text()
    assert "leak" not in page.text()


@pytest.mark.usefixtures("without_pictures")
def test_shared_patients_in_different_splits_are_a_leak(arguments: argparse.Namespace) -> None:
    path = arguments.results / "tabulate" / "films" / "breasts.parquet"
    first = pl.col("patient_id") == "patient-0"
    breasts = read_table(BREASTS, path).with_columns(split=pl.when(first).then(pl.lit("train")).otherwise("split"))
    write_table(breasts, BREASTS, path)
    page = _page_when_trained_on(["cohort", "films"], arguments)
    assert page.has_row("cohort, films", "6", "1")
    assert "Patients in different splits leak" in page.text()


@pytest.mark.usefixtures("without_pictures")
def test_data_sets_that_share_no_patient_say_so(arguments: argparse.Namespace) -> None:
    path = arguments.results / "tabulate" / "films" / "breasts.parquet"
    breasts = read_table(BREASTS, path).with_columns(patient_id=pl.lit("film-") + pl.col("patient_id"))
    write_table(breasts, BREASTS, path)
    page = _page_when_trained_on(["cohort", "films"], arguments)
    assert "The 2 data sets that are trained together share no patient." in page.text()


def test_one_data_set_shares_with_nobody(page: Page) -> None:
    assert "share no patient" not in page.text()
    assert "Patients in both" not in page.text()


def _page_when_trained_on(datasets: list[str], arguments: argparse.Namespace) -> Page:
    arguments.pretrain_config = arguments.pretrain_config.model_copy(update={"datasets": datasets})
    run(arguments)
    return Page((arguments.out / "report.html").read_text(encoding="utf-8"))


def test_the_report_holds_no_path_and_no_time(page: Page, done: argparse.Namespace) -> None:
    text = page.text() + (done.out / "provenance.json").read_text(encoding="utf-8")
    assert str(done.results) not in text
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b", text)


def test_the_report_starts_with_its_doctype(done: argparse.Namespace) -> None:
    assert (done.out / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_command_says_in_one_sentence_which_file_is_missing(arguments: argparse.Namespace, tmp_path: Path) -> None:
    (arguments.results / "evaluate" / "untrained" / "cohort" / "metrics.parquet").unlink()
    command = [
        sys.executable, "-m", "pipelines.paper",
        "--config", arguments.config.model_dump_json(),
        "--evaluate-config", arguments.evaluate_config.model_dump_json(),
        "--pretrain-config", arguments.pretrain_config.model_dump_json(),
        "--localize-config", arguments.localize_config.model_dump_json(),
        "--adapters", json.dumps(arguments.adapters),
        "--datasets", *arguments.datasets,
        "--seed", "42",
        "--results", str(arguments.results),
        "--out", str(arguments.out),
        "--log", str(tmp_path / "paper.log"),
    ]  # fmt: skip
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    assert finished.stderr.startswith("Error: ")
    assert "evaluate/untrained/cohort/metrics.parquet does not exist" in finished.stderr
    assert "Traceback" not in finished.stderr
