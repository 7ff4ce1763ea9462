from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from mammoclip.artifacts import RETRIEVAL, read_table
from mammoclip.config import EvaluateSection, LocalizeSection, PaperSection, PretrainSection
from mammoclip.datasets.cbis_ddsm import CbisDdsm
from mammoclip.datasets.phantom_adapter import Phantom
from mammoclip.errors import ArtifactError, ConfigError
from mammoclip.paper.inputs import Inputs, in_order, load_inputs, principal


def test_the_untrained_control_is_told_from_the_others(inputs: Inputs) -> None:
    assert [run.name for run in inputs.untrained] == ["untrained"]
    control, *others = [run for run in inputs.runs if run.control != "none"]
    assert replace(inputs, runs=[control, *others]).untrained == []  # the main run is no control of itself


def test_the_main_run_comes_first_and_controls_are_told_from_it(inputs: Inputs) -> None:
    assert [run.name for run in inputs.runs] == ["main-run", "untrained", "shuffled_reports"]
    assert inputs.main.name == "main-run"
    assert [run.control for run in inputs.controls] == ["untrained", "shuffled_reports"]


@pytest.mark.parametrize(
    "path",
    [
        "index/cohort.parquet",
        "index/films.rejects.parquet",
        "shard/cohort/manifest.parquet",
        "shard/cohort.rejects.parquet",
        "tabulate/films/findings.parquet",
        "tabulate/films.rejects.parquet",
        "pretrain/untrained/metrics.parquet",
        "pretrain/main-run/model.safetensors",
        "evaluate/shuffled_reports/cohort/mass/zero-shot.parquet",
        "evaluate/untrained/cohort/density/linear-probe-0.5-0.parquet",
        "evaluate/main-run/cohort/metrics.parquet",
        "evaluate/main-run/cohort/choices.parquet",
        "evaluate/untrained/retrieval.parquet",
        "tabulate/films/labels.parquet",
        "localize/untrained/cohort/localization.parquet",
        "localize/untrained/cohort/suspicious_calcification/detection-fine-tune-0.5-0.parquet",
        "localize/main-run/cohort/all_findings/detection-frozen-1-1.parquet",
        "localize/shuffled_reports/cohort/mammo-factor/detections.parquet",
        "localize/main-run/cohort/mammo-factor/attributions.parquet",
        "localize/main-run/cohort/mammo-factor/heat_maps.parquet",
        "localize/main-run/cohort/mammo-factor/factor.safetensors",
    ],
)
def test_a_missing_artifact_is_named(load: Callable[[], Inputs], results: Path, path: str) -> None:
    (results / path).unlink()
    with pytest.raises(ArtifactError, match=path):
        load()


def test_every_file_read_is_listed_relative_to_the_results(inputs: Inputs, results: Path) -> None:
    assert all((results / name).is_file() for name in inputs.files)
    assert "evaluate/main-run/cohort/metrics.parquet" in inputs.files
    assert "evaluate/untrained/cohort/mass/linear-probe-1-0.parquet" in inputs.files
    assert "evaluate/main-run/films/density/zero-shot.parquet" in inputs.files
    assert list(inputs.files) == sorted(set(inputs.files))


def test_a_data_set_has_the_source_of_its_adapter(inputs: Inputs) -> None:
    assert [tables.source for tables in inputs.datasets.values()] == [Phantom.source, CbisDdsm.source]


def test_an_unknown_main_run_is_an_error(results: Path, pretrain: PretrainSection, evaluate: EvaluateSection) -> None:
    with pytest.raises(ConfigError, match=r"paper\.main_run names 'other'"):
        load_inputs(
            results, ["cohort", "films"], {}, paper=PaperSection(main_run="other"), pretrain=pretrain,
            evaluate=evaluate, localize=LocalizeSection(),
        )  # fmt: skip


def test_an_evaluated_data_set_must_be_given(
    results: Path, paper: PaperSection, pretrain: PretrainSection, evaluate: EvaluateSection
) -> None:
    with pytest.raises(ConfigError, match="'films'"):
        load_inputs(
            results, ["cohort"], {}, paper=paper, pretrain=pretrain, evaluate=evaluate, localize=LocalizeSection()
        )


def test_a_retrieval_data_set_must_be_given(
    results: Path, paper: PaperSection, pretrain: PretrainSection, evaluate: EvaluateSection
) -> None:
    retrieving = evaluate.model_copy(update={"retrieval": ["elsewhere"]})
    with pytest.raises(ConfigError, match="'elsewhere'"):
        load_inputs(
            results,
            ["cohort", "films"],
            {},
            paper=paper,
            pretrain=pretrain,
            evaluate=retrieving,
            localize=LocalizeSection(),
        )


def test_predictions_are_those_of_every_cell_of_the_matrix_by_data_set(inputs: Inputs) -> None:
    columns = ["task", "protocol", "fraction"]
    cohort = inputs.main.predictions["cohort"].select(columns).unique().sort(columns).rows()
    assert cohort == sorted(
        (task, *evaluation)
        for task in ("mass", "suspicious_calcification", "density")
        for evaluation in [("zero-shot", 0.0)]
        + [(protocol, share) for protocol in ("linear-probe", "linear-probe-shuffled") for share in (0.5, 1.0)]
    )
    films = inputs.main.predictions["films"]
    assert films.select("protocol").unique().rows() == [("zero-shot",)]
    assert films["label"].null_count() == len(films) == 3 * 23


def test_of_a_repeated_control_the_first_repeat_is_kept(inputs: Inputs) -> None:
    shuffled = inputs.main.predictions["cohort"].filter(task="mass", protocol="linear-probe-shuffled", fraction=1.0)
    assert (len(shuffled), shuffled["repeat"].unique().to_list()) == (23, [0])


def test_choices_and_retrieval_are_those_of_the_run(inputs: Inputs, results: Path) -> None:
    assert inputs.runs[1].choices["run"].unique().to_list() == ["untrained"]
    assert inputs.runs[1].retrieval.equals(read_table(RETRIEVAL, results / "evaluate/untrained/retrieval.parquet"))


def test_without_retrieval_no_such_file_is_read(
    results: Path, paper: PaperSection, pretrain: PretrainSection, evaluate: EvaluateSection
) -> None:
    (results / "evaluate/untrained/retrieval.parquet").unlink()
    without = evaluate.model_copy(update={"retrieval": []})
    loaded = load_inputs(
        results, ["cohort", "films"], {}, paper=paper, pretrain=pretrain, evaluate=without, localize=LocalizeSection()
    )
    assert all(run.retrieval.is_empty() for run in loaded.runs)


def test_a_run_that_the_matrix_leaves_out_needs_no_file(
    results: Path, paper: PaperSection, pretrain: PretrainSection, evaluate: EvaluateSection
) -> None:
    (results / "evaluate/untrained/cohort/metrics.parquet").unlink()
    rows = [row.model_copy(update={"runs": ["main-run"]}) for row in evaluate.matrix]
    restricted = evaluate.model_copy(update={"matrix": rows})
    loaded = load_inputs(
        results,
        ["cohort", "films"],
        {},
        paper=paper,
        pretrain=pretrain,
        evaluate=restricted,
        localize=LocalizeSection(),
    )
    assert len(loaded.main.metrics)
    assert loaded.runs[1].metrics.is_empty()
    assert loaded.runs[1].predictions["cohort"].is_empty()
    assert "films" in loaded.main.predictions and "films" not in loaded.runs[1].predictions


def test_a_task_has_as_many_classes_as_scores(inputs: Inputs) -> None:
    assert [inputs.num_classes("cohort", task) for task in ("mass", "density", "other")] == [2, 4, None]
    assert inputs.binary_tasks("cohort", ["density", "mass", "other"]) == ["mass"]


def test_the_principal_evaluation_is_of_the_largest_fraction_and_of_its_seeds_the_lowest() -> None:
    frame = pl.DataFrame({"task": ["a"] * 4 + ["b"], "fraction": [0.1, 1.0, 1.0, 1.0, 0.5], "seed": [0, 2, 1, 1, 7]})
    assert principal(frame, "task").rows() == [("a", 1.0, 1), ("a", 1.0, 1), ("b", 0.5, 7)]


def test_rows_come_in_the_orders_given_and_else_stay() -> None:
    frame = pl.DataFrame({"task": ["x", "y", "x"], "n": [1, 2, 3]})
    assert in_order(frame, task=["y", "x"])["n"].to_list() == [2, 1, 3]


def test_what_was_localised_is_that_of_every_cell_by_data_set(inputs: Inputs) -> None:
    main, control = inputs.runs[:2]
    assert main.localization["run"].unique().to_list() == ["main-run"]
    assert set(main.detections) == set(main.attributions) == set(main.heat_maps) == {"cohort"}
    cells = {("suspicious_calcification", "detection-frozen", share, 0) for share in (0.5, 1.0)}
    cells |= {("suspicious_calcification", "detection-fine-tune", share, 0) for share in (0.5, 1.0)}
    methods = {("suspicious_calcification", name, 1.0, 0) for name in ("mammo-factor", "grad-cam", "similarity-map")}
    methods |= {("suspicious_calcification", name, 1.0, 0) for name in ("centre-prior", "random")}
    columns = ["target", "protocol", "fraction", "seed"]
    assert set(control.detections["cohort"].select(columns).rows()) == cells | methods
    of_all = {("all_findings", "detection-frozen", 1.0, seed) for seed in (0, 1)}
    assert set(main.detections["cohort"].select(columns).rows()) == cells | methods | of_all
    assert set(main.heat_maps["cohort"]["protocol"]) == {"mammo-factor", "grad-cam", "similarity-map"}


def test_files_of_localisation_are_listed(inputs: Inputs) -> None:
    folder = "localize/untrained/cohort"
    names = ("localization.parquet", "mammo-factor/heat_maps.parquet", "mammo-factor/factor.safetensors")
    assert {f"{folder}/{name}" for name in names} <= set(inputs.files)
    assert f"{folder}/all_findings/detection-frozen-1-0.parquet" not in inputs.files


def test_a_data_set_of_localisation_must_be_given(
    results: Path, paper: PaperSection, pretrain: PretrainSection, localize: LocalizeSection
) -> None:
    nothing = EvaluateSection.model_validate({"matrix": [], "retrieval": [], "showcase": []})
    with pytest.raises(ConfigError, match="localize names the data set 'cohort', which is not among films"):
        load_inputs(results, ["films"], {}, paper=paper, pretrain=pretrain, evaluate=nothing, localize=localize)


def test_without_localisation_no_such_file_is_read(
    results: Path, paper: PaperSection, pretrain: PretrainSection, evaluate: EvaluateSection
) -> None:
    datasets = ["cohort", "films"]
    without = LocalizeSection()
    loaded = load_inputs(results, datasets, {}, paper=paper, pretrain=pretrain, evaluate=evaluate, localize=without)
    assert not [name for name in loaded.files if name.startswith("localize")]
    assert all(run.localization.is_empty() and not run.detections for run in loaded.runs)
