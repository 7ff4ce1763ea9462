"""Cleaning of report sections before tokenisation (reference: Mammo-CLIP, MICCAI 2024, released preprocessing).

Both modes cut a section into sentences, lower-case them, tokenise them into runs of word characters and runs of
punctuation (the pattern of NLTK's ``wordpunct_tokenize``), reduce tokens to ASCII, keep sentences of more than two
tokens and join everything with single blanks. They differ in four points:

=================  ==============================  ======================================================
point              ``compat`` (released code)      ``strict``
=================  ==============================  ======================================================
end of sentence    every full stop: "1.5 cm" and   not at decimal points and abbreviations; also at blank
                   "Dr. Roe" are cut apart         lines and list items (`mammoclip.text.split_sentences`)
numbers            "1.5" becomes "1 5", or is      "1.5" stays one token
                   lost with a short sentence
ASCII              other characters are deleted    resolved to their base first ("é" to "e", "–" to "-"),
                   ("é" leaves nothing)            then what is still not ASCII is deleted
placeholders of    tokens like any other           nothing: runs of underscores, ``[REDACTED]``, ``<DATE>``,
de-identification                                  ``[** Dr. Roe **]``, ``XXXX``
=================  ==============================  ======================================================
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Literal, get_args

from mammoclip.text.reports.sentences import split_sentences, to_plain_unicode

Mode = Literal["compat", "strict"]

MISSING_TEXT = " "
"""What stands for a section that a report does not have: one blank."""

_MIN_TOKENS = 3
_REDACTED_WORDS = (
    "accession", "address", "age", "anonymi[sz]ed", "birth", "city", "contact", "date", "deidentified",
    "de-identified", "dob", "doctor", "email", "facility", "fax", "first", "hospital", "id", "initials", "institution",
    "last", "location", "md", "mrn", "name", "number", "of", "organi[sz]ation", "patient", "person", "phi", "phone",
    "physician", "profession", "provider", "radiologist", "redacted", "removed", "ssn", "state", "time", "url", "zip",
)  # fmt: skip
_REDACTED = "|".join(_REDACTED_WORDS)
# Brackets count only around such words: "[1]", "[LEFT]" and "<5 mm" are text.
_PLACEHOLDER = re.compile(
    rf"""__++
       | \[\*\*[^\[\]]{{0,100}}\*\*\]
       | (?i:(?:\[|<|\{{{{?)[ ]?(?:{_REDACTED})(?:[ _#:-]{{0,3}}(?:{_REDACTED}|\d{{1,9}}))*+[ ]?(?:\]|>|\}}\}}?))
       | XX(?<!\wXX)(?:X++(?:[/-]XX++)*+|(?:[/-]XX++)++)(?!\w)""",
    re.VERBOSE,
)
_WORD_OR_PUNCTUATION = re.compile(r"\w+|[^\w\s]+")
_NUMBER_WORD_OR_PUNCTUATION = re.compile(r"\d*(?:\.\d+)+|\w+|[^\w\s]+")
_BIRADS = re.compile(r"\bBI[\s\u00ad\u2010-\u2015-]?RADS\b", re.IGNORECASE)


def clean_section(text: str | None, mode: Mode = "strict") -> str:
    """Return one report section as lower-case ASCII tokens separated by single blanks.

    A missing section (``None`` or ``""``) is one blank, ``" "``. A section of which no sentence is kept is ``""``.

    Raises:
        ValueError: ``mode`` is neither ``"compat"`` nor ``"strict"``.

    >>> clean_section("There is a 1.5 cm mass. Benign.", "compat")
    'there is a 1 5 cm mass'
    >>> clean_section("There is a 1.5 cm mass. Benign.", "strict")
    'there is a 1.5 cm mass'
    """
    sentences = clean_sentences(text, mode)
    return " ".join(sentences) if text else MISSING_TEXT


def clean_sentences(text: str | None, mode: Mode = "strict") -> list[str]:
    """Return the cleaned sentences that `clean_section` joins; empty for a missing section.

    Cleaning removes full stops, so the joined text cannot be cut into sentences again. Whoever shuffles sentences needs
    this list.

    Raises:
        ValueError: ``mode`` is neither ``"compat"`` nor ``"strict"``.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode is {mode!r}; expected 'compat' or 'strict'.")
    if not text:
        return []
    if mode == "compat":
        cleaned = [_compat_sentence(sentence) for sentence in text.replace("\n", " ").split(".")]
    else:
        # Placeholders go first: "[** Dr. Roe **]" has a full stop that ends no sentence.
        plain = _PLACEHOLDER.sub(" ", to_plain_unicode(text))
        cleaned = [_strict_sentence(sentence) for sentence in split_sentences(plain)]
    return [sentence for sentence in cleaned if sentence]


def normalise_birads(text: str, mode: Mode = "strict") -> str:
    """Write the acronym as one word, so that tokenisation does not cut it; meant for IMPRESSION.

    ``compat`` replaces the exact spelling "BI-RADS" only; ``strict`` any case, with a hyphen, dash, blank or nothing.

    >>> normalise_birads("BI-RADS 2")
    'BIRADS 2'
    """
    return text.replace("BI-RADS", "BIRADS") if mode == "compat" else _BIRADS.sub("BIRADS", text)


def _compat_sentence(sentence: str) -> str:
    tokens = _WORD_OR_PUNCTUATION.findall(sentence.lower())
    if not sentence.isascii():
        tokens = [ascii_token for token in tokens if (ascii_token := _drop_non_ascii(token))]
    return " ".join(tokens) if len(tokens) >= _MIN_TOKENS else ""


@lru_cache(maxsize=1 << 14)  # many sentences are said of many breasts
def _strict_sentence(sentence: str) -> str:
    plain = _drop_non_ascii(unicodedata.normalize("NFKD", sentence.lower()))
    # The full stops left at this point end the sentence or an abbreviation.
    tokens = [token for token in _NUMBER_WORD_OR_PUNCTUATION.findall(plain) if token.strip(".")]
    return " ".join(tokens) if len(tokens) >= _MIN_TOKENS else ""


def _drop_non_ascii(text: str) -> str:
    return text.encode("ascii", "ignore").decode("ascii")
