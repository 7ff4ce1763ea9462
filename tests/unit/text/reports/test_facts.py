from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammoclip.datasets.phantom.exam import draw_exam
from mammoclip.text import FINDINGS, Fact, Laterality, clean_section, report_facts, side_facts, side_text, split_report

SIDES: tuple[Laterality, ...] = ("L", "R")


def stated(text: str, section: str = "FINDINGS") -> set[str]:
    """Facts in short: "mass" present, "no mass" denied, "birads 2", "density C", a side as "R mass"."""
    return {short(fact) for fact in report_facts({section: text})}


def short(fact: Fact) -> str:
    name = fact.attribute.replace("_", " ")
    if name == "density":
        words = f"density {'ABCD'[fact.value]}"
    elif name == "birads":
        words = f"birads {fact.value}"
    else:
        words = name if fact.value == 1 else f"no {name}"
    return f"{fact.laterality} {words}" if fact.laterality else words


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("There is an irregular spiculated mass.", {"mass"}),
        ("Two circumscribed masses are seen.", {"mass"}),
        ("A 5 mm nodule is noted.", {"mass"}),
        ("Stable benign-appearing mass.", {"mass"}),
        ("There is a 2 mm lesion.", set()),
        ("Mass effect on the implant is unchanged.", set()),
        ("No non-mass enhancement.", set()),
        ("Marker over the palpable mass.", set()),
        ("Architectural distortion is present.", {"architectural distortion"}),
        ("There is subtle distortion.", {"architectural distortion"}),
        ("There is an asymmetry.", {"asymmetry"}),
        ("An asymmetric density is seen.", {"asymmetry"}),
        ("There is a focal asymmetry.", {"focal asymmetry"}),
        ("There is a global asymmetry.", {"global asymmetry"}),
        ("A developing asymmetry is noted.", {"asymmetry"}),
        ("No focal or global asymmetry.", {"no focal asymmetry", "no global asymmetry"}),
        ("Nipple retraction and skin thickening are seen.", {"nipple retraction", "skin thickening"}),
        ("The nipple is retracted.", {"nipple retraction"}),
        ("The nipple of the breast is not retracted.", {"no nipple retraction"}),
        ("Chronic nipple inversion.", set()),
        ("No skin or nipple retraction.", {"no skin retraction", "no nipple retraction"}),
        ("No skin thickening or retraction.", {"no skin thickening", "no skin retraction"}),
        ("There is skin dimpling.", {"skin retraction"}),
        ("The skin is thickened.", {"skin thickening"}),
    ],
)
def test_findings_are_known_by_the_words_of_the_lexicon(sentence: str, expected: set[str]) -> None:
    assert stated(sentence) == expected


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("Suspicious calcifications are seen.", {"suspicious calcification"}),
        ("Grouped amorphous calcifications.", {"suspicious calcification"}),
        ("A cluster of fine pleomorphic microcalcifications.", {"suspicious calcification"}),
        ("Coarse heterogeneous calcifications.", {"suspicious calcification"}),
        ("Calcifications in a segmental distribution.", {"suspicious calcification"}),
        ("Calcifications, which are fine linear, in the upper outer quadrant.", {"suspicious calcification"}),
        ("Probably benign grouped calcifications.", {"suspicious calcification"}),
        ("No suspicious calcifications.", {"no suspicious calcification"}),
        ("No calcifications.", {"no suspicious calcification"}),
        ("The calcifications are not suspicious.", {"no suspicious calcification"}),
        ("Calcifications are present.", set()),
        ("Scattered benign calcifications.", set()),
        ("Coarse, popcorn calcification.", set()),
        ("Linear vascular calcifications.", set()),
        ("Calcifications are present, typically benign.", set()),
        ("No benign calcifications.", set()),
        ("Suspicious mass with benign calcifications.", {"mass"}),
        ("Calcifications and a suspicious mass.", {"mass"}),
        ("No suspicious mass; vascular calcifications.", {"no mass"}),
        ("An enlarged axillary lymph node.", {"suspicious lymph node"}),
        ("Axillary lymphadenopathy.", {"suspicious lymph node"}),
        ("The axillary lymph nodes appear abnormal.", {"suspicious lymph node"}),
        ("The axillary lymph nodes are not enlarged.", {"no suspicious lymph node"}),
        ("No axillary adenopathy.", {"no suspicious lymph node"}),
        ("Normal intramammary lymph node.", set()),
        ("Axillary lymph nodes are unremarkable.", set()),
        ("An intramammary lymph node near the suspicious mass.", {"mass"}),
    ],
)
def test_calcifications_and_lymph_nodes_are_findings_only_when_suspicious(sentence: str, expected: set[str]) -> None:
    assert stated(sentence) == expected


NO_TRIAD = {"no mass", "no suspicious calcification", "no architectural distortion"}


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("No mass, suspicious calcification or architectural distortion.", NO_TRIAD),
        ("There is no evidence of a mass, calcification, or distortion.", NO_TRIAD),
        ("Without suspicious masses, calcifications or architectural distortion.", NO_TRIAD),
        ("A mass, suspicious calcification or architectural distortion is not seen.", NO_TRIAD),
        ("Neither a mass nor suspicious calcification is identified.", {"no mass", "no suspicious calcification"}),
        ("Masses are not identified.", {"no mass"}),
        ("Negative for mass or distortion.", {"no mass", "no architectural distortion"}),
        ("Negative for: mass, distortion.", {"no mass", "no architectural distortion"}),
        ("Free of masses.", {"no mass"}),
        ("Absence of skin thickening.", {"no skin thickening"}),
        ("Masses: None.", {"no mass"}),
        ("The views do not show a mass.", {"no mass"}),
        ("No mass, but there is architectural distortion.", {"no mass", "architectural distortion"}),
        ("No calcification; spiculated mass.", {"no suspicious calcification", "mass"}),
        ("No distortion is seen and grouped calcifications are present.",
         {"no architectural distortion", "suspicious calcification"}),
        ("No suspicious finding except for a focal asymmetry.", {"focal asymmetry"}),
        ("No abnormality other than the known mass.", {"mass"}),
        ("No distortion, however a mass is seen.", {"no architectural distortion", "mass"}),
        ("A mass is present and suspicious calcifications are not seen.", {"mass", "no suspicious calcification"}),
        ("Mass without skin retraction.", {"mass", "no skin retraction"}),
    ],
)  # fmt: skip
def test_a_denial_reaches_as_far_as_its_clause(sentence: str, expected: set[str]) -> None:
    assert stated(sentence) == expected


@pytest.mark.parametrize(
    "sentence",
    [
        "No change in the mass.",
        "No significant interval change in the mass.",
        "No increase in size of the mass.",
        "The mass is stable without suspicious change.",
        "The mass has not changed.",
        "The mass has not significantly increased.",
        "The previously seen mass is unchanged.",
    ],
)
def test_what_denies_a_change_denies_no_mass(sentence: str) -> None:
    assert stated(sentence) == {"mass"}


@pytest.mark.parametrize(
    "sentence",
    [
        "Dense tissue may obscure small masses.",
        "Dense tissue could hide a mass.",
        "Density lowers the sensitivity of mammography for masses.",
        "Ultrasound to exclude a mass.",
        "Ultrasound is advised to rule out a mass.",
        "A mass cannot be excluded.",
        "A mass is not excluded.",
        "Cannot exclude a mass.",
        "History of mass.",
        "Possible mass.",
        "Questionable irregular mass.",
        "The prior mass has resolved.",
        "The mass was excised.",
        "The previously seen mass is no longer seen.",
        "The mass does not persist on spot compression.",
        "The mass is not clearly seen.",
        "Prior mass.",
        "Superimposed tissue simulating a mass.",
        "No new mass.",
        "No other masses.",
        "Biopsy should not be delayed if a mass is felt.",
        "A negative mammogram should not delay biopsy of a clinically suspicious mass.",
        "Asymmetric tissue versus mass.",
    ],
)
def test_doubt_hypothesis_and_past_give_no_fact(sentence: str) -> None:
    assert stated(sentence) == set()


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("BI-RADS category 4B.", {"birads 4"}),
        ("BIRADS: 2", {"birads 2"}),
        ("BI-RADS 4 (suspicious).", {"birads 4"}),
        ("ACR BI-RADS assessment category 1.", {"birads 1"}),
        ("BI-RADS ASSESSMENT: Category 0", {"birads 0"}),
        ("BI-RADS IV", {"birads 4"}),
        ("BI RADS (6)", {"birads 6"}),
        ("Bi-Rads Cat. 3", {"birads 3"}),
        ("BI\u2011RADS\u00a05", {"birads 5"}),
        ("Assessment: 2", {"birads 2"}),
        ("Category 1: negative.", {"birads 1"}),
        ("BI-RADS density C", {"density C"}),
        ("BI-RADS 5th edition.", set()),
        ("BI-RADS lexicon, 2 views.", set()),
        ("BI-RADS 6 month follow-up", set()),
        ("Previously BI-RADS 3.", set()),
        ("Changed from BI-RADS 3 to BI-RADS 2.", {"birads 2"}),
        ("BI-RADS 1 = negative, 2 = benign, 3 = probably benign, 4 = suspicious.", set()),
    ],
)
def test_birads_is_read_in_its_spellings(sentence: str, expected: set[str]) -> None:
    assert stated(sentence) == expected


def test_a_printed_key_of_categories_states_none_and_hides_none() -> None:
    key = "BI-RADS 0: incomplete. BI-RADS 1: negative. BI-RADS 2: benign. BI-RADS 3: probably benign. "
    key += "BI-RADS 4: suspicious. BI-RADS 5: malignant. BI-RADS 6: known."
    assert stated(key, "IMPRESSION") == set()
    assert stated(f"BI-RADS 2. {key}", "IMPRESSION") == {"birads 2"}


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("The breasts are almost entirely fatty.", {"density A"}),
        ("The breasts are almost entirely replaced by fat.", {"density A"}),
        ("There are scattered areas of fibroglandular density.", {"density B"}),
        ("Scattered fibroglandular tissue.", {"density B"}),
        ("The breasts are heterogeneously dense, which may obscure small masses.", {"density C"}),
        ("Extremely dense breasts.", {"density D"}),
        ("Density C.", {"density C"}),
        ("ACR b", {"density B"}),
        ("The tissue is dense (category c).", {"density C"}),
        ("BI-RADS density D", {"density D"}),
        ("Composition: B", {"density B"}),
        ("ACR density category a.", {"density A"}),
        ("Breast density is a risk factor.", set()),
        ("There is a dense mass.", {"mass"}),
        ("No longer heterogeneously dense.", set()),
        ("A: almost entirely fatty, B: scattered fibroglandular densities, C: heterogeneously dense.", set()),
    ],
)
def test_density_is_read_from_words_and_letters(sentence: str, expected: set[str]) -> None:
    assert stated(sentence) == expected


def test_the_heading_says_what_a_letter_or_number_alone_means() -> None:
    assert stated("C", "BREAST COMPOSITION") == {"density C"}
    assert stated("2 - Benign", "ASSESSMENT") == {"birads 2"}
    assert stated("Right: 4. Left: 1.", "ASSESSMENT") == {"R birads 4", "L birads 1"}
    assert stated("4 mm mass", "ASSESSMENT") == {"mass"}
    assert stated("2", "FINDINGS") == set()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mass in the left breast.", {"L mass"}),
        ("Right breast: No mass. Left breast: Mass.", {"R no mass", "L mass"}),
        ("Right breast: Mass, unlike the left.", {"R mass"}),
        ("No mass in either breast.", {"no mass"}),
        ("Mass in the right breast, no mass in the left breast.", {"R mass", "L no mass"}),
        ("There is a mass in the right breast and no mass in the left breast.", {"R mass", "L no mass"}),
        ("In the right breast there is a mass; in the left, skin thickening.", {"R mass", "L skin thickening"}),
        ("No mass, calcification or distortion in the right or left breast.", NO_TRIAD),
        ("The breasts are extremely dense; there is a mass on the left.", {"density D", "L mass"}),
        ("Right: BI-RADS 1; Left: BI-RADS 4.", {"R birads 1", "L birads 4"}),
        ("BI-RADS 2 on the right, BI-RADS 5 on the left.", {"R birads 2", "L birads 5"}),
        ("BI-RADS: Right 2. BI-RADS: Left 4.", {"R birads 2", "L birads 4"}),
        ("On the left: Mass. No distortion.", {"L mass", "L no architectural distortion"}),
        ("LMLO: grouped calcifications.", {"L suspicious calcification"}),
        ("Left breast: Mass. Bilateral: No skin thickening.", {"L mass", "no skin thickening"}),
    ],
)
def test_a_fact_belongs_to_the_breast_that_it_is_said_of(text: str, expected: set[str]) -> None:
    assert stated(text) == expected


def test_sections_on_the_past_are_not_read() -> None:
    past = ("HISTORY", "COMPARISON", "TECHNIQUE", "INDICATION", "PREAMBLE", "EXAM", "ADDENDUM")
    assert report_facts(dict.fromkeys(past, "Mass. BI-RADS 4. Extremely dense.")) == []


def test_a_finding_that_is_affirmed_and_denied_is_present() -> None:
    sections = {"FINDINGS": "No mass. Left breast: Spiculated mass.", "IMPRESSION": "No suspicious mass on the right."}
    assert side_facts(sections, "L") == {"mass": 1}
    assert side_facts(sections, "R") == {"mass": 0}


def test_birads_of_a_breast_is_its_gravest_and_else_that_of_the_exam() -> None:
    sections = {"IMPRESSION": "Overall BI-RADS 4. Right breast: BI-RADS 2. BI-RADS 3. BI-RADS 0."}
    assert side_facts(sections, "R") == {"birads": 0}
    assert side_facts(sections, "L") == {"birads": 4}
    assert side_facts({"IMPRESSION": "BI-RADS 0. BI-RADS 4."}, "L") == {"birads": 4}


def test_density_is_the_first_one_stated() -> None:
    sections = {"FINDINGS": "Heterogeneously dense.", "BREAST COMPOSITION": "Scattered fibroglandular densities."}
    assert side_facts(sections, "L") == {"density": 1}


def test_unknown_laterality_is_refused() -> None:
    with pytest.raises(ValueError, match="'L' or 'R'"):
        side_facts({}, "B")  # type: ignore[arg-type]


@given(st.dictionaries(st.sampled_from(["FINDINGS", "IMPRESSION", "ASSESSMENT"]), st.text()))
def test_any_report_has_facts_in_range(sections: dict[str, str]) -> None:
    ranges = {finding.replace(" ", "_"): range(2) for finding in FINDINGS} | {"density": range(4), "birads": range(7)}
    assert all(fact.value in ranges[fact.attribute] for fact in report_facts(sections))


VOCABULARY = ("no", "mass", "left", "right", "breast:", "BI-RADS", "4", ";", "but", "seen.", "suspicious",
              "calcification", "is", "not", "may", "history of", "density", "C", "\n")  # fmt: skip


@given(st.lists(st.sampled_from(VOCABULARY)))
def test_facts_of_a_side_are_facts_of_the_report_that_do_not_name_the_other_side(words: list[str]) -> None:
    sections = {"FINDINGS": " ".join(words)}
    for side, other in (("L", "R"), ("R", "L")):
        of_others = {(fact.attribute, fact.value) for fact in report_facts(sections) if fact.laterality != other}
        assert set(side_facts(sections, side).items()) <= of_others  # type: ignore[arg-type]


def test_facts_of_phantom_reports_are_the_truth_of_each_side_and_not_of_the_other() -> None:
    disagreements = 0
    for patient in range(200):
        exam = draw_exam(11, patient, rows_px=256, columns_px=208)
        sections = split_report(exam.report)
        truth = {}
        for side in SIDES:
            kinds = {lesion.kind for lesion in exam.lesions[side]}
            truth[side] = {
                "mass": int("Mass" in kinds),
                "suspicious_calcification": int("Suspicious Calcification" in kinds),
                "density": "ABCD".index(exam.density),
                "birads": exam.birads[side],
            }
        assert {side: side_facts(sections, side) for side in SIDES} == truth, exam.report
        disagreements += truth["L"] != truth["R"]
    assert disagreements > 100


ADVERSARIAL = (
    "no ", "no mass ", "BI-RADS ", "BI-RADS 2 ", "category ", "density ", "evidence of ", "be ", "left, right, ",
    "suspicious calcifications ", "there is a mass in the left breast and no calcification ", "Dr. ", "FINDINGS: ",
    "RIGHT BREAST: ", "1. a\n", "* ", "\n ", "\t", "(", ".", "..x", "_", "[**", "<date", "X",
)  # fmt: skip


@pytest.mark.parametrize("unit", ADVERSARIAL)
def test_a_hundred_thousand_characters_take_no_longer_than_they_should(unit: str) -> None:
    text = unit * (100_000 // len(unit)) + "1"
    started = time.process_time()
    split_report(text)
    side_text(text, "L")
    clean_section(text)
    side_facts({"FINDINGS": text, "IMPRESSION": text}, "L")
    assert time.process_time() - started < 2.0
