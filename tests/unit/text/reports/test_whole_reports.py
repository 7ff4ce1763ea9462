"""Reports as different people type them: the sections they fall into, and what they state of each breast."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from mammoclip.text import side_facts, split_report

CLEAR = {"mass": 0, "suspicious_calcification": 0, "architectural_distortion": 0}


@dataclass(frozen=True)
class Case:
    report: str
    sections: str  # comma separated
    right: dict[str, int]
    left: dict[str, int]


CASES = {
    "headings in capitals with colons": Case(
        """EXAM: BILATERAL SCREENING MAMMOGRAM
HISTORY: 54-year-old, family history of breast mass.
COMPARISON: 2019, BI-RADS 3.
FINDINGS: The breasts are heterogeneously dense, which may obscure small masses. There is no suspicious mass,
calcification, or architectural distortion in either breast.
IMPRESSION: Negative. BI-RADS category 1.
RECOMMENDATION: Routine annual screening.""",
        "EXAM, HISTORY, COMPARISON, FINDINGS, IMPRESSION, RECOMMENDATION",
        {**CLEAR, "density": 2, "birads": 1},
        {**CLEAR, "density": 2, "birads": 1},
    ),
    "no colons, text under the headings": Case(
        """CLINICAL HX

Palpable mass, left breast.

TECHNIQUE

CC and MLO views.

MAMMOGRAM FINDINGS

There are scattered areas of fibroglandular density. In the left breast there is an irregular mass at 2 o'clock.
The right breast is unremarkable.

OPINION

BI-RADS 5, left breast. BI-RADS 1, right breast.

MANAGEMENT

Biopsy of the left breast.""",
        "HISTORY, TECHNIQUE, FINDINGS, IMPRESSION, RECOMMENDATION",
        {"density": 1, "birads": 1},
        {"density": 1, "mass": 1, "birads": 5},
    ),
    "capitals running into the text": Case(
        """REASON FOR STUDY Screening.
PRIORS None available.
FINDINGS The breasts are almost entirely fatty. No mass or suspicious calcification is seen.
IMPRESSION Normal mammogram, BI-RADS 1.
PLAN Return in one year.""",
        "INDICATION, COMPARISON, FINDINGS, IMPRESSION, RECOMMENDATION",
        {"density": 0, "mass": 0, "suspicious_calcification": 0, "birads": 1},
        {"density": 0, "mass": 0, "suspicious_calcification": 0, "birads": 1},
    ),
    "title case alone on the line": Case(
        """Clinical History
Screening.
Comparison exams
None.
Findings
Extremely dense breasts. Focal asymmetry in the right breast.
Impression and recommendations
Right breast BI-RADS 0. Left breast BI-RADS 2. Additional views of the right breast.""",
        "HISTORY, COMPARISON, FINDINGS, IMPRESSION",
        {"density": 3, "focal_asymmetry": 1, "birads": 0},
        {"density": 3, "birads": 2},
    ),
    "a block for each breast": Case(
        """FINDINGS:
Density: ACR C.
RIGHT BREAST:
- No mass.
- Grouped amorphous calcifications, upper outer quadrant.
LEFT BREAST:
- No mass.
- Benign vascular calcifications.
IMPRESSION:
1. Right: BI-RADS 4.
2. Left: BI-RADS 2.""",
        "FINDINGS, IMPRESSION",
        {"density": 2, "mass": 0, "suspicious_calcification": 1, "birads": 4},
        {"density": 2, "mass": 0, "birads": 2},
    ),
    "a findings section for each breast": Case(
        """RIGHT BREAST FINDINGS: Oval circumscribed mass, stable. No skin thickening.
LEFT BREAST FINDINGS: No mass. Skin thickening and nipple retraction.
BI-RADS ASSESSMENT: Right 2
FINAL ASSESSMENT: Left breast category 4C""",
        "FINDINGS, ASSESSMENT",
        {"mass": 1, "skin_thickening": 0, "birads": 2},
        {"mass": 0, "skin_thickening": 1, "nipple_retraction": 1, "birads": 4},
    ),
    "findings with the breast behind a dash": Case(
        """FINDINGS - RIGHT BREAST:
There is architectural distortion.
FINDINGS - LEFT BREAST:
No architectural distortion.
CONCLUSION: BI-RADS 4 on the right, BI-RADS 1 on the left.""",
        "FINDINGS, IMPRESSION",
        {"architectural_distortion": 1, "birads": 4},
        {"architectural_distortion": 0, "birads": 1},
    ),
    "all on one line": Case(
        "EXAM: Mammogram. COMPARISON: None. FINDINGS: Category B density. Left: 8 mm mass. Right: No mass. "
        "IMPRESSION: BI-RADS 3 left. BI-RADS 1 right. RECOMMENDATION: Follow-up in 6 months.",
        "EXAM, COMPARISON, FINDINGS, IMPRESSION, RECOMMENDATION",
        {"density": 1, "mass": 0, "birads": 1},
        {"density": 1, "mass": 1, "birads": 3},
    ),
    "markdown": Case(
        """## Technique
Two views.
**Breast composition:** b
**Findings:** No masses, calcifications or distortion.
**Impression:** Negative.
**BI-RADS:** 1""",
        "TECHNIQUE, BREAST COMPOSITION, FINDINGS, IMPRESSION",
        {**CLEAR, "density": 1, "birads": 1},
        {**CLEAR, "density": 1, "birads": 1},
    ),
    "numbered headings and rules": Case(
        """1. HISTORY: History of excised left mass.
2. FINDINGS:
======
No change in the mass in the left breast. Enlarged left axillary lymph nodes.
3. IMPRESSION:
BI-RADS IV left, BI-RADS II right.""",
        "HISTORY, FINDINGS, IMPRESSION",
        {"birads": 2},
        {"mass": 1, "suspicious_lymph_node": 1, "birads": 4},
    ),
    "wrapped lines": Case(
        """FINDINGS: There is no
mass. Suspicious
calcifications are not seen. The skin of the right
breast is thickened.
IMPRESSION: BI-RADS category
2.""",
        "FINDINGS, IMPRESSION",
        {"mass": 0, "suspicious_calcification": 0, "skin_thickening": 1, "birads": 2},
        {"mass": 0, "suspicious_calcification": 0, "birads": 2},
    ),
    "capitals throughout": Case(
        """TECHNIQUE: CC AND MLO VIEWS.
FINDINGS: NO MASS IN THE RIGHT BREAST. SPICULATED MASS IN THE LEFT BREAST WITH SKIN RETRACTION.
FINDINGS ARE NEW.
IMPRESSION: LEFT BREAST: BI-RADS 5. RIGHT BREAST: BI-RADS 1.""",
        "TECHNIQUE, FINDINGS, IMPRESSION",
        {"mass": 0, "birads": 1},
        {"mass": 1, "skin_retraction": 1, "birads": 5},
    ),
    "a form": Case(
        """Hx: -
Density: C
Findings:
Masses: none
Calcifications: none
Distortion: none
Assessment: 1""",
        "HISTORY, BREAST COMPOSITION, FINDINGS, ASSESSMENT",
        {**CLEAR, "density": 2, "birads": 1},
        {**CLEAR, "density": 2, "birads": 1},
    ),
    "de-identified, windows line ends": Case(
        "FINDINGS:\r\nCompared with ___, seen by [** Dr. Roe **]. Global asymmetry of the left breast.\r\n"
        "ASSESSMENT/PLAN:\r\nBI-RADS 3 (left). Right BI-RADS 1.\r\nSigned by ___",
        "FINDINGS, IMPRESSION",
        {"birads": 1},
        {"global_asymmetry": 1, "birads": 3},
    ),
    "prose without headings": Case(
        "Dear colleague, no mass was seen. My impression is that all is well: BI-RADS 1.",
        "PREAMBLE",
        {},
        {},
    ),
    "work-up with doubt and advice": Case(
        """INDICATION: Recall for possible mass.
FINDINGS: The asymmetry in the right breast does not persist. Left: A mass cannot be excluded. Grouped calcifications,
suspicious in morphology.
IMPRESSION: Left breast BI-RADS 4B. Right breast BI-RADS 2; previously BI-RADS 0.
FOLLOW-UP: Ultrasound to exclude a mass.""",
        "INDICATION, FINDINGS, IMPRESSION, RECOMMENDATION",
        {"birads": 2},
        {"suspicious_calcification": 1, "birads": 4},
    ),
    "with a printed key": Case(
        """FINDINGS: Left breast mass. Breast density is c.
IMPRESSION: BI-RADS 4.
BI-RADS 0: Incomplete. BI-RADS 1: Negative. BI-RADS 2: Benign. BI-RADS 3: Probably benign. BI-RADS 4: Suspicious.
BI-RADS 5: Malignant. BI-RADS 6: Known malignancy.""",
        "FINDINGS, IMPRESSION",
        {"density": 2, "birads": 4},
        {"density": 2, "mass": 1, "birads": 4},
    ),
}


@pytest.mark.parametrize("style", CASES)
def test_a_report_falls_into_its_sections(style: str) -> None:
    assert list(split_report(CASES[style].report)) == CASES[style].sections.split(", ")


@pytest.mark.parametrize("style", CASES)
def test_a_report_states_its_facts_of_each_breast(style: str) -> None:
    sections = split_report(CASES[style].report)
    assert side_facts(sections, "R") == CASES[style].right
    assert side_facts(sections, "L") == CASES[style].left
