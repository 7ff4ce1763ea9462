import logging
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoclip.datasets.sheet import REJECTED, Sheet, parse_lists, read_table
from mammoclip.errors import DatasetError


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows(path: Path, required: list[str]) -> list[tuple[object, ...]]:
    return read_table(path, required).drop("_row").rows()


def sheet(tmp_path: Path, content: str) -> Sheet:
    write(tmp_path / "t.csv", content)
    return Sheet(tmp_path, "t.csv", [])


# --- files ------------------------------------------------------------------------------------------------------------


def test_every_column_is_text(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "id,n,list\n007,1.50,\"['a', 'b']\"\n8,,\n")
    assert rows(path, ["id"]) == [("007", "1.50", "['a', 'b']"), ("8", None, None)]


@pytest.mark.parametrize(
    "content",
    ["id,text\n1,é\n", "\ufeffid,text\n1,é\n", "id,text\r\n1,é\r\n", "id,text\n\n1,é\n\n\n", 'id,text\n"1","é"'],
)
def test_spellings_of_the_same_csv(tmp_path: Path, content: str) -> None:
    assert rows(write(tmp_path / "t.csv", content), ["id", "text"]) == [("1", "é")]
    assert rows(write(tmp_path / "t.csv", content.encode("utf-16")), ["id", "text"]) == [("1", "é")]


def test_bytes_of_windows_1252_among_utf_8_are_read_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = "id,text\n1,é ö ü\n".encode() + "2,é ö ü\n".encode("cp1252")
    with caplog.at_level(logging.WARNING):
        assert rows(write(tmp_path / "t.csv", content), ["id"]) == [("1", "é ö ü"), ("2", "é ö ü")]
    assert "t.csv: 3 bytes are no UTF-8; they were read as Windows-1252" in caplog.text


def test_plain_utf_8_is_read_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_table(write(tmp_path / "t.csv", "\ufeffid\né\n"), ["id"])
    assert not caplog.records


def test_a_field_may_hold_commas_quotes_and_line_breaks_and_rows_are_still_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", 'id,text\n1,"FINDINGS: none, ""benign"".\nIMPRESSION: 1"\n\n2,x\n')
    assert read_table(path, ["text"]).select("_row", "text").rows() == [
        (2, 'FINDINGS: none, "benign".\nIMPRESSION: 1'),
        (4, "x"),
    ]


def test_a_cell_of_ten_megabytes_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", f"id,text\n1,{'word ' * 2_000_000}\n")
    assert read_table(path, ["text"])["text"].str.len_bytes().to_list() == [10_000_000]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=rf"{tmp_path}/t\.csv is missing"):
        read_table(tmp_path / "t.csv", [])


def test_a_missing_column_is_named_with_what_is_there(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "id,Text\n1,x\n")
    with pytest.raises(DatasetError, match=r"t\.csv has no column 'text'; found id, Text$"):
        read_table(path, ["id", "text"])


@pytest.mark.parametrize("content", ["", "a,b\n1,2,3\n", 'a,b\n"1,2\n'])
def test_a_file_that_is_no_csv_is_named(tmp_path: Path, content: str) -> None:
    with pytest.raises(DatasetError, match=r"t\.csv is not a readable CSV .* save it as comma-separated UTF-8"):
        read_table(write(tmp_path / "t.csv", content), ["a"])


# --- cells ------------------------------------------------------------------------------------------------------------


def test_numbers_are_finite(tmp_path: Path) -> None:
    table = sheet(tmp_path, "id,n\na,1.5\nb, -2e3 \nc,\nd,nan\ne,inf\nf,one\n")
    table.read_numbers("n")
    assert table.frame["n"].to_list() == [1.5, -2000.0, None, None, None, None]
    assert table.rejected.schema == REJECTED
    assert table.rejected.rows() == [
        (f"t.csv row {row}", "wrong_type", "n should be a number; the cell is left out") for row in (5, 6, 7)
    ]


def test_whole_numbers_have_a_range(tmp_path: Path) -> None:
    table = sheet(tmp_path, "id,n\na,1\nb,1.0\nc,True\nd,false\ne,\nf,0.5\ng,7\nh,-1\ni,99999999999\n")
    table.read_integers("n", low=0, high=6)
    assert table.frame["n"].to_list() == [1, 1, 1, 0, None, None, None, None, None]
    assert table.rejected["path"].to_list() == [f"t.csv row {row}" for row in (7, 8, 9, 10)]
    assert set(table.rejected["detail"]) == {"n should be a whole number from 0 to 6; the cell is left out"}


def test_density_is_a_letter_or_a_number(tmp_path: Path) -> None:
    table = sheet(tmp_path, "id,density\n1,A\n2,d\n3,0\n4,3.0\n5,E\n6,4\n7,\n")
    table.read_density("density")
    assert table.frame["density"].to_list() == [0, 3, 0, 3, None, None, None]
    assert table.rejected["path"].to_list() == ["t.csv row 6", "t.csv row 7"]


def test_what_a_wrong_cell_holds_is_not_repeated(tmp_path: Path) -> None:
    table = sheet(tmp_path, "id,n\n1,Jane Roe\n")
    table.read_integers("n")
    assert "Jane" not in str(table.rejected.rows())


def test_a_row_that_repeats_another_is_told(tmp_path: Path) -> None:
    table = sheet(tmp_path, "id,n\n1,2\n1,3\n1,2\n")
    assert table.rejected.select("path", "reason").rows() == [("t.csv row 4", "duplicate_row")]
    assert len(table.frame) == 3


def test_rows_can_be_put_aside(tmp_path: Path) -> None:
    table = sheet(tmp_path, "id,n\n1,2\n2,\n3,4\n")
    table.drop(pl.col("n") == "2", "unknown_image", "why")
    assert table.frame["id"].to_list() == ["2", "3"]
    assert table.rejected.rows() == [("t.csv row 2", "unknown_image", "why")]


def lists(*texts: str) -> list[list[str] | None]:
    return pl.DataFrame({"x": texts}, schema={"x": pl.String}).select(parse_lists(pl.col("x")))["x"].to_list()


@settings(deadline=None, max_examples=300)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], include_characters=" \n\\\"'"))))
def test_every_list_of_texts_that_python_prints_is_read_back(texts: list[str]) -> None:
    assert lists(str(texts)) == [texts]


@pytest.mark.parametrize("text", ["", "Mass", "['a'", "'a'", "[a]", "[1]", "['a' 'b']", "['a',,]", "('a')", "[['a']]",
                                  "['a'] or 1", "[open('x')]", "[" * 9999])  # fmt: skip
def test_what_is_no_list_of_texts_is_null(text: str) -> None:
    assert lists(text) == [None]
