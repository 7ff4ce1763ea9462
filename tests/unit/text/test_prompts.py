from __future__ import annotations

import numpy as np
import pytest

from mammoclip.errors import ConfigError, DatasetError
from mammoclip.text import (
    DENSITY_PROMPTS,
    FINDINGS,
    NO_FINDING,
    FindingRule,
    PromptGrammar,
    prompt_ensemble,
    zero_shot_prompts,
)

GRAMMAR = PromptGrammar()
SIDES = pytest.mark.parametrize(("laterality", "own", "other"), [("L", "left", "right"), ("R", "right", "left")])


def test_the_ten_findings_of_vindr_have_rules() -> None:
    assert len(FINDINGS) == 10 and GRAMMAR.findings == FINDINGS


@pytest.mark.parametrize("finding", FINDINGS)
def test_presence_and_absence_share_no_sentence_and_repeat_none(finding: str) -> None:
    positives, negatives = GRAMMAR.sentences(finding), GRAMMAR.sentences(finding, positive=False)
    assert len(positives) == len(set(positives)) >= 5
    assert len(negatives) == len(set(negatives)) >= 5
    assert not set(positives) & set(negatives)
    assert all(sentence.startswith("there is ") or sentence.startswith("there are ") for sentence in positives)
    assert all("no " in f"{sentence} " or "not " in sentence or "normal" in sentence for sentence in negatives)


@pytest.mark.parametrize("finding", [*FINDINGS, NO_FINDING])
@SIDES
def test_a_named_side_is_the_only_side(finding: str, laterality: str, own: str, other: str) -> None:
    for sentence in GRAMMAR.sentences(finding, laterality=laterality):
        assert other not in sentence
    assert any(own in sentence for sentence in GRAMMAR.sentences(finding, laterality=laterality))
    assert not any(side in sentence for sentence in GRAMMAR.sentences(finding) for side in ("left", "right"))


@pytest.mark.parametrize("finding", FINDINGS)
@pytest.mark.parametrize("positive", [True, False])
def test_sentences_read_as_plain_english_tokens(finding: str, positive: bool) -> None:
    for sentence in GRAMMAR.sentences(finding, positive, "L"):
        assert sentence == sentence.lower() == " ".join(sentence.split())
        assert "{" not in sentence
        assert not any(f" a {vowel}" in sentence for vowel in "aeio")


def test_a_small_grammar_spells_out_every_combination_plainest_first() -> None:
    rule = FindingRule(
        "clip", ("old",), positions=("upper",), depths=("middle",), negatives=("no clip in the {breast}",)
    )
    grammar = PromptGrammar({"clip": rule})
    assert grammar.sentences("clip", laterality="R") == [
        "there is a clip in the right breast",
        "there is a clip in the right breast at middle depth",
        "there is a clip in the upper right breast",
        "there is a clip in the upper right breast at middle depth",
        "there is an old clip in the right breast",
        "there is an old clip in the right breast at middle depth",
        "there is an old clip in the upper right breast",
        "there is an old clip in the upper right breast at middle depth",
    ]
    assert grammar.sentences("clip", positive=False, laterality="R") == ["no clip in the right breast"]


def test_a_lymph_node_or_calcification_is_never_named_without_suspicion() -> None:
    assert "there is a lymph node in the breast" not in GRAMMAR.sentences("suspicious lymph node")
    assert "there are calcifications in the breast" not in GRAMMAR.sentences("suspicious calcification")


def test_finding_names_are_read_in_any_case_and_with_underscores() -> None:
    assert GRAMMAR.sentences("Suspicious_Calcification") == GRAMMAR.sentences("suspicious calcification")


def test_draws_come_from_the_sentences_and_repeat_with_the_seed() -> None:
    rng, again = np.random.default_rng(3), np.random.default_rng(3)
    draws = [GRAMMAR.draw(rng, "nipple retraction", laterality="L") for _ in range(200)]
    assert set(draws) == set(GRAMMAR.sentences("nipple retraction", laterality="L"))
    assert draws == [GRAMMAR.draw(again, "nipple retraction", laterality="L") for _ in range(200)]


def test_changing_a_returned_list_changes_nothing() -> None:
    GRAMMAR.sentences("mass").clear()
    assert GRAMMAR.sentences("mass")


def test_unknown_findings_and_sides_are_refused_with_the_choices() -> None:
    with pytest.raises(DatasetError, match="nipple retraction"):
        GRAMMAR.sentences("masss")
    with pytest.raises(DatasetError, match="negative"):
        GRAMMAR.sentences(NO_FINDING, positive=False)
    with pytest.raises(ValueError, match="laterality"):
        GRAMMAR.sentences("mass", laterality="left")  # type: ignore[arg-type]


def test_zero_shot_prompts_are_those_of_the_paper() -> None:
    assert zero_shot_prompts("mass") == ("no mass", "mass")
    assert zero_shot_prompts("suspicious_calcification") == ("no suspicious calcification", "suspicious calcification")
    assert zero_shot_prompts("malignancy") == ("no malignancy", "malignancy")
    assert zero_shot_prompts("density") == tuple(DENSITY_PROMPTS[category] for category in "ABCD")
    with pytest.raises(ConfigError, match="density"):
        zero_shot_prompts("age")


def test_an_ensemble_starts_with_the_single_prompts_and_adds_sentences_of_the_grammar() -> None:
    grammar = PromptGrammar()
    negatives, positives = prompt_ensemble("suspicious_calcification", 16, seed=1)
    assert (negatives[0], positives[0]) == zero_shot_prompts("suspicious_calcification")
    assert len(positives) == 16 and len(set(positives)) == 16
    assert set(positives[1:]) <= set(grammar.sentences("suspicious calcification"))
    assert set(negatives) <= set(grammar.sentences("suspicious calcification", positive=False))
    assert not set(negatives) & set(positives)


def test_an_ensemble_of_one_is_the_protocol_of_the_paper() -> None:
    for task in ("mass", "suspicious calcification", "malignancy", "density"):
        assert prompt_ensemble(task, 1, seed=0) == [(prompt,) for prompt in zero_shot_prompts(task)]


def test_an_ensemble_depends_on_its_seed_alone_and_classes_without_grammar_keep_one_prompt() -> None:
    assert prompt_ensemble("mass", 8, seed=3) == prompt_ensemble("mass", 8, seed=3)
    assert prompt_ensemble("mass", 8, seed=3) != prompt_ensemble("mass", 8, seed=4)
    assert [len(prompts) for prompts in prompt_ensemble("density", 16, seed=0)] == [1, 1, 1, 1]
