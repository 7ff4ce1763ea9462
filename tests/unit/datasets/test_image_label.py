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
        ("images/a.dcm", "p1", "p1", "a", "L", "CC", None),
        ("images/c", "p2", "p2", "c", "R", "CC", None),
        ("images/deep/b.dicom", "p1", "p1", "b", "L", "MLO", None),
        ("images/stray.dcm", None, None, None, None, None, None),
        (None, "p2", "p2", "d", "R", "MLO", None),
    ]


def test_every_other_column_is_a_label_and_empty_is_unknown(root: Path) -> None:
    attributes = ImageLabel().attributes(root)
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


def test_study_and_split_are_no_labels(root: Path) -> None:
    lines = TABLE.splitlines()
    table = "\n".join([f"{lines[0]},study_id,split", *(f"{line},s{line[3]},test" for line in lines[1:])])
    (root / "labels.csv").write_text(table)
    files = ImageLabel().files(root).drop_nulls("image_id").sort("image_id")
    assert files.select("study_id", "split").rows() == [(f"s{name}", "test") for name in "abcd"]
    assert set(ImageLabel().attributes(root)["attribute"]) == {"mass", "birads", "density"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("patient_id,image_id,laterality,view\np,a,L,CC\n", "has no label"),
        (TABLE.replace("p1,a,L,cc,1", "p1,a,L,cc,yes"), "column 'mass' should hold whole numbers, found 'yes'"),
        (TABLE.replace(",D\n", ",4\n"), "column 'density' should hold A to D or 0 to 3, found '4'"),
        (TABLE.replace("laterality", "side"), "has no column 'laterality'"),
    ],
)
def test_a_table_that_is_not_as_expected_says_which_column(root: Path, table: str, message: str) -> None:
    (root / "labels.csv").write_text(table)
    with pytest.raises(DatasetError, match=message):
        ImageLabel().attributes(root)
