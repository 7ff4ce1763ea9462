from pathlib import Path
from typing import Any

import polars as pl
import polars.testing
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing.parametric import column as any_column
from polars.testing.parametric import dataframes

from mammoclip import artifacts
from mammoclip.artifacts import (
    ATTRIBUTES,
    BREASTS,
    FINDINGS,
    IMAGES,
    INDEX,
    LABELS,
    REJECT_REASONS,
    REJECTS,
    Column,
    Table,
    atomic_path,
    read_table,
    write_table,
    write_text,
)
from mammoclip.errors import ArtifactError

TABLES = {name: table for name, table in vars(artifacts).items() if isinstance(table, Table)}
ATTRIBUTE = pl.DataFrame(
    {"dataset": ["d"], "image_id": ["i"], "attribute": ["mass"], "value": [1], "source": ["table"]}
)


def rows_of(table: Table) -> st.SearchStrategy[pl.DataFrame]:
    frames = dataframes(
        [any_column(name, dtype=column.dtype, allow_null=column.nullable) for name, column in table.columns.items()],
        max_size=4,
        allow_infinity=True,
    )
    return frames.map(with_patients_of_their_own) if "patient_id" in table.columns else frames


def with_patients_of_their_own(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.format("{}{}", pl.int_range(pl.len()), "patient_id").alias("patient_id"))


def read_error(table: Table, path: Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        read_table(table, path)
    return str(caught.value)


def write_raw(frame: pl.DataFrame, path: Path, name: str = "attributes", version: int = 2) -> Path:
    """Write a Parquet file that says it is a table of ours, whatever is in it."""
    frame.write_parquet(path, metadata={"mammoclip.table": name, "mammoclip.version": str(version)})
    return path


@pytest.mark.parametrize("name", TABLES)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_table_is_read_as_it_was_written(tmp_path: Path, name: str, data: st.DataObject) -> None:
    table = TABLES[name]
    frame = data.draw(rows_of(table))
    write_table(frame, table, tmp_path / "t.parquet")
    polars.testing.assert_frame_equal(read_table(table, tmp_path / "t.parquet"), frame)


@pytest.mark.parametrize("name", TABLES)
def test_an_empty_table_keeps_its_types(tmp_path: Path, name: str) -> None:
    table = TABLES[name]
    write_table(table.empty(), table, tmp_path / "t.parquet")
    assert read_table(table, tmp_path / "t.parquet").schema == table.schema


def test_table_names_are_unique_and_every_column_says_what_it_means() -> None:
    assert len({table.name for table in TABLES.values()}) == len(TABLES)
    for table in TABLES.values():
        assert table.version >= 1
        assert all(column.meaning for column in table.columns.values())


def test_the_file_says_its_table_and_version(tmp_path: Path) -> None:
    write_table(ATTRIBUTE, ATTRIBUTES, tmp_path / "t.parquet")
    metadata = pl.read_parquet_metadata(tmp_path / "t.parquet")
    assert (metadata["mammoclip.table"], metadata["mammoclip.version"]) == ("attributes", "2")


def test_columns_come_in_the_published_order_and_others_are_dropped(tmp_path: Path) -> None:
    shuffled = ATTRIBUTE.with_columns(extra=pl.lit(3)).select(
        "extra", "source", "value", "image_id", "attribute", "dataset"
    )
    write_table(shuffled, ATTRIBUTES, tmp_path / "t.parquet")
    assert pl.read_parquet(tmp_path / "t.parquet").columns == list(ATTRIBUTES.columns)
    path = write_raw(shuffled.with_columns(pl.col("value").cast(pl.Int32)), tmp_path / "raw.parquet")
    assert read_table(ATTRIBUTES, path).columns == list(ATTRIBUTES.columns)


def test_a_missing_file_says_which_stage_to_run(tmp_path: Path) -> None:
    for path in (tmp_path / "none.parquet", tmp_path):
        message = read_error(INDEX, path)
        assert str(path) in message and "'index'" in message and "run the stage" in message


@pytest.mark.parametrize("content", [b"", b"hello", b"PAR1" + b"\0" * 40])
def test_a_file_that_is_not_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(content)
    message = read_error(ATTRIBUTES, path)
    assert str(path) in message and "not a readable Parquet file" in message and "rerun" in message


def test_a_file_cut_short_is_not_readable(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_table(ATTRIBUTE, ATTRIBUTES, path)
    content = path.read_bytes()
    for size in range(0, len(content), 37):
        path.write_bytes(content[:size])
        assert "not a readable Parquet file" in read_error(ATTRIBUTES, path)


@pytest.mark.parametrize(
    ("name", "version", "found"),
    [("findings", 2, "'findings' version 2"), ("attributes", 1, "'attributes' version 1")],
)
def test_another_table_or_version_says_what_was_expected_and_found(
    tmp_path: Path, name: str, version: int, found: str
) -> None:
    path = write_raw(ATTRIBUTE.cast({"value": pl.Int32}), tmp_path / "t.parquet", name, version)
    message = read_error(ATTRIBUTES, path)
    assert str(path) in message and "expected table 'attributes' version 2" in message and found in message


def test_a_parquet_file_of_someone_else_is_refused(tmp_path: Path) -> None:
    ATTRIBUTE.cast({"value": pl.Int32}).write_parquet(tmp_path / "t.parquet")
    assert "expected table 'attributes'" in read_error(ATTRIBUTES, tmp_path / "t.parquet")


@pytest.mark.parametrize("column", ATTRIBUTES.columns)
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    frame = ATTRIBUTE.cast({"value": pl.Int32}).drop(column)
    message = read_error(ATTRIBUTES, write_raw(frame, tmp_path / "t.parquet"))
    assert str(tmp_path / "t.parquet") in message and repr(column) in message
    with pytest.raises(ArtifactError, match=f"{tmp_path}.*{column!r}"):
        write_table(frame, ATTRIBUTES, tmp_path / "u.parquet")


def test_a_column_of_another_type_says_what_was_expected_and_found(tmp_path: Path) -> None:
    message = read_error(ATTRIBUTES, write_raw(ATTRIBUTE, tmp_path / "t.parquet"))
    assert all(part in message for part in (str(tmp_path / "t.parquet"), "'value'", "Int32", "Int64"))


def test_nulls_are_named_where_none_may_be(tmp_path: Path) -> None:
    frame = pl.concat([ATTRIBUTE, ATTRIBUTE.with_columns(image_id=None)], how="vertical_relaxed")
    path = write_raw(frame.cast({"value": pl.Int32}), tmp_path / "t.parquet")
    message = read_error(ATTRIBUTES, path)
    assert str(path) in message and "'image_id'" in message and "1 nulls" in message
    with pytest.raises(ArtifactError, match="'image_id' holds 1 nulls"):
        write_table(frame, ATTRIBUTES, tmp_path / "u.parquet")


def test_nulls_may_be_where_the_column_says_so(tmp_path: Path) -> None:
    box = dict.fromkeys(("x_min", "y_min", "x_max", "y_max"), 1.0)
    frame = pl.DataFrame({"dataset": "d", "image_id": "i", "finding": "mass", "birads": None, **box})
    write_table(frame, FINDINGS, tmp_path / "t.parquet")
    assert read_table(FINDINGS, tmp_path / "t.parquet")["birads"].to_list() == [None]


@pytest.mark.parametrize("value", [7, 7.0, True, "7"])
def test_values_that_survive_the_published_type_are_written(tmp_path: Path, value: Any) -> None:
    write_table(ATTRIBUTE.with_columns(value=pl.lit(value)), ATTRIBUTES, tmp_path / "t.parquet")
    assert read_table(ATTRIBUTES, tmp_path / "t.parquet")["value"].to_list() == [int(value)]


@pytest.mark.parametrize(("value", "found"), [(1.5, "Float64"), ("many", "String"), (2**40, "Int64")])
def test_values_that_do_not_are_refused(tmp_path: Path, value: Any, found: str) -> None:
    path = tmp_path / "t.parquet"
    with pytest.raises(ArtifactError) as caught:
        write_table(ATTRIBUTE.with_columns(value=pl.lit(value)), ATTRIBUTES, path)
    assert all(part in str(caught.value) for part in (str(path), "'value'", "Int32", found))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("table", [IMAGES, BREASTS, LABELS], ids=lambda table: table.name)
def test_a_patient_who_crosses_splits_is_refused_by_writers_and_readers(tmp_path: Path, table: Table) -> None:
    def rows(*splits: str) -> pl.DataFrame:
        frame = pl.DataFrame({"patient_id": ["p", "p", "q"], "split": [*splits, "test"]})
        others = {name: dtype for name, dtype in table.schema.items() if name not in frame.columns}
        empty = {pl.String: "x"}
        return frame.with_columns(
            pl.lit([] if isinstance(dtype, pl.List) else empty.get(dtype), dtype).alias(name)  # type: ignore[call-overload]
            for name, dtype in others.items()
        ).select(list(table.columns))

    path = tmp_path / "t.parquet"
    write_table(rows("train", "train"), table, path)
    with pytest.raises(ArtifactError, match=r"t\.parquet: 1 patients are in several splits"):
        write_table(rows("train", "test"), table, path)
    assert read_table(table, path)["split"].to_list() == ["train", "train", "test"]
    write_raw(rows("train", "validation"), path, table.name, table.version)
    with pytest.raises(ArtifactError, match=r"t\.parquet: 1 patients are in several splits"):
        read_table(table, path)


def test_a_reject_has_one_of_the_published_reasons(tmp_path: Path) -> None:
    row = {"dataset": "d", "stage": "index", "path": "p", "detail": "x"}
    frame = pl.DataFrame([{**row, "reason": reason} for reason in REJECT_REASONS])
    write_table(frame, REJECTS, tmp_path / "t.parquet")
    assert read_table(REJECTS, tmp_path / "t.parquet")["reason"].to_list() == list(REJECT_REASONS)
    with pytest.raises(ArtifactError, match="'reason'"):
        write_table(pl.DataFrame({**row, "reason": "bad_mood"}), REJECTS, tmp_path / "u.parquet")


def test_an_empty_table_has_no_rows_to_check(tmp_path: Path) -> None:
    table = Table("t", 1, {"a": Column(pl.Int32, "a number")})
    write_table(table.empty(), table, tmp_path / "t.parquet")
    assert len(read_table(table, tmp_path / "t.parquet")) == 0


def test_a_finished_write_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "t.txt"
    write_text("old", path)
    write_text("né", path)
    assert path.read_bytes() == "né".encode()
    assert [entry.name for entry in path.parent.iterdir()] == ["t.txt"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_unfinished_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "t.txt"
    write_text("old", path)
    with pytest.raises(type(error)), atomic_path(path) as temporary:
        temporary.write_text("half of the n")
        assert path.read_text() == "old"
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_appears_under_the_name_before_the_block_ends(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "t.txt") as temporary:
        temporary.write_text("new")
        assert not (tmp_path / "t.txt").exists()
        assert temporary.parent == tmp_path
    assert (tmp_path / "t.txt").read_text() == "new"


def test_a_refused_table_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_table(ATTRIBUTE, ATTRIBUTES, path)
    before = path.read_bytes()
    with pytest.raises(ArtifactError):
        write_table(ATTRIBUTE.with_columns(image_id=pl.lit(None, pl.String)), ATTRIBUTES, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_table_is_written_with_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_table(ATTRIBUTE, ATTRIBUTES, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
