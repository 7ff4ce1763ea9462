from pathlib import Path

import pytest

from mammoclip.datasets import base
from mammoclip.datasets.image_label import ImageLabel
from mammoclip.errors import DatasetError

TABLE = """patient_id,image_id,laterality,view,mass,birads,density
p1,a,L,cc,1,4,b
p1,b,L,MLO,0,,D
p2,c,r,CC,,2.0,0
p2,d,R,MLO,True,1,
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "labels.csv").write_text(TABLE)
    (tmp_path / "images" / "deep").mkdir(parents=True)
    for name in ("a.dcm", "deep/b.dicom", "c", "stray.dcm"):
        (tmp_path / "images" / name).touch()
    return tmp_path


def test_files_join_the_table_by_their_stem(root: Path) -> None:
    files = ImageLabel().files(root)
    assert files.schema == base.FILES
    assert files.rows() == [
        ("images/a.dcm", "p1", "p1", "a", "L", "CC", *[None] * 4),
        ("images/c", "p2", "p2", "c", "R", "CC", *[None] * 4),
        ("images/deep/b.dicom", "p1", "p1", "b", "L", "MLO", *[None] * 4),
        ("images/stray.dcm", *[None] * 9),
        (None, "p2", "p2", "d", "R", "MLO", *[None] * 4),
    ]


def test_every_other_column_is_a_label_and_empty_is_unknown(root: Path) -> None:
    attributes = ImageLabel().annotations(root).attributes
    assert attributes.schema == base.ATTRIBUTES
    assert sorted(attributes.rows()) == [
        ("a", "birads", 4),
        ("a", "density", 1),
        ("a", "mass", 1),
        ("b", "density", 3),
        ("b", "mass", 0),
        ("c", "birads", 2),
        ("c", "density", 0),
        ("d", "birads", 1),
        ("d", "mass", 1),
    ]


def test_study_split_and_fold_are_no_labels(root: Path) -> None:
    lines = TABLE.splitlines()
    table = [f"{lines[0]},study_id,split,fold", *(f"{line},s{line[3]},test,2" for line in lines[1:])]
    (root / "labels.csv").write_text("\n".join(table))
    files = ImageLabel().files(root).drop_nulls("image_id").sort("image_id")
    assert files.select("study_id", "split", "fold").rows() == [(f"s{name}", "test", 2) for name in "abcd"]
    assert set(ImageLabel().annotations(root).attributes["attribute"]) == {"mass", "birads", "density"}


@pytest.mark.parametrize(
    ("old", "new", "row", "message"),
    [
        ("p1,a,L,cc,1", "p1,a,L,cc,yes", 2, "mass should be a whole number"),
        (",D\n", ",4\n", 3, "density should be A to D or 0 to 3"),
    ],
)
def test_a_cell_that_cannot_be_read_is_no_label_and_told(
    root: Path, old: str, new: str, row: int, message: str
) -> None:
    (root / "labels.csv").write_text(TABLE.replace(old, new))
    said = ImageLabel().annotations(root)
    assert said.rejected.rows() == [(f"labels.csv row {row}", "wrong_type", f"{message}; the cell is left out")]
    assert len(said.attributes) == 8


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("patient_id,image_id,laterality,view\np,a,L,CC\n", "has no label"),
        (TABLE.replace("laterality", "side"), "has no column 'laterality'"),
    ],
)
def test_a_table_that_is_not_as_expected_says_which_column(root: Path, table: str, message: str) -> None:
    (root / "labels.csv").write_text(table)
    with pytest.raises(DatasetError, match=message):
        ImageLabel().annotations(root)


def test_a_fold_that_is_no_number_is_told_and_other_columns_of_our_names_do_no_harm(root: Path) -> None:
    lines = TABLE.splitlines()
    (root / "labels.csv").write_text("\n".join([f"{lines[0]},fold,rows", *(f"{line},x,2" for line in lines[1:])]))
    assert set(ImageLabel().files(root)["fold"]) == {None}
    said = ImageLabel().annotations(root)
    assert said.rejected["path"].to_list() == [f"labels.csv row {row}" for row in (2, 3, 4, 5)]
    (root / "labels.csv").write_text("\n".join([f"{lines[0]},rows", *(f"{line},upper" for line in lines[1:])]))
    assert set(ImageLabel().files(root)["rows"]) == {None}
