"""Facts that a report states of each breast: findings present or denied, breast density, BI-RADS category."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import get_args

from mammoclip.text.reports.assertion import assertions
from mammoclip.text.reports.categories import stated_categories
from mammoclip.text.reports.mentions import finding_mentions
from mammoclip.text.reports.sections import Laterality, sentences_with_sides, sides_named

_SECTIONS = ("BREAST COMPOSITION", "FINDINGS", "IMPRESSION", "ASSESSMENT", "RECOMMENDATION")
# Under these headings a letter or a number alone is the category: the heading says of what.
_HEADING_WORD = {"BREAST COMPOSITION": "density: ", "ASSESSMENT": "assessment: "}
_CONCERN = (1, 2, 3, 0, 4, 5, 6)
_KEY_LENGTH = 4
_MEASURE = re.compile(r"\d+(?:\.\d+)?(?= ?[cm]m\b)|\b\d{3,}\b")  # sizes, years, numbers of other exams
_CLAUSE_BREAK = re.compile(r"[;,:]|\b(?:but|while|whereas|and(?= (?:an?|no|in|on|the|there|bi)\b))\b")


@dataclass(frozen=True)
class Fact:
    """One thing that a report states.

    Attributes:
        attribute: one of the ten findings in snake case (``mass``, ``suspicious_calcification``, ...), ``density`` or
            ``birads``.
        value: 1 present or 0 denied for a finding, 0 to 3 (A to D) for density, 0 to 6 for BI-RADS.
        laterality: the breast it is said of; ``None`` when it is said of both or of none in particular.
    """

    attribute: str
    value: int
    laterality: Laterality | None


def report_facts(sections: Mapping[str, str]) -> list[Fact]:
    """Return the facts of a report in the order in which they are stated.

    Read are BREAST COMPOSITION, FINDINGS, IMPRESSION, ASSESSMENT and RECOMMENDATION; what history, comparison or
    indication mention is not of this exam. What is uncertain, hypothetical or past gives no fact. Sentences belong to
    sides as in `mammoclip.text.side_text`; a sentence that names both sides is taken clause by clause.

    Args:
        sections: section key -> text, as `mammoclip.text.split_report` returns.

    >>> report_facts({"FINDINGS": "No mass. Right breast: Skin thickening.", "IMPRESSION": "BI-RADS 2."})
    [Fact(attribute='mass', value=0, laterality=None), Fact(attribute='skin_thickening', value=1, laterality='R'), \
Fact(attribute='birads', value=2, laterality=None)]
    """
    facts: list[Fact] = []
    for section in filter(sections.get, _SECTIONS):
        heading = _HEADING_WORD.get(section, "")
        of_section: list[Fact] = []
        for sentence, sides in sentences_with_sides(sections[section]):
            # Without their measures many sentences are the same, and are read once.
            of_sentence = _sentence_facts(_MEASURE.sub("9", f"{heading}{sentence}".lower()))
            if len(sides) == 1:
                (side,) = sides
                of_sentence = tuple(Fact(fact.attribute, fact.value, side) for fact in of_sentence)
            of_section += of_sentence
        facts += _without_printed_key(of_section)
    return facts


def side_facts(sections: Mapping[str, str], laterality: Laterality) -> dict[str, int]:
    """Return what a report states of one breast: attribute -> value, as in `Fact`.

    A finding that one sentence affirms and another denies is present. BI-RADS is the category of the highest concern
    stated for the breast, in the order 1, 2, 3, 0, 4, 5, 6 (0 asks for more images, which is more urgent than a
    short-term follow-up), or for the exam where none names the breast. Density is the first stated for the breast, or
    for both.

    Args:
        sections: section key -> text, as `mammoclip.text.split_report` returns.
        laterality: the breast.

    Raises:
        ValueError: ``laterality`` is neither ``"L"`` nor ``"R"``.

    >>> side_facts({"FINDINGS": "Left breast: Mass.", "IMPRESSION": "Left: BI-RADS 4B. Right: BI-RADS 1."}, "L")
    {'mass': 1, 'birads': 4}
    """
    if laterality not in get_args(Laterality):
        raise ValueError(f"laterality is {laterality!r}; expected 'L' or 'R'.")
    values: dict[str, list[int]] = {}
    shared: dict[str, list[int]] = {}
    for fact in report_facts(sections):
        if fact.laterality == laterality:
            values.setdefault(fact.attribute, []).append(fact.value)
        elif fact.laterality is None:
            shared.setdefault(fact.attribute, []).append(fact.value)
    return {
        attribute: _settle(attribute, values.get(attribute, []), shared.get(attribute, []))
        for attribute in {**shared, **values}
    }


def _settle(attribute: str, own: Sequence[int], shared: Sequence[int]) -> int:
    if attribute == "birads":
        return max(own or shared, key=_CONCERN.index)
    if attribute == "density":
        return (own or shared)[0]
    return max([*own, *shared])


@lru_cache(maxsize=1 << 16)  # many sentences are said of many breasts
def _sentence_facts(sentence: str) -> tuple[Fact, ...]:
    mentions = finding_mentions(sentence)
    said = [(category.start, category.attribute, category.value) for category in stated_categories(sentence)]
    verdicts = assertions(sentence, mentions) if mentions else []
    for mention, is_affirmed in zip(mentions, verdicts, strict=True):
        if is_affirmed is not None and not (is_affirmed and mention.only_if_denied):
            said.append((mention.start, mention.attribute, int(is_affirmed)))
    if not said:
        return ()
    said.sort()
    sides = _clause_sides(sentence, [start for start, _, _ in said])
    return tuple(Fact(attribute, value, side) for (_, attribute, value), side in zip(said, sides, strict=True))


def _clause_sides(sentence: str, places: Sequence[int]) -> list[Laterality | None]:
    """Return the one side that the clause of each place speaks of, or ``None``.

    A clause that names no side speaks of the side of the clause before, at the beginning of the clause behind.
    """
    bounds = [0, *(found.start() for found in _CLAUSE_BREAK.finditer(sentence)), len(sentence) + 1]
    named = [sides_named(sentence[start:end]) for start, end in pairwise(bounds)]
    current = next((sides for sides in named if sides), frozenset[Laterality]())
    clause_sides: list[Laterality | None] = []
    clause = -1
    for place in places:
        while clause < 0 or place >= bounds[clause + 1]:
            clause += 1
            current = named[clause] or current
        clause_sides.append(next(iter(current)) if len(current) == 1 else None)
    return clause_sides


def _without_printed_key(facts: Sequence[Fact]) -> Iterator[Fact]:
    """Leave out the BI-RADS categories of a printed key: a row of four or more, each the one before or the next."""
    places = [index for index, fact in enumerate(facts) if fact.attribute == "birads"]
    of_key: set[int] = set()
    row: list[int] = []
    for index in [*places, None]:
        if index is not None and row and facts[index].value - facts[row[-1]].value in (0, 1):
            row.append(index)
            continue
        if len({facts[member].value for member in row}) >= _KEY_LENGTH:
            of_key.update(row)
        row = [] if index is None else [index]
    return (fact for index, fact in enumerate(facts) if index not in of_key)
