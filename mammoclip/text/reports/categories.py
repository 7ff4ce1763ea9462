"""Categories that a sentence states: BI-RADS assessment and breast density (ACR BI-RADS Atlas, 5th edition)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_FILLER = r"""(?:[\s:=\#*(\[®-]++
    |(?:acr|final|overall|assessment|category|cat|code|score|classification|class|grade|is|of|the|right|left|breast)\b\.?){0,9}+"""
_NO_MEASURE = r"(?!\w|\.\d|/\d|[\s-]*(?:mm|cm|months?|mo|years?|yrs?|weeks?|views?|o'clock)\b)"
_BIRADS = re.compile(
    rf"""\bbi[\s-]?rads?\b{_FILLER}(?:(?P<category>[0-6])[\s-]?[abc]?{_NO_MEASURE}|(?P<roman>vi|iv|v|i{{1,3}})(?!\w))
       | (?<!density\ )(?<!composition\ )(?<!tissue\ )(?<!acr\ )\b(?:category|assessment)\b{_FILLER}
         (?P<bare>[0-6])[abc]?{_NO_MEASURE}""",
    re.VERBOSE,
)
_ROMAN = {"i": 1, "ii": 2, "iii": 3, "iv": 4, "v": 5, "vi": 6}
_DENSITY = re.compile(
    r"""\b(?: (?P<A> (?:almost[ ])?entirely[ ]fat(?:ty)?\b | predominantly[ ]fatty\b | fatty[ ]replaced\b
                  | (?:almost[ ])?entirely[ ]replaced[ ]by[ ]fat\b )
            | (?P<B> scattered[ ](?:areas?[ ]of[ ])?fibro-?[ ]?glandular\b )
            | (?P<C> heterogene?ously[ ]dense\b )
            | (?P<D> extremely[ ]dense\b )
            | (?:density|composition|acr|category|bi[ -]?rads|type)
              (?:[\s:=(\[-]++|(?:acr|bi[ -]?rads|density|category|type|class|grade|is)\b){0,9}+
              (?P<letter>[bcd](?![\w/])|a(?=\s*(?:$|[^\w\s/]))) )""",
    re.VERBOSE,
)
_KEY_ENTRY = re.compile(r"(?<![\w.])([0-6])\s?(?:=|:|-|\))\s?(?=[a-z])")
# Before a category of another exam, or one that is denied: "previously BI-RADS 3", "changed from", "no longer".
_NOT_NOW = re.compile(r"\b(?:not|no longer|prior|previous(?:ly)?|former(?:ly)?|from)\W+(?:[\w-]+\W+){0,2}$")
_BEFORE = 60
_KEY_LENGTH = 3


class StatedCategory(NamedTuple):
    """A category that a sentence states: "birads" (0 to 6) or "density" (0 to 3 for A to D), and where it begins."""

    attribute: str
    value: int
    start: int


def stated_categories(sentence: str) -> list[StatedCategory]:
    """Return the categories that a lower-case sentence states of this exam, in order of their place.

    BI-RADS 4A, 4B and 4C are 4. A key to the categories in one sentence ("1 = negative, 2 = benign, ...", or three
    densities) states none.

    >>> [(said.attribute, said.value) for said in stated_categories("extremely dense (acr d). bi-rads category 4b")]
    [('density', 3), ('density', 3), ('birads', 4)]
    """
    birads, densities = list(_birads(sentence)), list(_densities(sentence))
    if len(set(_KEY_ENTRY.findall(sentence))) >= _KEY_LENGTH:
        birads = []
    if len({density.value for density in densities}) >= _KEY_LENGTH:
        densities = []
    said = [category for category in birads + densities if not _is_of_another_time(sentence, category.start)]
    return sorted(said, key=lambda category: category.start)


def _birads(sentence: str) -> Iterator[StatedCategory]:
    for found in _BIRADS.finditer(sentence):
        digit = found["category"] or found["bare"]
        yield StatedCategory("birads", int(digit) if digit else _ROMAN[found["roman"]], found.start())


def _densities(sentence: str) -> Iterator[StatedCategory]:
    for found in _DENSITY.finditer(sentence):
        letter = found["letter"] or str(found.lastgroup)
        yield StatedCategory("density", "abcd".index(letter.lower()), found.start())


def _is_of_another_time(sentence: str, place: int) -> bool:
    return _NOT_NOW.search(sentence[max(0, place - _BEFORE) : place]) is not None
