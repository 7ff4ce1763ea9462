from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from mammoclip.data import report_texts
from mammoclip.data.report_texts import MAX_CHARACTERS, ReadReports, read_reports
from mammoclip.datasets import base

IMAGES = pl.DataFrame(
    [("p", "s", side) for side in "LLRR"] + [("q", "t", "L")],
    schema=["patient_id", "study_id", "laterality"],
    orient="row",
)
REPORT = """EXAM: Mammogram.
FINDINGS:
The breasts are heterogeneously dense.
Right breast: No mass is seen.
Left breast: Spiculated mass of 1.5 cm in the upper outer quadrant. Suspicious calcifications are seen.
IMPRESSION:
Right breast: BI-RADS 1, negative.
Left breast: BI-RADS 5, highly suggestive of malignancy.
"""


def read(
    *reports: tuple[str, str, str | None, str, str | None], mode: Any = "strict", processes: int = 1
) -> ReadReports:
    rows = [(*report, f"reports.csv row {number}") for number, report in enumerate(reports, start=2)]
    return read_reports(pl.DataFrame(rows, schema=base.REPORTS, orient="row"), IMAGES, mode, processes)


def sections(found: ReadReports) -> list[tuple[Any, ...]]:
    return found.sections.select("laterality", "section", "sentences").rows()


def test_a_report_is_cut_into_sections_and_sides() -> None:
    dense = "the breasts are heterogeneously dense"
    assert sorted(sections(read(("p", "s", None, "REPORT", REPORT)))) == [
        ("L", "FINDINGS", [dense, "left breast : spiculated mass of 1.5 cm in the upper outer quadrant",
                           "suspicious calcifications are seen"]),
        ("L", "IMPRESSION", ["left breast : birads 5 , highly suggestive of malignancy"]),
        ("R", "FINDINGS", [dense, "right breast : no mass is seen"]),
        ("R", "IMPRESSION", ["right breast : birads 1 , negative"]),
    ]  # fmt: skip


def test_what_it_says_of_each_side_is_read() -> None:
    found = read(("p", "s", None, "REPORT", REPORT))
    assert set(found.facts["source"]) == {"reports.csv row 2"}
    said = {side: dict(found.facts.filter(laterality=side).select("attribute", "value").rows()) for side in "LR"}
    assert said == {
        "L": {"density": 2, "mass": 1, "suspicious_calcification": 1, "birads": 5},
        "R": {"density": 2, "mass": 0, "birads": 1},
    }
    assert len(read(("p", "s", None, "REPORT", REPORT), mode="compat").facts) == 0


def test_sections_of_their_own_are_read_together() -> None:
    found = read(
        ("p", "s", "L", "FINDINGS", "An irregular mass is seen."),
        ("p", "s", "L", "IMPRESSION", "BI-RADS 4, suspicious."),
    )
    assert dict(found.facts.select("attribute", "value").rows()) == {"mass": 1, "birads": 4}
    assert [row[1] for row in sections(found)] == ["FINDINGS", "IMPRESSION"]


def test_the_report_of_one_side_loses_what_speaks_of_the_other_alone() -> None:
    text = "A mass is seen. Both breasts are dense. The right breast is normal."
    report = ("p", "s", "L", "FINDINGS", text)
    assert sections(read(report)) == [("L", "FINDINGS", ["a mass is seen", "both breasts are dense"])]
    assert sections(read(report, mode="compat")) == [
        ("L", "FINDINGS", ["a mass is seen", "both breasts are dense", "the right breast is normal"])
    ]


def test_a_section_of_which_nothing_is_left_is_left_out() -> None:
    found = read(
        ("p", "s", "L", "FINDINGS", "No mass. Both breasts are dense."), ("p", "s", "L", "IMPRESSION", "None.")
    )
    assert sections(found) == [("L", "FINDINGS", ["both breasts are dense"])]
    assert len(found.rejects) == 0


def test_the_mode_decides_how_text_is_cleaned() -> None:
    report = ("p", "s", "L", "FINDINGS", "A mass of 1.5 cm is seen.")
    assert sections(read(report))[0][2] == ["a mass of 1.5 cm is seen"]
    assert sections(read(report, mode="compat"))[0][2] == ["a mass of 1", "5 cm is seen"]


def test_the_order_of_equal_sections_is_that_of_the_data_set() -> None:
    reports = [("p", "s", "L", "FINDINGS", f"text number {number:03d} of many") for number in range(200)]
    assert [row[2] for row in sections(read(*reports))] == [[f"text number {n:03d} of many"] for n in range(200)]


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (("p", "gone", "L", "FINDINGS", "A mass is seen."), "report_without_image"),
        (("q", "t", "R", "FINDINGS", "A mass is seen."), "report_without_image"),
        (("q", "s", None, "REPORT", "A mass is seen."), "report_without_image"),
        (("p", "s", "L", "FINDINGS", " \n"), "empty_report"),
        (("p", "s", "L", "FINDINGS", None), "empty_report"),
        (("p", "s", "L", "FINDINGS", "a mass " * (10_000_000 // 7)), "too_long_report"),
    ],
)
def test_a_report_that_cannot_be_used_is_told_and_the_others_go_on(report: Any, reason: str) -> None:
    found = read(("p", "s", "R", "FINDINGS", "A cyst is seen."), report)
    assert sections(found) == [("R", "FINDINGS", ["a cyst is seen"])]
    assert found.rejects.select("path", "reason").rows() == [("reports.csv row 3", reason)]


def test_one_empty_section_is_no_fault() -> None:
    found = read(("p", "s", "L", "FINDINGS", "A mass is seen."), ("p", "s", "L", "IMPRESSION", None))
    assert len(found.rejects) == 0


def test_the_longest_reports_are_read() -> None:
    found = read(("p", "s", "L", "FINDINGS", "a" * MAX_CHARACTERS))
    assert len(found.rejects) == 0


def test_many_reports_are_read_by_several_processes_to_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[Any] = [("p", "s", "L", "FINDINGS", f"A mass of {n} mm is seen.") for n in range(40)]
    reports = [(f"p{n}", f"s{n}", "L", *report[3:]) for n, report in enumerate(reports)]
    frame = pl.DataFrame([(*r, "x") for r in reports], schema=base.REPORTS, orient="row")
    alone = read_reports(frame, frame, "strict", 2)
    monkeypatch.setattr(report_texts, "_PARALLEL", 10)
    together = read_reports(frame, frame, "strict", 2)
    assert_frame_equal(together.sections, alone.sections)
    assert_frame_equal(together.facts, alone.facts)
    assert len(alone.sections) == 40
