"""Headings of report sections: their spellings, and the lines of a report that are one."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

HEADINGS: dict[str, tuple[str, ...]] = {
    "EXAM": ("EXAMINATION", "EXAM DESCRIPTION", "EXAM TYPE", "EXAM PERFORMED", "PROCEDURE", "STUDY", "TYPE OF EXAM"),
    "INDICATION": ("INDICATIONS", "INDICATION FOR EXAM", "CLINICAL INDICATION", "CLINICAL INDICATIONS",
                   "STUDY INDICATION", "REASON FOR EXAM", "REASON FOR THE EXAM", "REASON FOR THIS EXAM",
                   "REASON FOR EXAMINATION", "REASON FOR THE EXAMINATION", "REASON FOR THIS EXAMINATION",
                   "REASON FOR STUDY", "REASON FOR VISIT"),
    "HISTORY": ("HX", "CLINICAL HISTORY", "CLINICAL HX", "CLINICAL INFORMATION", "CLINICAL DATA", "CLINICAL DETAILS",
                "PATIENT HISTORY", "MEDICAL HISTORY", "BREAST HISTORY", "FAMILY HISTORY", "RELEVANT HISTORY",
                "HISTORY AND INDICATION", "CLINICAL HISTORY AND INDICATION"),
    "TECHNIQUE": ("TECHNIQUES", "TECHNIQUE AND PROCEDURE", "PROCEDURE AND TECHNIQUE", "EXAM TECHNIQUE", "VIEWS",
                  "VIEWS OBTAINED"),
    "COMPARISON": ("COMPARISONS", "COMPARISON STUDY", "COMPARISON STUDIES", "COMPARISON EXAM", "COMPARISON EXAMS",
                   "COMPARISON EXAMINATION", "COMPARISON EXAMINATIONS", "PRIORS", "PRIOR STUDY", "PRIOR STUDIES",
                   "PRIOR EXAM", "PRIOR EXAMS", "PRIOR MAMMOGRAM", "PRIOR MAMMOGRAMS", "PREVIOUS STUDIES",
                   "PREVIOUS EXAMS"),
    "BREAST COMPOSITION": ("COMPOSITION", "DENSITY", "BREAST DENSITY", "BREAST TISSUE", "BREAST TISSUE DENSITY",
                           "BREAST TISSUE COMPOSITION", "TISSUE DENSITY", "TISSUE COMPOSITION", "PARENCHYMA",
                           "BREAST PARENCHYMA", "PARENCHYMAL PATTERN", "ACR DENSITY", "BI-RADS DENSITY"),
    "FINDINGS": ("FINDING", "MAMMOGRAPHIC FINDINGS", "MAMMOGRAM FINDINGS", "MAMMOGRAPHY FINDINGS", "IMAGING FINDINGS",
                 "BREAST FINDINGS", "FINDINGS AND IMPRESSION", "OBSERVATIONS", "RESULTS"),
    "IMPRESSION": ("IMPRESSIONS", "FINAL IMPRESSION", "OVERALL IMPRESSION", "IMPRESSION AND PLAN",
                   "IMPRESSION AND RECOMMENDATION", "IMPRESSION AND RECOMMENDATIONS", "IMPRESSION AND ASSESSMENT",
                   "ASSESSMENT AND PLAN", "ASSESSMENT AND RECOMMENDATION", "ASSESSMENT AND RECOMMENDATIONS",
                   "CONCLUSION", "CONCLUSIONS", "CONCLUSION AND RECOMMENDATION", "CONCLUSION AND RECOMMENDATIONS",
                   "SUMMARY", "SUMMARY AND RECOMMENDATION", "SUMMARY AND RECOMMENDATIONS", "OPINION",
                   "INTERPRETATION"),
    "ASSESSMENT": ("FINAL ASSESSMENT", "OVERALL ASSESSMENT", "ASSESSMENT CATEGORY", "FINAL ASSESSMENT CATEGORY",
                   "BI-RADS", "BI-RADS CATEGORY", "BI-RADS ASSESSMENT", "BI-RADS ASSESSMENT CATEGORY",
                   "BI-RADS FINAL ASSESSMENT", "ACR BI-RADS", "ACR BI-RADS CATEGORY", "ACR BI-RADS ASSESSMENT",
                   "OVERALL BI-RADS", "FINAL BI-RADS"),
    "RECOMMENDATION": ("RECOMMENDATIONS", "PLAN", "MANAGEMENT", "MANAGEMENT RECOMMENDATION",
                       "MANAGEMENT RECOMMENDATIONS", "FOLLOW-UP", "FOLLOW-UP RECOMMENDATION",
                       "FOLLOW-UP RECOMMENDATIONS", "RECOMMENDED FOLLOW-UP"),
    "ADDENDUM": ("ADDENDA",),
}  # fmt: skip
"""Section key -> other headings that open the same section. AND is also written "&" or "/"."""


class Heading(NamedTuple):
    """A heading found at the start of a line.

    Attributes:
        key: the section it opens, a key of `HEADINGS`.
        text: what the line gives to the section: the words after the heading, after a lead-in if the heading names a
            side ("RIGHT BREAST FINDINGS: Mass" gives "RIGHT BREAST: Mass"). A BI-RADS heading is part of its text,
            since the number behind it says little alone.
        is_alone: nothing follows the heading on its line.
        names_birads: it opens ASSESSMENT by the name of BI-RADS.
    """

    key: str
    text: str
    is_alone: bool
    names_birads: bool


@lru_cache(maxsize=1024)
def _letters(heading: str) -> str:
    return "".join(filter(str.isalpha, heading.upper().replace("&", "AND").replace("/", "AND")))


def _pattern(heading: str) -> str:
    words = heading.replace("-", "[- \t]?").replace(" AND ", "(?:[ \t]+AND[ \t]+|[ \t]*[&/][ \t]*)")
    return re.sub(r"(?<=[A-Z]) (?=[A-Z])", "[ \t]+", words)


_KEY_OF = {_letters(heading): key for key, others in HEADINGS.items() for heading in (key, *others)}
_SPELLINGS = sorted({heading for key, others in HEADINGS.items() for heading in (key, *others)}, key=len, reverse=True)
_ANY = "|".join(map(_pattern, _SPELLINGS))
_SIDE = r"(?:right|left)(?:[ \t]+(?:breast|side|mammogram))?|both[ \t]+breasts|bilateral(?:[ \t]+breasts)?"
_CLOSING = r"[ \t]*+[#=*_~\]]*+[ \t]*+"
# "* " and "- " are list marks, not decoration; a list number counts as one unless the heading is in capitals.
_HEADING = re.compile(
    rf"""[ \t]*+ (?:(?!\*[ \t])[#=*_~\[]++ [ \t]*+)?
    (?P<number> (?:\d{{1,2}}[.)]|[ivx]{{1,4}}\.) [ \t]*+ )?
    (?: (?P<side>{_SIDE}) [ \t]+ )?
    (?P<name>{_ANY}) (?![a-z])
    (?: [ \t]*+ [-,(]? [ \t]*+ (?P<side_after>{_SIDE}) [ \t]*+ \)? (?={_CLOSING}(?::|-+(?:\s|$)|$)) )?
    (?P<sign>{_CLOSING} (?: : | -+(?=\s|$) | $ ))? {_CLOSING}""",
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)
# What may follow a heading in capitals without any sign: not more capitals, and no word that makes it part of a clause.
_OPENING_WORD = re.compile(
    r"""(?!(?:and|are|as|at|by|can|for|from|has|have|in|is|of|on|or|that|to|was|were|which|will|with)\b)
    (?:[A-Z]?[a-z] | [A-Z][ \t]+[a-z] | \d | \()""",
    re.VERBOSE,
)
_FIRST_WORD = re.compile(r"[^A-Za-z]*+(?:[ivxIVX]{1,4}\.[ \t]*+)?(?P<word>[A-Za-z]++)")
_FIRST_WORDS = {"RIGHT", "LEFT", "BOTH", "BILATERAL", "FOLLOWUP", "BIRADS"} | {
    re.split("[- ]", heading)[0] for heading in _SPELLINGS
}
# Behind a full stop or a colon, but not behind the number at the start of a line: that belongs to the heading.
_AFTER_NUMBER = "".join(rf"(?<!^{number}\.)" for number in (r"\d", r"\d\d", "[IVX]", "[IVX]{2}", "[IVX]{3}"))
_INLINE = re.compile(
    rf"(?<=[.:!?]){_AFTER_NUMBER}[ \t]++"
    rf"(?=(?:{'|'.join(_pattern(name) for name in _SPELLINGS if 'BI-RADS' not in name)})[ \t]*+:)",
    re.MULTILINE,
)


def break_before_inline_headings(text: str) -> str:
    r"""Give headings in capitals with a colon a line of their own where a report was written on one line.

    >>> break_before_inline_headings("FINDINGS: No mass. IMPRESSION: Benign.")
    'FINDINGS: No mass.\nIMPRESSION: Benign.'
    """
    return _INLINE.sub("\n", text)


@lru_cache(maxsize=1 << 14)  # reports of one hospital share many lines
def find_heading(line: str) -> Heading | None:
    """Return the heading that a line starts with, or ``None``.

    A heading is followed by a colon (in any case), by a dash or nothing (if it starts with a capital), or - all in
    capitals - by a word that is not in capitals. Decoration may surround it ("**FINDINGS:**", "=== IMPRESSION ===",
    "## Plan"), and a number may precede it if it is in capitals ("1. FINDINGS:").

    >>> find_heading("CLINICAL HX - Screening.")
    Heading(key='HISTORY', text='Screening.', is_alone=False, names_birads=False)
    >>> find_heading("Findings are stable.") is None
    True
    """
    first = _FIRST_WORD.match(line)
    if not first or first["word"].upper() not in _FIRST_WORDS:
        return None
    found = _HEADING.match(line)
    if not found:
        return None
    name, rest = found["name"], line[found.end() :].strip()
    key = _KEY_OF[_letters(name)]
    names_birads = key == "ASSESSMENT" and "BIRADS" in _letters(name)
    if (found["number"] and not name.isupper()) or not _opens(found, rest, only_colon=names_birads):
        return None
    lead_in = found["side"] or found["side_after"] or (name if names_birads else None)
    return Heading(
        key, f"{lead_in}: {rest}".rstrip() if lead_in else rest, is_alone=not rest, names_birads=names_birads
    )


def _opens(found: re.Match[str], rest: str, *, only_colon: bool) -> bool:
    name, sign = found["name"], found["sign"]
    if sign and ":" in sign:
        return True
    if only_colon:
        return False
    if sign is not None:
        return name[0].isupper()
    return name.isupper() and found.string[found.end("name")].isspace() and bool(_OPENING_WORD.match(rest))
