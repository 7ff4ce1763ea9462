"""Prompts: sentences for findings and other attributes of a mammogram, and the facts that a sentence states."""

from __future__ import annotations

from functools import cache

import numpy as np

from mammoclip.errors import DatasetError
from mammoclip.text.prompts.attributes import ATTRIBUTE_WORDS
from mammoclip.text.prompts.findings import FINDING_WORDS, NO_FINDING_WORDS
from mammoclip.text.prompts.grammar import ANY_SIDE, Sentences, Side, Statement, spell
from mammoclip.text.prompts.parsing import Parser

FINDINGS: tuple[str, ...] = tuple(FINDING_WORDS)
"""The ten findings of VinDr-Mammo, as the tables spell them."""

NO_FINDING = "no finding"
"""The label of an image without any finding; its only value is 1."""

_WORDS = {**FINDING_WORDS, NO_FINDING: NO_FINDING_WORDS, **ATTRIBUTE_WORDS}


class PromptGrammar:
    """Turns labels into sentences and sentences into statements.

    A sentence names its subject, and at will a subtype, a position, a depth and a side. No two statements share a
    sentence: `parse` gives back what a sentence was made from.

    >>> grammar = PromptGrammar()
    >>> grammar.sentences("mass", 1, "L")[0]
    'there is a mass in the left breast'
    >>> grammar.sentences("density", 3)[1]
    'both breasts are extremely dense, which lowers the sensitivity of mammography'
    >>> grammar.parse("No masses are seen in the right breast.")
    Statement(subject='mass', value=0, subtype=None, position=None, depth=None, laterality='R')
    """

    @property
    def findings(self) -> tuple[str, ...]:
        """The ten findings, present (1) or absent (0)."""
        return FINDINGS

    @property
    def subjects(self) -> tuple[str, ...]:
        """All that sentences speak of: the findings, `NO_FINDING`, and density, birads, malignancy, implant, ..."""
        return tuple(_WORDS)

    def values(self, subject: str) -> tuple[int, ...]:
        """Return the values that can be said of a subject: 0 and 1; density 0-3; birads 0-6; `NO_FINDING` 1.

        Raises:
            DatasetError: there is no such subject.
        """
        return tuple(_WORDS[_known(subject)])

    def sentences(self, subject: str, value: int = 1, laterality: Side = None) -> Sentences:
        """Return every sentence for a label, without repeats, in a fixed order with the plainest first.

        Sentences are spelled when they are asked for: the first costs as much as any other, however many there are.

        Args:
            subject: one of `subjects`; case and underscores do not matter.
            value: one of `values`: presence or absence of a finding, or the grade of density and birads.
            laterality: the breast that every sentence names; None: no sentence names a side.

        Raises:
            DatasetError: there is no such subject, or it cannot have this value.
            ValueError: ``laterality`` is none of ``"L"``, ``"R"``, ``None``.
        """
        if laterality not in ANY_SIDE:
            raise ValueError(f"laterality is {laterality!r}; expected 'L', 'R' or None.")
        return _sentences(_known(subject), value, laterality)

    def draw(self, rng: np.random.Generator, subject: str, value: int = 1, laterality: Side = None) -> str:
        """Return one of `sentences` with equal probability, drawing once from ``rng``. Raises as `sentences` does."""
        choices = self.sentences(subject, value, laterality)
        return choices[int(rng.integers(len(choices)))]

    def statements(self, subject: str, value: int = 1, laterality: Side = None) -> list[Statement]:
        """Return the distinct statements that `sentences` make, plainest first. Raises as `sentences` does."""
        productions = self.sentences(subject, value, laterality).productions
        return list(
            dict.fromkeys(
                Statement(_known(subject), int(value), phrase.subtype, place.position, place.depth, laterality)
                for production in productions
                for phrase in production.phrases
                for place in production.places
            )
        )

    def say(self, statement: Statement) -> list[str]:
        """Return the sentences that state just this, plainest first; none if the grammar has no words for it.

        Raises:
            DatasetError, ValueError: as `sentences` does, for the statement's subject, value and laterality.

        >>> PromptGrammar().say(Statement("mass", 1, "oval", "upper", "middle", "L"))[0]
        'there is an oval mass in the upper left breast at middle depth'
        """
        return [
            spell(frame, phrase, place, statement.laterality)
            for production in self.sentences(statement.subject, statement.value, statement.laterality).productions
            for phrase in production.phrases
            if phrase.subtype == statement.subtype
            for place in production.places
            if (place.position, place.depth) == (statement.position, statement.depth)
            for frame in production.frames
        ]

    def parse(self, sentence: str) -> Statement:
        """Return what a sentence of the grammar states.

        Case, repeated blanks, commas, hyphens and a final full stop do not matter, so that cleaned text can be read
        (`mammoclip.text.clean_sentences`).

        Raises:
            DatasetError: the grammar makes no such sentence.
        """
        statement = _parser().parse(sentence)
        if statement is None:
            raise DatasetError(
                f"The sentence {sentence!r} is none of the prompt grammar; choose one of PromptGrammar().sentences()."
            )
        return statement


def subject_name(name: str) -> str:
    """Return a name as the grammar spells it: lower-case words separated by blanks, not by underscores."""
    return " ".join(name.replace("_", " ").lower().split())


def _known(subject: str) -> str:
    name = subject_name(subject)
    if name not in _WORDS:
        raise DatasetError(
            f"No prompt exists for {subject!r}; expected one of {', '.join(_WORDS)}: correct the name of the label."
        )
    return name


@cache
def _sentences(subject: str, value: int, laterality: Side) -> Sentences:
    values = _WORDS[subject]
    if value not in values:
        raise DatasetError(
            f"No prompt says that {subject!r} has the value {value!r}; expected one of "
            f"{', '.join(map(str, values))}: correct the label."
        )
    return Sentences(values[value], laterality)


@cache
def _parser() -> Parser:
    return Parser(_WORDS)
