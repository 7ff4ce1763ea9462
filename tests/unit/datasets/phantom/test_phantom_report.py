import re

import numpy as np
import pytest

from mammoclip.datasets.phantom.exam import Exam, draw_exam

SECTIONS = ["EXAM", "INDICATION", "TECHNIQUE", "COMPARISON", "FINDINGS", "IMPRESSION"]
COMPOSITION = {
    "A": "almost entirely fatty",
    "B": "scattered",
    "C": "heterogeneously dense",
    "D": "extremely dense",
}
NEGATION = re.compile(r"\b(no|not|neither|without)\b", re.IGNORECASE)


@pytest.fixture(scope="module")
def exams() -> list[Exam]:
    return [draw_exam(21, index, rows_px=800, columns_px=512) for index in range(1500)]


def sections(report: str) -> dict[str, str]:
    parts = re.split(rf"^({'|'.join(SECTIONS)}):", report, flags=re.MULTILINE)
    assert parts[0] == ""
    return dict(zip(parts[1::2], (part.strip() for part in parts[2::2]), strict=True))


def side_text(exam: Exam, side: str) -> str:
    """What FINDINGS says of one side."""
    right, left = re.split(r"Left breast:", sections(exam.report)["FINDINGS"].split("Right breast:")[1])
    return {"R": right, "L": left}[side].strip()


def stated(text: str, word: str) -> list[bool]:
    """For each sentence with the word: whether it affirms."""
    sentences = re.findall(r"[^.]+\.", text)
    return [not NEGATION.search(sentence) for sentence in sentences if re.search(word, sentence, re.IGNORECASE)]


def test_a_report_has_all_sections_in_order(exams: list[Exam]) -> None:
    for exam in exams:
        assert list(sections(exam.report)) == SECTIONS
        assert all(sections(exam.report).values())


def test_each_side_affirms_what_is_there_and_negates_what_is_not(exams: list[Exam]) -> None:
    for exam in exams:
        for side in ("R", "L"):
            kinds = {lesion.kind for lesion in exam.lesions[side]}
            text = side_text(exam, side)
            assert stated(text, r"\bmass(es)?\b") == ["Mass" in kinds], text
            assert stated(text, "calcification") == ["Suspicious Calcification" in kinds], text


def test_positive_sentences_name_position_depth_shape_and_margin(exams: list[Exam]) -> None:
    for exam in exams:
        for side in ("R", "L"):
            for lesion in exam.lesions[side]:
                word = r"\bmass\b" if lesion.kind == "Mass" else "suspicious"
                (sentence,) = (
                    s
                    for s in re.findall(r"[^.]+\.", side_text(exam, side))
                    if re.search(word, s, re.IGNORECASE) and not NEGATION.search(s)
                )
                for expected in (*lesion.position, lesion.depth_word, lesion.shape, lesion.margin):
                    assert expected in sentence.lower()


def test_calcifications_are_always_called_suspicious(exams: list[Exam]) -> None:
    for exam in exams:
        for side in ("R", "L"):
            for sentence in re.findall(r"[^.]+calcification[^.]*\.", side_text(exam, side)):
                assert "suspicious" in sentence.lower()


def test_impression_gives_the_birads_category_of_each_side(exams: list[Exam]) -> None:
    for exam in exams:
        right, left = sections(exam.report)["IMPRESSION"].splitlines()
        for side, line, name in (("R", right, "right"), ("L", left, "left")):
            assert line.lower().startswith(name)
            assert re.findall(r"BI-?RADS\D*(\d)", line) == [str(exam.birads[side])]


def test_birads_is_at_least_3_exactly_where_there_is_a_finding(exams: list[Exam]) -> None:
    for exam in exams:
        for side, lesions in exam.lesions.items():
            assert (exam.birads[side] >= 3) == bool(lesions)


def test_composition_comes_first_and_names_only_the_exams_density(exams: list[Exam]) -> None:
    for exam in exams:
        first = sections(exam.report)["FINDINGS"].splitlines()[0].lower()
        assert [key for key, words in COMPOSITION.items() if words in first] == [exam.density]
        assert "mass" not in first


def test_no_sentence_would_be_dropped_as_too_short(exams: list[Exam]) -> None:
    """Text cleaning keeps sentences of more than two tokens."""
    for exam in exams:
        for sentence in re.findall(r"[^.]+\.", sections(exam.report)["FINDINGS"]):
            assert len(re.findall(r"\w+|[^\w\s]+", sentence.rstrip("."))) > 2


def test_wording_varies_between_reports(exams: list[Exam]) -> None:
    assert len({exam.report for exam in exams}) == len(exams)
    lines = [line for exam in exams for line in set(sections(exam.report)["FINDINGS"].splitlines())]
    _, counts = np.unique(lines, return_counts=True)
    assert counts.max() < 0.1 * len(exams)


def test_articles_fit_the_next_word(exams: list[Exam]) -> None:
    for exam in exams:
        assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]|  |\{|\}", exam.report), exam.report
