"""Sections of a free-text mammography report, and the part of a section that speaks of one breast."""

from __future__ import annotations

import re
from typing import Literal, get_args

from mammoclip.text.sentences import split_sentences, to_plain_unicode

Laterality = Literal["L", "R"]

PREAMBLE = "PREAMBLE"
"""Key of the text before the first heading."""

HEADINGS: dict[str, tuple[str, ...]] = {
    "EXAM": ("EXAMINATION", "EXAM DESCRIPTION", "PROCEDURE", "STUDY"),
    "INDICATION": ("INDICATIONS", "CLINICAL INDICATION", "REASON FOR EXAM", "REASON FOR EXAMINATION"),
    "HISTORY": ("CLINICAL HISTORY", "CLINICAL INFORMATION", "PATIENT HISTORY"),
    "TECHNIQUE": ("TECHNIQUES",),
    "COMPARISON": ("COMPARISONS", "COMPARISON STUDIES"),
    "BREAST COMPOSITION": ("COMPOSITION", "BREAST DENSITY", "BREAST TISSUE", "TISSUE DENSITY", "DENSITY"),
    "FINDINGS": ("FINDING", "MAMMOGRAPHIC FINDINGS"),
    "IMPRESSION": ("IMPRESSIONS", "CONCLUSION", "CONCLUSIONS"),
    "ASSESSMENT": (),
    "RECOMMENDATION": ("RECOMMENDATIONS",),
    "ADDENDUM": (),
}
"""Section key -> other headings that open the same section."""

_KEY_OF_HEADING = {heading: key for key, others in HEADINGS.items() for heading in (key, *others)}
_ANY_HEADING = "|".join(
    re.escape(heading).replace(r"\ ", r"[ \t]+") for heading in sorted(_KEY_OF_HEADING, key=len, reverse=True)
)
# With a colon in any case; without one only in capitals and alone on its line.
_HEADING_LINE = re.compile(
    rf"^[ \t]*(?:(?i:(?P<colon>{_ANY_HEADING}))[ \t]*:|(?P<bare>{_ANY_HEADING})[ \t]*$)", re.MULTILINE
)

_ONE_SIDE = r"(?P<side>right|left)(?:\s+(?:breast|mammogram|side))?"
_NO_SIDE = r"both\s+breasts|bilateral(?:\s+breasts)?|general|other"
_LEAD_IN = re.compile(rf"(?:{_ONE_SIDE}|{_NO_SIDE})(?:\s+findings)?\s*(?::|-(?=\s|$))\s*", re.IGNORECASE)
_LEAD_IN_LINE = re.compile(rf"^(?=[ \t]*{_LEAD_IN.pattern})", re.IGNORECASE | re.MULTILINE)
_BARE_LEAD_IN_LINE = re.compile(r"^[ \t]*((?:RIGHT|Right|LEFT|Left)[ \t]+(?:BREAST|[Bb]reast))[ \t]*$", re.MULTILINE)

_NAMES_SIDE: dict[Laterality, re.Pattern[str]] = {
    "L": re.compile(r"\b(?:left(?!\s+in\s+(?:place|situ))|lt|lcc|lmlo|l(?=\s+breast))\b", re.IGNORECASE),
    "R": re.compile(r"\b(?:right|rt|rcc|rmlo|r(?=\s+breast))\b", re.IGNORECASE),
}
_NAMES_BOTH = re.compile(
    r"\b(?:bilateral(?:ly)?|breasts|both\s+(?:sides|axill\w+|nipples)|(?:either|each)\s+(?:breast|side))\b",
    re.IGNORECASE,
)
_BOTH_SIDES: frozenset[Laterality] = frozenset(get_args(Laterality))
_CLAIMED: dict[str | None, frozenset[Laterality]] = {
    "left": frozenset[Laterality](["L"]),
    "right": frozenset[Laterality](["R"]),
    None: _BOTH_SIDES,
}


def split_report(report: str) -> dict[str, str]:
    r"""Split a report at its section headings.

    A heading stands at the start of a line and is followed by a colon, in any case, with or without blanks around the
    colon; text may follow on the same line. A heading in capitals alone on its line needs no colon. Synonyms are
    gathered under one key (`HEADINGS`: "CONCLUSION" is ``IMPRESSION``). Other words with a colon stay in the text.

    Returns:
        Upper-case key -> text without surrounding blanks, in order of first appearance, characters as
        `mammoclip.text.to_plain_unicode` writes them. Text before the first heading is under ``PREAMBLE`` (absent when
        there is none); a heading without text gives ``""``; parts of a repeated section are joined with a line break.

    >>> split_report("Screening.\r\nFindings:No mass.\r\nIMPRESSION : Benign.")
    {'PREAMBLE': 'Screening.', 'FINDINGS': 'No mass.', 'IMPRESSION': 'Benign.'}
    """
    text = to_plain_unicode(report)
    headings = list(_HEADING_LINE.finditer(text))
    starts = [heading.start() for heading in headings] + [len(text)]
    sections: dict[str, str] = {}
    if preamble := text[: starts[0]].strip():
        sections[PREAMBLE] = preamble
    for heading, end in zip(headings, starts[1:], strict=True):
        key = _KEY_OF_HEADING[" ".join((heading["colon"] or heading["bare"]).upper().split())]
        parts = (sections.get(key, ""), text[heading.end() : end].strip())
        sections[key] = "\n".join(part for part in parts if part)
    return sections


def side_text(text: str, laterality: Laterality) -> str:
    """Return the sentences of a section that speak of one breast, in their order, separated by full stop and blank.

    - A lead-in ("Right breast:", "LEFT -", "Right breast" alone on its line) claims the sentences that follow it, up to
      the next lead-in; "Bilateral:", "Both breasts:", "General:" and "Other:" end its claim.
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
    plain = _BARE_LEAD_IN_LINE.sub(r"\1:", to_plain_unicode(text))
    kept: list[str] = []
    claimed = _BOTH_SIDES
    pending = ""
    for sentence in split_sentences(_LEAD_IN_LINE.sub("\n\n", plain)):
        lead_in = _LEAD_IN.match(sentence)
        if lead_in:
            claimed, pending = _CLAIMED[lead_in["side"] and lead_in["side"].lower()], lead_in.group().strip()
        body = sentence[lead_in.end() :] if lead_in else sentence
        if not body:
            continue
        if laterality in _sides(body, claimed, carries_lead_in=bool(pending)):
            kept.append(f"{pending} {body}".strip())
        pending = ""
    # List items often end without a full stop; between sentences it is added, or the next split would glue them.
    return " ".join([sentence if sentence.endswith(".") else f"{sentence}." for sentence in kept[:-1]] + kept[-1:])


def _sides(sentence: str, claimed: frozenset[Laterality], *, carries_lead_in: bool) -> frozenset[Laterality]:
    if _NAMES_BOTH.search(sentence):
        return _BOTH_SIDES
    if carries_lead_in and len(claimed) == 1:
        return claimed
    named = frozenset(side for side, pattern in _NAMES_SIDE.items() if pattern.search(sentence))
    return named or claimed
