"""Sentences of a radiology report as people type them: wrapped lines, lists, decimal points, abbreviations."""

from __future__ import annotations

import re
import unicodedata

# Words whose full stop does not end a sentence. Units (cm, mm) are left out: reports end sentences with them.
ABBREVIATIONS = (
    "approx", "cat", "cf", "dr", "drs", "dx", "e.g", "fig", "hx", "i.e", "incl", "lt", "mr", "mrs", "ms", "rt", "vs",
)  # fmt: skip

_ABBREVIATION_END = re.compile(rf"(?:\b(?:{'|'.join(map(re.escape, ABBREVIATIONS))})|\b[a-z]\.[a-z])\.$", re.IGNORECASE)
_LONGEST_ABBREVIATION = max(map(len, ABBREVIATIONS)) + len(".")
_LINE_BREAK = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
_TYPOGRAPHY = str.maketrans(
    {
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033", '"'),
        "\u2044": "/",  # fraction slash
        "\u00d7": "x",  # multiplication sign
    }
)
_VULGAR_FRACTION = re.compile("(?<=[0-9])(?=[\u00bc-\u00be\u2150-\u215e])")
_BULLET = re.compile(r"[ \t]*[-*•‣▪·][ \t]+")
_LIST_NUMBER = re.compile(r"[ \t]*(\d{1,2})[.)][ \t]+(?=\D)")
_LIST_ITEM = re.compile(rf"^(?:{_BULLET.pattern}|{_LIST_NUMBER.pattern})", re.MULTILINE)
_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
# Before a blank, or before a letter where the blank was forgotten ("seen.No mass"), unless after an initial ("e.g").
# A run of full stops is tried from its first one only (behind an initial from its second): the search stays linear.
_FULL_STOP = re.compile(
    r"""\.(?: (?<!\.\.) \.*+ ["')\]]* (?=\s|$)
            | (?<!\.\.) (?<!\b[A-Za-z]\.) \.*+ (?=[A-Za-z])
            | (?<=\b[A-Za-z]\.\.) \.*+ (?=[A-Za-z]) )""",
    re.VERBOSE,
)


def to_plain_unicode(text: str) -> str:
    r"""Return ``text`` with one kind of line break, blank, dash and quote.

    Line breaks of every platform become ``\n``; characters are composed and compatibility forms resolved (Unicode NFKC:
    no-break blank, full-width colon, ellipsis, superscripts); invisible characters (byte order mark, soft hyphen,
    zero-width blank) go; typographic dashes and quotes become their ASCII forms.

    >>> to_plain_unicode("FINDINGS\uff1a\u00a01\u00bd cm \u2013 stable\r\n")
    'FINDINGS: 1 1/2 cm - stable\n'
    """
    text = _LINE_BREAK.sub("\n", text)
    if text.isascii():
        return text
    text = _VULGAR_FRACTION.sub(" ", text)
    # Typography comes first as well: NFKC resolves the double prime to two single ones.
    text = unicodedata.normalize("NFKC", text.translate(_TYPOGRAPHY)).translate(_TYPOGRAPHY)
    return _INVISIBLE.sub("", text)


def split_sentences(text: str) -> list[str]:
    """Cut report text into sentences, each on one line, with its own full stop, in their order.

    A sentence ends at a full stop, at a blank line and before a list item (``-``, ``*``, a bullet, or ``1.`` ``2.`` ...
    in sequence); list marks are dropped. It does not end at a plain line break, at a decimal point or after an
    abbreviation (`ABBREVIATIONS`, dotted initials such as "p.m."): rather two sentences glued than a measurement cut.

    >>> split_sentences("1. Mass of 1.5 cm, seen by Dr. Roe.\\n2. BI-RADS\\n4. Biopsy.")
    ['Mass of 1.5 cm, seen by Dr. Roe.', 'BI-RADS 4.', 'Biopsy.']
    """
    sentences: list[str] = []
    for paragraph in _PARAGRAPH.split(_break_before_list_items(to_plain_unicode(text))):
        line = " ".join(paragraph.split())
        start = 0
        for stop in _FULL_STOP.finditer(line):
            # Only the last characters are looked at: a report of nothing but abbreviations must not take forever.
            window = max(start, stop.end() - _LONGEST_ABBREVIATION)
            if stop.end() < len(line) and _ABBREVIATION_END.search(line, window, stop.end()):
                continue
            sentences.append(line[start : stop.end()].strip())
            start = stop.end()
        sentences.append(line[start:].strip())
    return [sentence for sentence in sentences if sentence.strip(". ")]


def _break_before_list_items(text: str) -> str:
    # "category\n2. Biopsy" is a wrapped line and its 2 must survive: a number is a list mark only in sequence from a 1
    # that follows a finished line.
    if not _LIST_ITEM.search(text):
        return text
    lines: list[str] = []
    expected = 0
    for line in text.split("\n"):
        if mark := _BULLET.match(line):
            lines += ["", line[mark.end() :]]
        elif (mark := _LIST_NUMBER.match(line)) and _continues_list(int(mark.group(1)), expected, lines):
            expected = int(mark.group(1)) + 1
            lines += ["", line[mark.end() :]]
        else:
            lines.append(line)
    return "\n".join(lines)


def _continues_list(number: int, expected: int, lines: list[str]) -> bool:
    previous = lines[-1].rstrip() if lines else ""
    return number == expected or (number == 1 and (not previous or previous[-1] in ".:;-"))
