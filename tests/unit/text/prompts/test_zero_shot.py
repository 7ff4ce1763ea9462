from __future__ import annotations

import pytest

from mammoclip.errors import ConfigError
from mammoclip.text import DENSITY_PROMPTS, PromptGrammar, prompt_ensemble, zero_shot_prompts

GRAMMAR = PromptGrammar()
TASKS = pytest.mark.parametrize("task", [subject for subject in GRAMMAR.subjects if subject != "no finding"])


def test_zero_shot_prompts_are_those_of_the_paper() -> None:
    assert zero_shot_prompts("mass") == ("no mass", "mass")
    assert zero_shot_prompts("suspicious_calcification") == ("no suspicious calcification", "suspicious calcification")
    assert zero_shot_prompts("malignancy") == ("no malignancy", "malignancy")


def test_density_has_the_sentences_of_the_atlas_from_a_to_d() -> None:
    assert zero_shot_prompts("density") == (
        "the breasts are almost entirely fatty",
        "there are scattered areas of fibroglandular density",
        "the breasts are heterogeneously dense, which may obscure small masses",
        "the breasts are extremely dense, which lowers the sensitivity of mammography",
    )
    assert tuple(DENSITY_PROMPTS[category] for category in "ABCD") == zero_shot_prompts("density")


def test_other_tasks_have_one_prompt_per_class_too() -> None:
    assert zero_shot_prompts("implant") == ("no implant", "implant")
    assert zero_shot_prompts("birads") == tuple(f"birads {category}" for category in range(7))


@pytest.mark.parametrize("task", ["age", "no finding"])
def test_what_has_no_classes_is_refused_with_the_choices(task: str) -> None:
    with pytest.raises(ConfigError, match="density"):
        zero_shot_prompts(task)
    with pytest.raises(ConfigError, match="density"):
        prompt_ensemble(task, 4, seed=0)


@TASKS
def test_an_ensemble_starts_with_the_single_prompts_and_adds_other_sentences_of_the_class(task: str) -> None:
    ensembles = prompt_ensemble(task, 16, seed=1)
    assert tuple(prompts[0] for prompts in ensembles) == zero_shot_prompts(task)
    for value, prompts in enumerate(ensembles):
        sentences = list(GRAMMAR.sentences(task, value))
        assert len(prompts) == len(set(prompts)) == min(16, len(sentences))
        assert set(prompts) <= set(sentences)


def test_an_ensemble_says_where_and_what_like_as_the_sentences_of_training_do() -> None:
    _, masses = prompt_ensemble("mass", 400, seed=0)
    stated = [GRAMMAR.parse(sentence) for sentence in masses]
    assert sum(statement.position is not None for statement in stated) > 300
    assert sum(statement.depth is not None for statement in stated) > 200
    assert sum(statement.subtype is not None for statement in stated) > 300
    assert sum("breast" not in sentence for sentence in masses) < 20


@TASKS
def test_an_ensemble_of_one_is_the_protocol_of_the_paper(task: str) -> None:
    assert prompt_ensemble(task, 1, seed=0) == [(prompt,) for prompt in zero_shot_prompts(task)]


def test_an_ensemble_depends_on_its_seed_alone() -> None:
    assert prompt_ensemble("mass", 8, seed=3) == prompt_ensemble("mass", 8, seed=3)
    assert prompt_ensemble("mass", 8, seed=3) != prompt_ensemble("mass", 8, seed=4)
