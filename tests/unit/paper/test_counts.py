import polars as pl

from mammoclip.paper.counts import count_values, cut_rows, name_headers, occurring_splits


def test_values_are_counted_in_every_split_that_occurs_and_over_all() -> None:
    values = pl.Series(["CC", "MLO", "CC", "ML", "CC", "MLO"])
    splits = pl.Series(["test", "test", "train", "train", "train", "train"])
    counts = count_values("images", "view", values, splits)
    assert (counts.caption, counts.header, counts.columns) == ("Images by view", "View", ["Train", "Test", "All"])
    assert counts.rows == [("CC", [2, 1, 3]), ("MLO", [1, 1, 2]), ("ML", [1, 0, 1])]


def test_without_splits_there_is_one_column() -> None:
    counts = count_values("images", "view", pl.Series(["MLO", "CC"]))
    assert counts.columns == ["Images"]
    assert counts.rows == [("CC", [1]), ("MLO", [1])]


def test_values_of_a_scale_stand_in_its_order_and_the_unknown_last() -> None:
    counts = count_values("images", "BI-RADS", pl.Series([5, None, 0, 5, None, None]), scale=["0", "1", "5"])
    assert (counts.caption, counts.header) == ("Images by BI-RADS", "BI-RADS")
    assert counts.rows == [("0", [1]), ("5", [2]), ("unknown", [3])]


def test_no_value_is_an_empty_table() -> None:
    counts = count_values("boxes", "finding", pl.Series([], dtype=pl.String), pl.Series([], dtype=pl.String))
    assert (counts.columns, counts.rows, counts.num_more) == (["All"], [], 0)


def test_of_a_long_table_the_rows_left_out_are_summed_up() -> None:
    rows = [(f"row {number}", [number, 1]) for number in range(18)]
    counts = cut_rows("Caption", "row", ["first", "second"], rows)
    assert counts.rows == rows[:15]
    assert (counts.num_more, counts.more) == (3, [15 + 16 + 17, 3])


def test_splits_have_the_order_of_their_use() -> None:
    assert occurring_splits(pl.Series(["test", "validation", "test"])) == ["validation", "test"]


def test_transfer_syntaxes_have_their_names_and_a_missing_manufacturer_says_so() -> None:
    index = pl.DataFrame({"manufacturer": ["Maker", "", None], "transfer_syntax": ["1.2.840.10008.1.2.1"] * 3})
    named = name_headers(index)
    assert named["manufacturer"].to_list() == ["Maker", "not stated", "not stated"]
    assert set(named["transfer_syntax"]) == {"Explicit VR Little Endian"}
