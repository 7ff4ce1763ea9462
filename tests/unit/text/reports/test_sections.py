from __future__ import annotations

import re
from collections import Counter

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


@pytest.mark.parametrize(
    ("heading", "key"),
    [
        ("CLINICAL HX", "HISTORY"),
        ("HX", "HISTORY"),
        ("CLINICAL HISTORY/INDICATION", "HISTORY"),
        ("REASON FOR STUDY", "INDICATION"),
        ("REASON FOR THIS EXAMINATION", "INDICATION"),
        ("PRIORS", "COMPARISON"),
        ("COMPARISON EXAM", "COMPARISON"),
        ("COMPARISON EXAMS", "COMPARISON"),
        ("TECHNIQUE/PROCEDURE", "TECHNIQUE"),
        ("MAMMOGRAM FINDINGS", "FINDINGS"),
        ("OPINION", "IMPRESSION"),
        ("SUMMARY", "IMPRESSION"),
        ("ASSESSMENT AND PLAN", "IMPRESSION"),
        ("ASSESSMENT/PLAN", "IMPRESSION"),
        ("IMPRESSION & RECOMMENDATION", "IMPRESSION"),
        ("IMPRESSION AND RECOMMENDATIONS", "IMPRESSION"),
        ("FINAL ASSESSMENT", "ASSESSMENT"),
        ("PLAN", "RECOMMENDATION"),
        ("MANAGEMENT", "RECOMMENDATION"),
        ("FOLLOW-UP", "RECOMMENDATION"),
        ("FOLLOW UP", "RECOMMENDATION"),
        ("FOLLOWUP", "RECOMMENDATION"),
        ("BREAST TISSUE DENSITY", "BREAST COMPOSITION"),
    ],
)
def test_other_spellings_open_the_same_section(heading: str, key: str) -> None:
    for line in (f"{heading}: Text.", f"{heading.capitalize()}: Text.", f"{heading}\nText.", f"{heading} - Text."):
        assert split_report(line) == {key: "Text."}


@pytest.mark.parametrize(
    "line",
    [
        "FINDINGS",
        "Findings",
        "FINDINGS :",
        "FINDINGS -",
        "Findings \u2013",
        "**FINDINGS:**",
        "**Findings**",
        "**FINDINGS**:",
        "__FINDINGS__",
        "## Findings",
        "=== FINDINGS ===",
        "[FINDINGS]",
        "1. FINDINGS:",
        "2) FINDINGS",
        "II. FINDINGS:",
        "FINDINGS\n--------",
        "*** FINDINGS ***",
    ],
)
def test_a_heading_may_be_decorated_numbered_or_alone_on_its_line(line: str) -> None:
    assert split_report(f"Preamble.\n{line}\nNo mass.") == {"PREAMBLE": "Preamble.", "FINDINGS": "No mass."}


@pytest.mark.parametrize("text", ["The breasts are dense.", "No mass.", "A mass is seen.", "2 cm mass.", "negative."])
def test_a_heading_in_capitals_may_run_into_its_text(text: str) -> None:
    assert split_report(f"FINDINGS {text}") == {"FINDINGS": text}


@pytest.mark.parametrize(
    "line",
    [
        "IMPRESSION was discussed with the patient.",
        "FINDINGS ARE UNCHANGED.",
        "IMPRESSION of the prior study.",
        "Impression is unchanged.",
        "Findings as above.",
        "The IMPRESSION is benign.",
        "The clinical impression: benign.",
        "findings",
        "findings - none.",
        "- Density: as before.",
        "1. Findings: as before.",
        "BI-RADS 2.",
        "PLANNING: none.",
        "EXAM DATE: 2020",
    ],
)
def test_prose_that_begins_with_a_heading_word_opens_nothing(line: str) -> None:
    assert split_report(f"FINDINGS: No mass.\n{line}") == {"FINDINGS": f"No mass.\n{line}"}


def test_headings_in_capitals_are_found_in_a_report_on_one_line() -> None:
    report = "EXAM: Mammogram. COMPARISON: None. FINDINGS: No mass. IMPRESSION: BI-RADS: 1. PLAN: Routine."
    assert split_report(report) == {
        "EXAM": "Mammogram.",
        "COMPARISON": "None.",
        "FINDINGS": "No mass.",
        "IMPRESSION": "BI-RADS: 1.",
        "RECOMMENDATION": "Routine.",
    }


def test_a_line_on_composition_in_findings_does_not_end_them() -> None:
    report = "FINDINGS:\nBreast density: Extremely dense.\nNo mass.\nBREAST COMPOSITION\nDense."
    assert split_report(report) == {
        "FINDINGS": "Breast density: Extremely dense.\nNo mass.",
        "BREAST COMPOSITION": "Dense.",
    }


def test_a_birads_line_is_an_assessment_with_its_name_and_stays_in_the_impression() -> None:
    assert split_report("FINDINGS: No mass.\nBI-RADS CATEGORY: 1 - Negative") == {
        "FINDINGS": "No mass.",
        "ASSESSMENT": "BI-RADS CATEGORY: 1 - Negative",
    }
    assert split_report("IMPRESSION: Benign.\nBI-RADS: 2") == {"IMPRESSION": "Benign.\nBI-RADS: 2"}


@pytest.mark.parametrize(
    ("right", "left"),
    [
        ("RIGHT BREAST FINDINGS:", "LEFT BREAST FINDINGS:"),
        ("FINDINGS - RIGHT BREAST:", "FINDINGS - LEFT BREAST:"),
        ("FINDINGS (RIGHT BREAST):", "FINDINGS (LEFT BREAST):"),
        ("Right breast findings:", "Left breast findings:"),
        ("RIGHT BREAST FINDINGS", "LEFT BREAST FINDINGS"),
        ("FINDINGS, RIGHT:", "FINDINGS, LEFT:"),
        ("**RIGHT BREAST FINDINGS:**", "**LEFT BREAST FINDINGS:**"),
        ("FINDINGS:\nRIGHT BREAST:", "LEFT BREAST:"),
        ("FINDINGS:\n**Right breast:**", "**Left breast:**"),
        ("FINDINGS:\nRIGHT BREAST", "LEFT BREAST"),
        ("FINDINGS:\nOn the right:", "On the left:"),
    ],
)
def test_headings_with_a_side_keep_it_for_the_side_texts(right: str, left: str) -> None:
    sections = split_report(f"{right}\nCyst. Clip.\n{left}\nMass. Scar.\nIMPRESSION: Benign.")
    assert set(sections) == {"FINDINGS", "IMPRESSION"}
    for side, own, other in (("R", ("Cyst", "Clip"), ("Mass", "Scar")), ("L", ("Mass", "Scar"), ("Cyst", "Clip"))):
        text = side_text(sections["FINDINGS"], side)  # type: ignore[arg-type]
        assert all(word in text for word in own) and not any(word in text for word in other)


def test_a_heading_of_both_breasts_ends_the_claim_of_a_side() -> None:
    findings = split_report("LEFT BREAST FINDINGS: Mass.\nBILATERAL FINDINGS: Vessels calcified. Skin normal.")[
        "FINDINGS"
    ]
    assert side_text(findings, "R") == "BILATERAL: Vessels calcified. Skin normal."


def test_a_lead_in_within_a_sentence_changes_the_side() -> None:
    text = "Right: No mass; left breast: Mass."
    assert (side_text(text, "R"), side_text(text, "L")) == ("Right: No mass.", "left breast: Mass.")


LINES = st.lists(
    st.sampled_from(["FINDINGS: No mass.", "IMPRESSION", "Left breast: Cyst;", "**Plan:** Wait", "FINDINGS Two clips",
                     "BI-RADS: 2", "Density: C", "- Stable", "1. EXAM:", "", "IMPRESSION is benign", "Hx - None"])
)  # fmt: skip


@given(LINES)
def test_splitting_loses_no_words_but_those_of_headings(lines: list[str]) -> None:
    headings = {"FINDINGS", "IMPRESSION", "Plan", "Density", "EXAM", "Hx", "1"}
    expected = Counter(re.findall(r"\w+", "\n".join(lines)))
    kept = Counter(re.findall(r"\w+", "\n".join(split_report("\n".join(lines)).values())))
    assert not kept - expected
    assert set(expected - kept) <= headings


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
