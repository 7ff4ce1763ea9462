"""The two texts of a training example: sections of a report, or prompts about labels (section 3.1 of the paper)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mammoclip.config import Mode
from mammoclip.text import Laterality, PromptGrammar

Paraphrases = Mapping[str, Sequence[str]]
"""Sentence -> other sentences that say the same."""

_SIDES = re.compile(r"\b(left|right)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Captions:
    """What can be said of one breast: sections of sentences, or where there is no report the labels of each view.

    ``views`` holds for CC and MLO the labels (name, value) that prompts speak of; views without a label are left out.
    """

    texts: tuple[tuple[str, ...], ...]
    laterality: Laterality
    views: tuple[tuple[tuple[str, int], ...], ...] = ()

    def __bool__(self) -> bool:
        """Tell whether anything can be said."""
        return bool(self.texts or self.views)


class CaptionSampler:
    """Draws the two texts of an example.

    Of a report: two sections with replacement, each replaced by its paraphrase with probability 1/2; of a single
    section the original and its paraphrase in random order. Of labels: a text of the CC and one of the MLO labels in
    random order, one sentence drawn per label. Sentences are shuffled, equal ones are said once.

    The released code (compat) means to shuffle the sentences of reports and does not.
    """

    def __init__(self, paraphrases: Paraphrases | None = None, mode: Mode = "strict") -> None:
        """Use ``paraphrases``; none: every text stays as it is."""
        self._paraphrases = paraphrases or {}
        self._keeps_order = mode == "compat"
        self._grammar = PromptGrammar()

    def draw(self, captions: Captions, rng: np.random.Generator) -> tuple[str, str]:
        """Return two texts for training."""
        if not captions.texts:
            first, second = self._prompts(captions, rng)
        else:
            first, second = self._sections(captions, rng)
            if self._keeps_order:
                return " ".join(first), " ".join(second)
        return _shuffle(first, rng), _shuffle(second, rng)

    def first(self, captions: Captions) -> tuple[str, str]:
        """Return the texts for validation: the first and the last section, or the first sentence of every label."""
        if captions.texts:
            return " ".join(captions.texts[0]), " ".join(captions.texts[-1])
        said = [
            [self._grammar.sentences(name, value, captions.laterality)[0] for name, value in view]
            for view in captions.views
        ]
        return " ".join(dict.fromkeys(said[0])), " ".join(dict.fromkeys(said[-1]))

    def _sections(self, captions: Captions, rng: np.random.Generator) -> list[Sequence[str]]:
        texts = captions.texts
        if len(texts) == 1:
            pair = [texts[0], self._paraphrase(texts[0], rng)]
            return pair[::-1] if rng.random() < 0.5 else pair
        drawn = [texts[i] for i in rng.integers(len(texts), size=2)]
        return [self._paraphrase(text, rng) if rng.random() < 0.5 else text for text in drawn]

    def _prompts(self, captions: Captions, rng: np.random.Generator) -> list[Sequence[str]]:
        views = [captions.views[0], captions.views[-1]]
        if rng.random() < 0.5:
            views.reverse()
        return [[self._grammar.draw(rng, name, value, captions.laterality) for name, value in view] for view in views]

    def _paraphrase(self, sentences: Sequence[str], rng: np.random.Generator) -> Sequence[str]:
        return [self._choose(self._paraphrases.get(sentence) or [sentence], rng) for sentence in sentences]

    @staticmethod
    def _choose(choices: Sequence[str], rng: np.random.Generator) -> str:
        return choices[int(rng.integers(len(choices)))]


def swap_sides(text: str) -> str:
    """Exchange the words left and right, as a horizontal flip of the image demands.

    >>> swap_sides("mass in the left breast")
    'mass in the right breast'
    """
    return _SIDES.sub(lambda match: "right" if match[0].lower() == "left" else "left", text)


def _shuffle(sentences: Sequence[str], rng: np.random.Generator) -> str:
    return " ".join(str(sentence) for sentence in rng.permutation(list(dict.fromkeys(sentences))))
