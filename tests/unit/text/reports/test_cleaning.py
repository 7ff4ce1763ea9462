from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammoclip.text import Mode, clean_section, clean_sentences, normalise_birads

MODES: tuple[Mode, ...] = ("compat", "strict")


def reference_clean(text: str) -> str:
    """The published cleaning, written out step by step."""
    kept = []
    for sentence in text.replace("\n", " ").split("."):
        tokens = [re.sub(r"[^\x00-\x7f]", "", token) for token in re.findall(r"\w+|[^\w\s]+", sentence.lower())]
        tokens = [token for token in tokens if token != ""]
        if len(tokens) > 2:
            kept.append(" ".join(tokens))
    return " ".join(kept)


@given(st.text(min_size=1))
def test_compat_follows_the_published_steps_on_any_text(text: str) -> None:
    assert clean_section(text, "compat") == reference_clean(text)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("missing", [None, ""])
def test_missing_text_is_one_blank(missing: str | None, mode: Mode) -> None:
    assert clean_section(missing, mode) == " "
    assert clean_sentences(missing, mode) == []


@pytest.mark.parametrize("mode", MODES)
def test_sentences_of_two_tokens_are_dropped_and_of_three_kept(mode: Mode) -> None:
    assert clean_section("No mass. No mass seen.", mode) == "no mass seen"
    assert clean_section("Benign.", mode) == ""


@pytest.mark.parametrize("mode", MODES)
def test_punctuation_becomes_tokens_and_line_breaks_blanks(mode: Mode) -> None:
    assert clean_section("Mass (left),\nat 2 o'clock!", mode) == "mass ( left ), at 2 o ' clock !"


def test_compat_cuts_at_decimal_points_and_strict_does_not() -> None:
    text = "There is a 1.5 cm mass."
    assert clean_section(text, "compat") == "there is a 1 5 cm mass"
    assert clean_section(text, "strict") == "there is a 1.5 cm mass"
    assert clean_section("Mass is 1.5 cm", "compat") == "mass is 1"


def test_compat_cuts_at_abbreviations_and_strict_does_not() -> None:
    text = "Seen by Dr. Roe."
    assert clean_section(text, "compat") == "seen by dr"
    assert clean_section(text, "strict") == "seen by dr roe"


def test_compat_deletes_accented_letters_and_strict_resolves_them() -> None:
    text = "Caf\u00e9-au-lait spot \u2013 seen"
    assert clean_section(text, "compat") == "caf - au - lait spot seen"
    assert clean_section(text, "strict") == "cafe - au - lait spot - seen"


def test_default_mode_is_strict() -> None:
    assert clean_section("Mass of 1.5 cm") == clean_section("Mass of 1.5 cm", "strict")


@pytest.mark.parametrize("mode", MODES)
@given(text=st.text())
def test_result_is_lower_case_ascii_with_single_blanks(mode: Mode, text: str) -> None:
    cleaned = clean_section(text, mode)
    assert cleaned.isascii() and cleaned == cleaned.lower()
    assert cleaned == " " or cleaned == " ".join(cleaned.split())


@given(st.text(min_size=1))
def test_section_is_the_sentences_joined(text: str) -> None:
    assert clean_section(text) == " ".join(clean_sentences(text))


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="compat"):
        clean_section("text", "loose")  # type: ignore[arg-type]


def test_birads_becomes_one_word() -> None:
    for mode in MODES:
        assert normalise_birads("Category BI-RADS 2", mode) == "Category BIRADS 2"
    assert (
        normalise_birads("Bi-Rads 2, BI\u2011RADS 3, BI RADS 4, birads 5") == "BIRADS 2, BIRADS 3, BIRADS 4, BIRADS 5"
    )
    assert normalise_birads("Bi-Rads 2", "compat") == "Bi-Rads 2"


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Seen by ___ on the left.", "seen by on the left"),
        ("Seen by __ on the left.", "seen by on the left"),
        ("Seen by [REDACTED] today here.", "seen by today here"),
        ("Mrs. [NAME] has no mass.", "mrs has no mass"),
        ("Ms. [Patient Name 12] has no mass.", "ms has no mass"),
        ("On [**2120-1-1**] no mass seen.", "on no mass seen"),
        ("Dictated by [** Dr. Smith **] for the clinic.", "dictated by for the clinic"),
        ("Compared with <DATE> and <DATE_2> studies.", "compared with and studies"),
        ("Told <PERSON> by phone.", "told by phone"),
        ("A XXXX of XX/XX/XXXX was compared.", "a of was compared"),
        ("{{NAME}} was told today.", "was told today"),
        ("\uff3bREDACTED\uff3d has no mass.", "has no mass"),
        ("___", ""),
    ],
)
def test_strict_removes_placeholders_of_deidentification(text: str, cleaned: str) -> None:
    assert clean_section(text, "strict") == cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Mass of <5 mm is seen.", "mass of < 5 mm is seen"),
        ("Mass < 1 cm and > 2 cm.", "mass < 1 cm and > 2 cm"),
        ("See the image [1] here.", "see the image [ 1 ] here"),
        ("[LEFT BREAST] No mass seen.", "[ left breast ] no mass seen"),
        ("The XX views are normal.", "the xx views are normal"),
        ("The a_b name stays.", "the a_b name stays"),
        ("Date of the exam at age 50.", "date of the exam at age 50"),
    ],
)
def test_what_only_resembles_a_placeholder_stays(text: str, cleaned: str) -> None:
    assert clean_section(text, "strict") == cleaned


def test_compat_keeps_placeholders_as_the_published_cleaning_does() -> None:
    assert clean_section("Seen by ___ on [REDACTED].", "compat") == "seen by ___ on [ redacted ]"


PLACEHOLDERS = ("___", "[REDACTED]", "[NAME]", "[** Dr. Roe **]", "[**2120-1-1**]", "<DATE>", "<PERSON>", "XXXX")


@given(st.lists(st.sampled_from([*PLACEHOLDERS, "mass", "No", "seen.", "1.5 cm", "\n", "-", "(left)", "caf\u00e9"])))
def test_strict_text_holds_the_words_and_no_placeholder(pieces: list[str]) -> None:
    cleaned = clean_section(" ".join(pieces), "strict")
    words = cleaned.split()
    assert not {"redacted", "name", "roe", "dr", "date", "person", "xxxx", "2120"} & set(words)
    assert not any(mark in cleaned for mark in ("__", "[", "]", "**", "<", ">"))
    assert words.count("mass") <= pieces.count("mass")
