from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammoclip.text import Laterality, side_text, split_report

SIDES: tuple[Laterality, ...] = ("L", "R")


def test_every_heading_opens_its_section() -> None:
    headings = ["EXAM", "INDICATION", "TECHNIQUE", "COMPARISON", "BREAST COMPOSITION"]
    headings += ["FINDINGS", "IMPRESSION", "RECOMMENDATION"]
    report = "\n".join(f"{heading}:\nText of {heading}." for heading in headings)
    assert split_report(report) == {heading: f"Text of {heading}." for heading in headings}


@pytest.mark.parametrize(
    "report",
    [
        "FINDINGS: No mass.\nIMPRESSION: Benign.",
        "Findings:No mass.\r\nImpression :Benign.",
        "findings\t:\r\rNo mass.\rIMPRESSION\rBenign.",
        "\ufeffFINDINGS\uff1a No mass.\u2028  IMPRESSION:\u00a0Benign.",
        "FINDINGS\n\nNo mass.\n\n\nCONCLUSION: Benign.",
    ],
)
def test_headings_are_found_however_people_type_them(report: str) -> None:
    assert split_report(report) == {"FINDINGS": "No mass.", "IMPRESSION": "Benign."}


def test_text_before_the_first_heading_is_the_preamble() -> None:
    assert split_report("Dear colleague,\nFINDINGS: None.") == {"PREAMBLE": "Dear colleague,", "FINDINGS": "None."}
    assert split_report("No heading at all.") == {"PREAMBLE": "No heading at all."}
    assert split_report(" \n") == {}


def test_a_heading_word_inside_a_sentence_opens_nothing() -> None:
    report = "FINDINGS: The impression: benign.\nFindings are stable.\nRight breast: Mass."
    assert split_report(report) == {"FINDINGS": report.removeprefix("FINDINGS: ")}


def test_empty_sections_stay_and_repeated_sections_are_joined() -> None:
    assert split_report("FINDINGS:\nIMPRESSION: One.\nIMPRESSION: Two.") == {"FINDINGS": "", "IMPRESSION": "One.\nTwo."}


@given(st.text())
def test_any_text_splits_into_stripped_sections(text: str) -> None:
    assert all(section == section.strip() and key.isupper() for key, section in split_report(text).items())


def test_lead_ins_claim_what_follows_them() -> None:
    text = "Dense tissue. Right breast: No mass. No cyst.\r\nLeft breast:Mass at 2.5 cm. Stable."
    assert side_text(text, "R") == "Dense tissue. Right breast: No mass. No cyst."
    assert side_text(text, "L") == "Dense tissue. Left breast: Mass at 2.5 cm. Stable."


def test_lead_ins_work_as_lines_of_their_own_before_lists() -> None:
    text = "RIGHT BREAST\n- No mass\n- No cyst\nLEFT -\n1. Mass\n2. Cyst"
    assert side_text(text, "R") == "RIGHT BREAST: No mass. No cyst"
    assert side_text(text, "L") == "LEFT - Mass. Cyst"


def test_a_neutral_lead_in_ends_the_claim() -> None:
    text = "Left breast: Mass. Bilateral: Vessels calcified. Skin normal."
    assert side_text(text, "R") == "Bilateral: Vessels calcified. Skin normal."


@pytest.mark.parametrize(
    ("sentence", "sides"),
    [
        ("There is a mass in the right breast.", "R"),
        ("Mass in the LEFT breast.", "L"),
        ("Left-sided nipple retraction.", "L"),
        ("Asymmetry on LMLO.", "L"),
        ("Lt. breast cyst.", "L"),
        ("Both masses in the right breast are stable.", "R"),
        ("The right and left breasts are dense.", "LR"),
        ("Bilateral vascular calcification.", "LR"),
        ("The breasts are heterogeneously dense.", "LR"),
        ("Both breasts are dense.", "LR"),
        ("No suspicious finding.", "LR"),
        ("A clip was left in place.", "LR"),
    ],
)
def test_a_sentence_goes_to_the_sides_it_names(sentence: str, sides: str) -> None:
    assert "".join(side for side in SIDES if side_text(sentence, side) == sentence) == sides
    assert all(side_text(sentence, side) in ("", sentence) for side in SIDES)


def test_under_a_lead_in_a_sentence_may_still_name_the_other_side_or_both() -> None:
    text = "Right breast: Mass, unlike the left. The left breast is normal. Axillae are normal bilaterally. Cyst."
    assert side_text(text, "L") == "The left breast is normal. Axillae are normal bilaterally."
    assert side_text(text, "R") == "Right breast: Mass, unlike the left. Axillae are normal bilaterally. Cyst."


@given(
    st.lists(st.sampled_from(["Mass on the left.", "Right breast: Cyst.", "Stable.", "Left: Clip.", "Both breasts."]))
)
def test_every_sentence_reaches_at_least_one_side(sentences: list[str]) -> None:
    left, right = (side_text(" ".join(sentences), side) for side in SIDES)
    for sentence in sentences:
        assert left.count(sentence) + right.count(sentence) >= sentences.count(sentence)


@given(st.text())
def test_any_text_has_sides_and_taking_a_side_does_not_fail(text: str) -> None:
    assert all(isinstance(side_text(text, side), str) for side in SIDES)


def test_unknown_laterality_is_refused() -> None:
    with pytest.raises(ValueError, match="'L' or 'R'"):
        side_text("text", "B")  # type: ignore[arg-type]
