"""The section ``localize``: the jobs that its matrix asks for, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mammoclip.config import ALL_FINDINGS, Config, Detector, LocalizeSection, findings_of, parse_section
from mammoclip.errors import ConfigError

ROOT = Path(__file__).parents[2]
ROW = {"datasets": ["vindr"], "targets": ["mass"], "protocols": ["detection-frozen"]}


def localize(*rows: dict[str, Any], **values: Any) -> LocalizeSection:
    return parse_section(LocalizeSection, {"detection": {"matrix": list(rows)}, **values})


def test_the_matrix_is_every_combination_once() -> None:
    row = {**ROW, "targets": ["mass", ALL_FINDINGS], "fractions": [0.1, 1.0], "seeds": [0, 1]}
    detectors = localize(row, {**ROW, "seeds": [1]}).detectors(["main", "untrained"])
    assert len(detectors) == len(set(detectors)) == 2 * 2 * 2 * 2
    assert Detector("main", "vindr", "mass", "detection-frozen", 0.1, 1) in detectors


def test_a_row_with_runs_is_of_these_alone() -> None:
    detectors = localize({**ROW, "runs": ["main"]}).detectors(["main", "untrained"])
    assert [detector.run for detector in detectors] == ["main"]


def test_a_detector_looks_for_its_finding_or_for_all_ten() -> None:
    assert findings_of("mass") == ("mass",)
    assert len(findings_of(ALL_FINDINGS)) == 10


def test_mammo_factor_is_made_once_for_each_run_and_data_set() -> None:
    section = localize(factor={"datasets": ["vindr", "rsna"]})
    assert section.factors(["main"]) == [("main", "vindr"), ("main", "rsna")]
    assert localize(factor={"datasets": ["vindr"], "runs": ["untrained"]}).factors(["main"]) == [("untrained", "vindr")]
    assert section.datasets == ["vindr", "rsna"]


def test_the_defaults_are_the_paper_s() -> None:
    section = localize().detection
    assert (section.num_epochs, section.batch_size, section.learning_rate, section.gradient_clip) == (120, 7, 5e-5, 0.1)
    assert (section.focal_alpha, section.focal_gamma, section.weight_decay) == (0.6, 2.0, 0.0)
    factor = localize().factor
    assert (factor.num_epochs, factor.learning_rate, factor.temperature, factor.size_px) == (20, 1e-4, 0.007, None)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"detection": {"matrix": [{**ROW, "targets": ["masses"]}]}}, "target 'masses'; did you mean 'mass'"),
        ({"detection": {"matrix": [{**ROW, "protocols": ["frozen"]}]}}, "detection-frozen"),
        ({"detection": {"anchor_sizes_px": [32, 64]}}, "anchor_sizes_px"),
        ({"detection": {"focal_alpha": 1.0}}, "focal_alpha"),
        ({"factor": {"height_px": 416}}, "give both height_px and width_px, or neither"),
        ({"factor": {"prompts": {"mas": ["a mass"]}}}, "'mas', which is not under attributes; did you mean 'mass'"),
        ({"factor": {"prompts": {"mass": [" "]}}}, "localize.factor.prompts.mass: give sentences that are not empty"),
        ({"factor": {"prompts": {"mass": []}}}, "localize.factor.prompts.mass: give sentences that are not empty"),
        ({"factor": {"attributes": []}}, "attributes"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_section(LocalizeSection, values)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"detection": {"matrix": [{**ROW, "datasets": ["vinder"]}]}},
            "localize names 'vinder', .*did you mean 'vindr'",
        ),
        ({"detection": {"matrix": [{**ROW, "runs": ["main"]}]}}, "localize.detection.matrix names the run 'main'"),
        ({"factor": {"datasets": ["vindr"], "runs": ["main"]}}, "localize.factor names the run 'main'"),
        ({"mode": "compat"}, "localize.mode: compat wants the labels as released: set tabulate.mode to compat too"),
    ],
)
def test_what_does_not_fit_other_sections_is_one_sentence(changes: dict[str, Any], says: str) -> None:
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    with pytest.raises(ConfigError, match=says):
        parse_section(Config, config | {"localize": changes})
