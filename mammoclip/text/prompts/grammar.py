"""What a prompt states, and productions that spell statements: every frame with every phrase at every place.

A frame is a sentence with slots: ``{noun}`` is the phrase as it stands and ``{phrase}`` the phrase with its article,
``{be}`` the verb that agrees with it, ``{where}`` the breast or a part of it and ``{depth}`` the third of the breast.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, overload

from mammoclip.text.reports.sections import Laterality

Number = Literal["singular", "plural", "uncounted"]
Side = Laterality | None
ANY_SIDE: tuple[Side, ...] = ("L", "R", None)
_SIDE_WORD: dict[Side, str] = {"L": "left ", "R": "right ", None: ""}

_SOUNDS_LIKE_VOWEL = re.compile(r"[aeio]|u(?!ni|su)")


@dataclass(frozen=True)
class Statement:
    """The facts that one sentence states.

    Attributes:
        subject: what the sentence speaks of: a finding, "density", "birads", "malignancy", "implant", ...
        value: 1 present or 0 absent; density 0-3 for A-D; birads 0-6.
        subtype: the descriptor of the subject ("irregular spiculated"), if one is named.
        position: the part of the breast ("upper outer quadrant", "upper", "retroareolar") or "axilla", if one is named.
        depth: "anterior", "middle" or "posterior", if one is named.
        laterality: the side, if one is named.
    """

    subject: str
    value: int
    subtype: str | None = None
    position: str | None = None
    depth: str | None = None
    laterality: Side = None


@dataclass(frozen=True)
class Phrase:
    """Words for a subject with the subtype that they name.

    >>> Phrase("irregular mass", "irregular").with_article
    'an irregular mass'
    """

    words: str
    subtype: str | None = None
    number: Number = "singular"

    @property
    def with_article(self) -> str:
        """The words behind "a" or "an" where they need one, by sound: "an upper", but "a unilateral"."""
        if self.number != "singular":
            return self.words
        return f"{'an' if _SOUNDS_LIKE_VOWEL.match(self.words) else 'a'} {self.words}"

    @property
    def be(self) -> str:
        """ "is" or "are"."""
        return "are" if self.number == "plural" else "is"


@dataclass(frozen=True)
class Place:
    """Where something is: words with ``{side}`` in front of the breast or axilla, and the facts that they name.

    >>> Place("upper {side}breast", "upper").where("L")
    'upper left breast'
    """

    words: str = "{side}breast"
    position: str | None = None
    depth: str | None = None

    def where(self, laterality: Side) -> str:
        """Return the words with the side, or without one."""
        return self.words.format(side=_SIDE_WORD[laterality])

    @property
    def at_depth(self) -> str:
        """The end of a sentence that names the depth: " at posterior depth", or nothing."""
        return f" at {self.depth} depth" if self.depth else ""


@dataclass(frozen=True)
class Production:
    """The sentences that every frame makes with every phrase at every place, for each of the sides.

    A frame without ``{where}`` names neither place nor side: it belongs in a production for the whole breast and None.

    >>> production = Production(("there {be} {phrase} in the {where}", "{noun} in the {where}"), (Phrase("mass"),))
    >>> [production.sentence(index, "L") for index in range(production.size)]
    ['there is a mass in the left breast', 'mass in the left breast']
    """

    frames: tuple[str, ...]
    phrases: tuple[Phrase, ...]
    places: tuple[Place, ...] = (Place(),)
    sides: tuple[Side, ...] = ANY_SIDE

    @property
    def size(self) -> int:
        """Number of sentences for one side."""
        return len(self.phrases) * len(self.places) * len(self.frames)

    def sentence(self, index: int, laterality: Side) -> str:
        """Return one sentence for a side, 0 <= index < size: frames vary first, then places, then phrases."""
        index, frame = divmod(index, len(self.frames))
        phrase, place = divmod(index, len(self.places))
        return spell(self.frames[frame], self.phrases[phrase], self.places[place], laterality)


Values = Mapping[int, Sequence[Production]]
"""Value of a subject -> how it is said."""


def spell(frame: str, phrase: Phrase, place: Place, laterality: Side) -> str:
    """Return a frame with its slots filled."""
    return frame.format(
        noun=phrase.words,
        phrase=phrase.with_article,
        be=phrase.be,
        where=place.where(laterality),
        depth=place.at_depth,
    )


class Sentences(Sequence[str]):
    """The sentences of productions for one side, in order; each is spelled when it is asked for, at the same cost.

    >>> production = Production(("no {noun} in the {where}",), (Phrase("mass"), Phrase("masses", number="plural")))
    >>> list(Sentences([production], "R"))
    ['no mass in the right breast', 'no masses in the right breast']
    """

    def __init__(self, productions: Sequence[Production], laterality: Side) -> None:
        """Take what ``productions`` say about ``laterality``."""
        self.productions = tuple(production for production in productions if laterality in production.sides)
        self._ends = tuple(accumulate(production.size for production in self.productions))
        self._laterality = laterality

    def __len__(self) -> int:
        """Return the number of sentences."""
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Return one sentence, or a list of some."""
        if isinstance(index, slice):
            return [self._spell(at) for at in range(len(self))[index]]
        return self._spell(range(len(self))[index])

    def _spell(self, index: int) -> str:
        at = bisect_right(self._ends, index)
        production = self.productions[at]
        return production.sentence(index - self._ends[at] + production.size, self._laterality)
