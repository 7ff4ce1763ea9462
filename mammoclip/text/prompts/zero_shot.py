"""Prompts of zero-shot tasks: one per class as in the paper, or an ensemble whose embeddings are averaged."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from mammoclip.errors import ConfigError
from mammoclip.text.prompts.prompt_grammar import PromptGrammar, subject_name

_GRAMMAR = PromptGrammar()
# A task tells values apart.
_TASKS = tuple(subject for subject in _GRAMMAR.subjects if len(_GRAMMAR.values(subject)) > 1)


def zero_shot_prompts(task: str) -> tuple[str, ...]:
    """Return the prompts of a zero-shot task, one per class in class order: the plainest sentence of each.

    Args:
        task: a finding, malignancy, implant, ... (classes: absent, present), density (A to D) or birads (0 to 6); case
            and underscores do not matter.

    Raises:
        ConfigError: there is no such task.

    >>> zero_shot_prompts("malignancy")
    ('no malignancy', 'malignancy')
    """
    return tuple(prompts[0] for prompts in prompt_ensemble(task, 1, seed=0))


def prompt_ensemble(task: str, size: int, seed: int) -> list[tuple[str, ...]]:
    """Return up to ``size`` sentences for each class of a zero-shot task, in class order.

    The first sentence of a class is its single prompt (`zero_shot_prompts`); the others are drawn from the grammar,
    without a side and without repeats. A class of which the grammar has fewer sentences gets all of them.

    Args:
        task: as of `zero_shot_prompts`.
        size: 1 or more.
        seed: 0 or more; the same seed draws the same sentences.

    Raises:
        ConfigError: there is no such task.

    >>> prompt_ensemble("mass", 1, seed=0)
    [('no mass',), ('mass',)]
    """
    name = subject_name(task)
    if name not in _TASKS:
        raise ConfigError(f"No zero-shot prompts exist for the task {task!r}; choose one of {', '.join(_TASKS)}.")
    rng = np.random.default_rng(seed)
    ensembles: list[tuple[str, ...]] = []
    for value in _GRAMMAR.values(name):
        sentences = _GRAMMAR.sentences(name, value)
        others = rng.permutation(len(sentences) - 1)[: size - 1]
        ensembles.append((sentences[0], *(sentences[1 + int(other)] for other in others)))
    return ensembles


DENSITY_PROMPTS: Mapping[str, str] = MappingProxyType(dict(zip("ABCD", zero_shot_prompts("density"), strict=True)))
"""Breast composition category -> its sentence (ACR BI-RADS Atlas, 5th edition)."""
