import polars as pl

from mammoclip.artifacts import REPORTS
from mammoclip.paper.texts import TextFacts, describe_texts, draw_text_lengths


def _reports(*texts: tuple[str, list[str]]) -> pl.DataFrame:
    rows = [("d", f"p{number}", f"s{number}", "L", section, text) for number, (section, text) in enumerate(texts)]
    return pl.DataFrame(rows, schema=REPORTS.schema, orient="row")


def test_texts_are_described_by_section() -> None:
    reports = _reports(
        ("IMPRESSION", ["bi-rads 2."]),
        ("FINDINGS", ["no mass is seen.", "fatty."]),
        ("FINDINGS", ["no mass."]),
        ("FINDINGS", ["no mass is seen.", "fatty."]),
    )
    assert describe_texts(reports) == [
        TextFacts("FINDINGS", num_texts=3, num_distinct=2, commonest=2 / 3, words=(2, 5.0, 5)),
        TextFacts("IMPRESSION", num_texts=1, num_distinct=1, commonest=1.0, words=(2, 2.0, 2)),
    ]


def test_the_same_words_in_other_sentences_are_another_text() -> None:
    (facts,) = describe_texts(_reports(("FINDINGS", ["a b", "c"]), ("FINDINGS", ["a", "b c"])))
    assert (facts.num_distinct, facts.commonest) == (2, 0.5)


def test_no_report_has_no_texts() -> None:
    assert describe_texts(REPORTS.empty()) == []


def test_the_histogram_has_a_panel_per_section_that_holds_every_text() -> None:
    lengths = [1, 1, 2, 120]
    reports = _reports(*(("FINDINGS", ["word " * length]) for length in lengths), ("IMPRESSION", ["word"]))
    findings, impression = draw_text_lengths(reports).axes
    assert [axes.get_title(loc="left") for axes in (findings, impression)] == ["FINDINGS", "IMPRESSION"]
    # 121 possible lengths in bins of three words each, the first 0 to 2.
    bars = {bar.get_x(): bar.get_height() for bar in findings.patches if bar.get_height()}
    assert bars == {-0.5: 3, 119.5: 1}
    assert sum(bar.get_height() for bar in impression.patches) == 1
    assert findings.lines[0].get_xdata()[0] == 1.5
