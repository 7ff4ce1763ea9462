from collections.abc import Callable
from pathlib import Path

import pytest

from mammoclip.config import EvaluateSection, PaperSection, PretrainSection
from mammoclip.datasets.cbis_ddsm import CbisDdsm
from mammoclip.datasets.phantom_adapter import Phantom
from mammoclip.errors import ArtifactError, ConfigError
from mammoclip.paper.inputs import Inputs, load_inputs


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
        "evaluate/shuffled_reports/films/predictions.parquet",
        "evaluate/main-run/cohort/metrics.parquet",
    ],
)
def test_a_missing_artifact_is_named(load: Callable[[], Inputs], results: Path, path: str) -> None:
    (results / path).unlink()
    with pytest.raises(ArtifactError, match=path):
        load()


def test_every_file_read_is_listed_relative_to_the_results(inputs: Inputs, results: Path) -> None:
    assert all((results / name).is_file() for name in inputs.files)
    assert "evaluate/main-run/cohort/metrics.parquet" in inputs.files
    assert list(inputs.files) == sorted(set(inputs.files))


def test_a_data_set_has_the_source_of_its_adapter(inputs: Inputs) -> None:
    assert [tables.source for tables in inputs.datasets.values()] == [Phantom.source, CbisDdsm.source]


def test_an_unknown_main_run_is_an_error(results: Path, pretrain: PretrainSection, evaluate: EvaluateSection) -> None:
    with pytest.raises(ConfigError, match=r"paper\.main_run names 'other'"):
        load_inputs(
            results, ["cohort", "films"], {}, paper=PaperSection(main_run="other"), pretrain=pretrain, evaluate=evaluate
        )


def test_an_evaluated_data_set_must_be_given(
    results: Path, paper: PaperSection, pretrain: PretrainSection, evaluate: EvaluateSection
) -> None:
    with pytest.raises(ConfigError, match="'films'"):
        load_inputs(results, ["cohort"], {}, paper=paper, pretrain=pretrain, evaluate=evaluate)
