"""Reads the sentences of a grammar back into the statements that they were spelled from."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mammoclip.text.prompts.grammar import Phrase, Place, Production, Side, Statement, Values, spell

_PlaceWords = tuple[str | None, str | None]  # of the slots where and depth

_SLOTS = {
    "noun": "(?P<words>.+)",
    "phrase": "(?P<words>.+)",
    "be": "(?:is|are)",
    "where": "(?P<where>.+?)",
    "depth": "(?: at (?P<depth>[a-z]+) depth)?",
}
_SEPARATORS = re.compile(r"[\s,-]+")


@dataclass(frozen=True)
class _Reading:
    subject: str
    value: int
    phrase: Phrase
    places: frozenset[Place]
    sides: tuple[Side, ...]


class Parser:
    """Inverts a grammar.

    A sentence is matched with the pattern of each frame; what stands in the slots is looked up among the phrases and
    places, and a reading counts only if it is spelled just so: articles and agreement need no rules of their own.
    """

    def __init__(self, words: Mapping[str, Values]) -> None:
        """Index the phrases and places of ``words``, subject -> value -> how it is said."""
        self._readings: dict[str, dict[str, list[_Reading]]] = defaultdict(lambda: defaultdict(list))
        self._places: dict[_PlaceWords, set[tuple[Place, Side]]] = defaultdict(set)
        self._places[None, None].add((Place(), None))  # frames that name no place
        for subject, values in words.items():
            for value, productions in values.items():
                for production in productions:
                    self._add(subject, value, production)
        self._patterns = {frame: _pattern(frame) for frame in self._readings}

    def parse(self, sentence: str) -> Statement | None:
        """Return what a sentence states; None if the grammar does not spell it.

        Case, repeated blanks, commas, hyphens and one final full stop do not matter.
        """
        text = _plain(sentence)
        for frame, pattern in self._patterns.items():
            if match := pattern.fullmatch(text):
                for reading, place, side in self._candidates(frame, match.groupdict()):
                    if _plain(spell(frame, reading.phrase, place, side)) == text:
                        return Statement(
                            reading.subject, reading.value, reading.phrase.subtype, place.position, place.depth, side
                        )
        return None

    def _candidates(self, frame: str, slots: dict[str, str | None]) -> Iterator[tuple[_Reading, Place, Side]]:
        for reading in self._readings[frame].get(slots.get("words") or "", ()):
            for place, side in self._places.get((slots.get("where"), slots.get("depth")), ()):
                if place in reading.places and side in reading.sides:
                    yield reading, place, side

    def _add(self, subject: str, value: int, production: Production) -> None:
        for place in production.places:
            for side in production.sides:
                self._places[_plain(place.where(side)), place.depth].add((place, side))
        for phrase in production.phrases:
            reading = _Reading(subject, value, phrase, frozenset(production.places), production.sides)
            for frame in production.frames:
                key = phrase.with_article if "{phrase}" in frame else phrase.words
                self._readings[frame][_plain(key)].append(reading)


def _plain(text: str) -> str:
    return " ".join(_SEPARATORS.split(text.lower().strip().removesuffix("."))).strip()


def _pattern(frame: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", _plain(frame))
    return re.compile("".join(_SLOTS[part] if at % 2 else re.escape(part) for at, part in enumerate(parts)))
