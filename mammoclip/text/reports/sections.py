"""Sections of a free-text mammography report, and the part of a section that speaks of one breast."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, get_args

from mammoclip.text.reports.headings import Heading, break_before_inline_headings, find_heading
from mammoclip.text.reports.sentences import split_sentences, to_plain_unicode

Laterality = Literal["L", "R"]

PREAMBLE = "PREAMBLE"
"""Key of the text before the first heading."""

_RULE = re.compile(r"[ \t]*[-=*~]{3,}[ \t]*")

_ONE_SIDE = r"(?P<side>right|left|rt|lt)(?:\s+(?:breast|mammogram|side))?"
_NO_SIDE = r"both\s+breasts|bilateral(?:\s+breasts)?|general|other"
_LEAD_IN = re.compile(
    rf"[*_]{{0,2}}(?:(?:in|on)\s+the\s+)?(?:{_ONE_SIDE}|{_NO_SIDE})(?:\s+findings)?[*_]{{0,2}}\s*(?::|-(?=\s|$))"
    r"[*_]{0,2}\s*",
    re.IGNORECASE,
)
_LEAD_IN_LINE = re.compile(rf"^(?=[ \t]*{_LEAD_IN.pattern})", re.IGNORECASE | re.MULTILINE)
_LEAD_IN_AFTER_COMMA = re.compile(r"[,;](?=[ \t]+(?:right|left)(?:[ \t]+breast)?[ \t]*:)", re.IGNORECASE)
_BARE_LEAD_IN_LINE = re.compile(
    r"^[ \t]*[*_]{0,2}((?:RIGHT|Right|LEFT|Left)[ \t]+(?:BREAST|[Bb]reast))[*_]{0,2}[ \t]*$", re.MULTILINE
)

_NAMES_SIDE = re.compile(
    r"""\b(?: (?P<L> left(?!\s+in\s+(?:place|situ)) | lt | lcc | lmlo | l(?=\s+breast) )
           | (?P<R> right | rt | rcc | rmlo | r(?=\s+breast) )
           | (?P<both> bilateral(?:ly)? | breasts | both\s+(?:sides|axill\w+|nipples)
                     | (?:either|each)\s+(?:breast|side) ) )\b""",
    re.IGNORECASE | re.VERBOSE,
)
_BOTH_SIDES: frozenset[Laterality] = frozenset(get_args(Laterality))
_NAMED: dict[str | None, frozenset[Laterality]] = {
    "L": frozenset[Laterality](["L"]),
    "R": frozenset[Laterality](["R"]),
    "both": _BOTH_SIDES,
}


def split_report(report: str) -> dict[str, str]:
    r"""Split a report at its section headings.

    `headings.find_heading` says which lines open a section: a heading with a colon or a dash, alone on its line, or in
    capitals before running text, decorated or not. In a report on one line, headings in capitals with a
    colon open a section after a full stop or a colon. Synonyms are gathered under one key ("CONCLUSION" is
    ``IMPRESSION``). Other words with a colon stay in the text, and so do the sub-headings of a section: a line on
    breast composition in FINDINGS, a line on BI-RADS in IMPRESSION. A heading that names a side leaves a lead-in for
    `side_text`: "RIGHT BREAST FINDINGS:" opens FINDINGS with "RIGHT BREAST:".

    Returns:
        Upper-case key -> text without surrounding blanks, in order of first appearance, characters as
        `mammoclip.text.to_plain_unicode` writes them. Text before the first heading is under ``PREAMBLE`` (absent when
        there is none); a heading without text gives ``""``; parts of a repeated section are joined with a line break,
        or with a blank line where the part before lacks a full stop.

    >>> split_report("Screening.\r\nFindings:No mass.\r\nIMPRESSION : Benign.")
    {'PREAMBLE': 'Screening.', 'FINDINGS': 'No mass.', 'IMPRESSION': 'Benign.'}
    """
    key, lines = PREAMBLE, list[str]()
    parts = [(key, lines)]
    for line in break_before_inline_headings(to_plain_unicode(report)).split("\n"):
        heading = find_heading(line)
        if heading and not _is_subheading(heading, key):
            key, lines = heading.key, [heading.text] if heading.text else []
            parts.append((key, lines))
        elif lines or not _RULE.fullmatch(line):  # a rule under a heading only decorates it
            lines.append(line)
    sections: dict[str, str] = {}
    for name, part in parts:
        text = "\n".join(part).strip()
        if text or name != PREAMBLE:
            sections[name] = _join(sections.get(name, ""), text)
    return sections


def _join(text: str, more: str) -> str:
    # Without its full stop the last sentence of one part would run into the first of the next.
    if not text or not more:
        return text or more
    return "\n".join((text, more)) if text.endswith(".") else "\n\n".join((text, more))


def side_text(text: str, laterality: Laterality) -> str:
    """Return the sentences of a section that speak of one breast, in their order, separated by full stop and blank.

    - A lead-in ("Right breast:", "LEFT -", "On the right:", "Right breast" alone on its line) claims the sentences that
      follow it, up to the next lead-in ("..., left breast:" is one within a sentence); "Bilateral:", "Both breasts:",
      "General:" and "Other:" end its claim.
    - A sentence that names one side only (right, Rt, RCC, RMLO, ...) belongs to that side, also under the other side's
      lead-in - except the sentence that carries the lead-in, which compares more often than it changes the subject.
    - A sentence that names both sides ("bilateral", "the breasts are ..."), or none outside a lead-in, belongs to both.

    Lead-in words stay in front of their first sentence. Sentences are those of `mammoclip.text.split_sentences`.

    Raises:
        ValueError: ``laterality`` is neither ``"L"`` nor ``"R"``.

    >>> side_text("Scattered densities. Right breast: No mass. Left breast: Mass. Cyst.", "L")
    'Scattered densities. Left breast: Mass. Cyst.'
    """
    if laterality not in get_args(Laterality):
        raise ValueError(f"laterality is {laterality!r}; expected 'L' or 'R'.")
    kept = [sentence for sentence, sides in sentences_with_sides(text) if laterality in sides]
    # List items often end without a full stop; between sentences it is added, or the next split would glue them.
    return " ".join([sentence if sentence.endswith(".") else f"{sentence}." for sentence in kept[:-1]] + kept[-1:])


@lru_cache(maxsize=64)  # each section is asked for each side in turn
def sentences_with_sides(text: str) -> tuple[tuple[str, frozenset[Laterality]], ...]:
    """Return the sentences of a section, each with the sides that it speaks of by the rules of `side_text`.

    >>> [(sentence, sorted(sides)) for sentence, sides in sentences_with_sides("Left: Mass. The breasts are dense.")]
    [('Left: Mass.', ['L']), ('The breasts are dense.', ['L', 'R'])]
    """
    plain = _BARE_LEAD_IN_LINE.sub(r"\1:", to_plain_unicode(text))
    plain = _LEAD_IN_AFTER_COMMA.sub(".\n\n", plain)
    sentences: list[tuple[str, frozenset[Laterality]]] = []
    claimed = _BOTH_SIDES
    pending = ""
    for sentence in split_sentences(_LEAD_IN_LINE.sub("\n\n", plain)):
        lead_in = _LEAD_IN.match(sentence)
        if lead_in:
            claimed = _NAMED[lead_in["side"][0].upper()] if lead_in["side"] else _BOTH_SIDES
            pending = lead_in.group().strip()
        body = sentence[lead_in.end() :] if lead_in else sentence
        if not body:
            continue
        sentences.append((f"{pending} {body}".strip(), _sides(body, claimed, carries_lead_in=bool(pending))))
        pending = ""
    return tuple(sentences)


@lru_cache(maxsize=1 << 14)
def sides_named(words: str) -> frozenset[Laterality]:
    """Return the sides that words name: none, one, or both ("bilateral", "breasts", "right and left").

    >>> sorted(sides_named("a mass in the left breast"))
    ['L']
    """
    return frozenset[Laterality]().union(*(_NAMED[named] for named in _names(words)))


def _names(words: str) -> set[str | None]:
    return {name.lastgroup for name in _NAMES_SIDE.finditer(words)}


def _sides(sentence: str, claimed: frozenset[Laterality], *, carries_lead_in: bool) -> frozenset[Laterality]:
    if carries_lead_in and len(claimed) == 1 and "both" not in _names(sentence):
        return claimed
    return sides_named(sentence) or claimed


def _is_subheading(heading: Heading, key: str) -> bool:
    if heading.key == "BREAST COMPOSITION":
        return key == "FINDINGS" and not heading.is_alone
    return heading.names_birads and key == "IMPRESSION"
