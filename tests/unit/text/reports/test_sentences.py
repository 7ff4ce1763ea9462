from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammoclip.text import split_sentences, to_plain_unicode


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No mass. No cyst.", ["No mass.", "No cyst."]),
        ("A 1.5 x .8 cm mass. Stable.", ["A 1.5 x .8 cm mass.", "Stable."]),
        ("Measures 5 mm. Next.", ["Measures 5 mm.", "Next."]),
        ("Approx. 3 cm away, e.g. cysts, per Dr. Roe.", ["Approx. 3 cm away, e.g. cysts, per Dr. Roe."]),
        ("No mass seen.No cyst.", ["No mass seen.", "No cyst."]),
        ("No mass\nis seen.", ["No mass is seen."]),
        ("No mass\n\nNo cyst", ["No mass", "No cyst"]),
        ("- No mass\n\u2022 No cyst", ["No mass", "No cyst"]),
        ("1. Mass.\n2) Cyst", ["Mass.", "Cyst"]),
        ("BI-RADS category\n2. Biopsy.", ["BI-RADS category 2.", "Biopsy."]),
        ("Mass... Cyst.", ["Mass...", "Cyst."]),
        (" . \n ..", []),
    ],
)
def test_sentences_end_where_a_reader_ends_them(text: str, expected: list[str]) -> None:
    assert split_sentences(text) == expected


def test_plain_unicode_unifies_line_ends_blanks_dashes_and_quotes() -> None:
    assert to_plain_unicode("\ufeffa\r\nb\rc\u2028d") == "a\nb\nc\nd"
    assert to_plain_unicode("2\u00a0o\u2019clock \u2013 1\u00bd cm\u00b2") == "2 o'clock - 1 1/2 cm2"


@given(st.text(alphabet="aB1. \n\r-\u00a0\u00e9\u2026"))
def test_splitting_loses_no_letter(text: str) -> None:
    letters = "".join(character for character in text if character.isalpha())
    assert "".join(c for c in "".join(split_sentences(text)) if c.isalpha()) == letters


@given(st.text())
def test_sentences_of_any_text_are_single_stripped_lines(text: str) -> None:
    for sentence in split_sentences(text):
        assert sentence == " ".join(sentence.split()) != ""
