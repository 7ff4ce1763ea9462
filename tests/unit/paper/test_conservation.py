from dataclasses import replace

import polars as pl
import pytest

from mammoclip.artifacts import REJECT_REASONS
from mammoclip.errors import ArtifactError
from mammoclip.paper.conservation import balance_books
from mammoclip.paper.inputs import DatasetTables, Inputs


@pytest.fixture
def tables(inputs: Inputs) -> DatasetTables:
    return inputs.datasets["cohort"]


def test_files_found_are_images_written_and_rejects(tables: DatasetTables) -> None:
    books = balance_books(tables)
    assert (books.num_found, books.num_written, books.num_rejected_index, books.num_rejected_shard) == (25, 23, 1, 1)
    assert books.num_found == books.num_written + books.num_rejected_index + books.num_rejected_shard


def test_a_file_that_is_listed_but_not_there_was_not_found(tables: DatasetTables) -> None:
    books = balance_books(tables)
    assert books.num_missing == 1
    assert ("index", "missing_file", 1) in [(reject.stage, reject.reason, reject.count) for reject in books.rejects]


def test_rejects_are_counted_by_stage_and_reason_with_their_sentence(tables: DatasetTables) -> None:
    rejects = balance_books(tables).rejects
    assert {(reject.stage, reject.reason) for reject in rejects} == {
        ("index", "not_dicom"),
        ("index", "missing_file"),
        ("shard", "constant_image"),
        ("tabulate", "contradictory_rows"),
    }
    assert all(reject.sentence == REJECT_REASONS[reject.reason] for reject in rejects)


def test_rejects_of_tabulate_are_rows_and_no_part_of_the_sum(tables: DatasetTables) -> None:
    books = balance_books(replace(tables, tabulate_rejects=pl.concat([tables.tabulate_rejects] * 3)))
    assert ("tabulate", 3) in [(reject.stage, reject.count) for reject in books.rejects]
    assert (books.num_found, books.num_written) == (25, 23)


def test_an_image_lost_by_the_shards_is_an_error(tables: DatasetTables) -> None:
    lossy = replace(tables, manifest=tables.manifest[1:], images=tables.images[1:])
    with pytest.raises(ArtifactError, match="'cohort': 24 images indexed, 22 written and 1 rejected"):
        balance_books(lossy)


def test_one_image_lost_and_one_written_twice_do_not_cancel(tables: DatasetTables) -> None:
    twice = pl.concat([tables.manifest[:1], tables.manifest[:-1]])
    with pytest.raises(ArtifactError, match="do not add up"):
        balance_books(replace(tables, manifest=twice))


def test_a_file_that_is_indexed_and_rejected_is_an_error(tables: DatasetTables) -> None:
    rejected = tables.index_rejects.with_columns(path=pl.lit(tables.index["path"][0]))
    with pytest.raises(ArtifactError, match="25 rows of index and rejects speak of 24 files"):
        balance_books(replace(tables, index_rejects=rejected))


def test_an_image_lost_by_the_tables_is_an_error(tables: DatasetTables) -> None:
    with pytest.raises(ArtifactError, match="23 images written, 22 tabulated"):
        balance_books(replace(tables, images=tables.images[1:]))
