from __future__ import annotations

from typing import Any

import pytest

from mammoclip.config import EvaluateSection, Evaluation, parse_section
from mammoclip.config.evaluate import TASKS
from mammoclip.errors import ConfigError
from mammoclip.text import zero_shot_prompts


def section(*rows: dict[str, Any], **others: Any) -> EvaluateSection:
    return parse_section(EvaluateSection, {"matrix": list(rows), **others})


def test_a_row_of_the_matrix_is_every_combination_and_zero_shot_has_no_fraction() -> None:
    row = {
        "datasets": ["vindr"],
        "tasks": ["mass"],
        "protocols": ["zero-shot", "linear-probe"],
        "fractions": [0.1, 1.0],
        "seeds": [0, 7],
    }
    cells = section(row).evaluations(["a", "b"])
    assert [(cell.run, cell.name) for cell in cells] == [
        (run, f"mass/{name}")
        for run in "ab"
        for name in ("zero-shot", "linear-probe-0.1-0", "linear-probe-0.1-7", "linear-probe-1-0", "linear-probe-1-7")
    ]


def test_a_row_for_some_runs_adds_their_evaluations_alone_and_none_twice() -> None:
    all_runs = {"datasets": ["vindr"], "tasks": ["mass"], "protocols": ["zero-shot"]}
    one_run = {"datasets": ["vindr"], "tasks": ["mass", "density"], "protocols": ["zero-shot"], "runs": ["b"]}
    cells = section(all_runs, one_run).evaluations(["a", "b"])
    assert cells == [
        Evaluation("a", "vindr", "mass", "zero-shot", 0.0, 0),
        Evaluation("b", "vindr", "mass", "zero-shot", 0.0, 0),
        Evaluation("b", "vindr", "density", "zero-shot", 0.0, 0),
    ]


def test_tasks_of_the_tables_need_no_entry_and_the_grammar_knows_them_all() -> None:
    row = {"datasets": ["rsna"], "tasks": ["malignancy", "cancer"], "protocols": ["zero-shot"]}
    tasks = section(row, tasks={"cancer": {"attribute": "malignancy"}}).tasks
    assert list(tasks) == ["malignancy", "cancer"]
    assert list(section().tasks) == ["mass", "suspicious_calcification", "density"]
    assert all(len(zero_shot_prompts(task)) >= 2 for task in TASKS)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"prompts": [["no mass"], ["mass"]], "values": [0, 1, 2]}, "3 values, but prompts of 2 classes"),
        ({"prompts": [["no mass"], []]}, "sentences that are not empty"),
        ({"prompts": [["no mass"], [" "]]}, "sentences that are not empty"),
        ({"prompts": [["mass"]]}, "two classes at least"),
        ({"prompts": [["mass", "a mass"], ["a mass", "mass"]]}, "equal prompts, so no image could tell them apart"),
        ({"values": [1]}, "two different ones at least"),
        ({"values": [1, 1]}, "two different ones at least"),
    ],
)
def test_classes_that_cannot_be_told_apart_are_a_sentence(task: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        section(tasks={"cancer": task})


@pytest.mark.parametrize(
    ("key", "value"),
    [("fractions", [0.0]), ("fractions", [1.5]), ("seeds", [-1]), ("protocols", ["probe"]), ("tasks", [])],
)
def test_a_row_of_the_matrix_is_checked_key_by_key(key: str, value: list[Any]) -> None:
    row = {"datasets": ["vindr"], "tasks": ["mass"], "protocols": ["linear-probe"], key: value}
    with pytest.raises(ConfigError, match=rf"matrix\.0\.{key}"):
        section(row)
