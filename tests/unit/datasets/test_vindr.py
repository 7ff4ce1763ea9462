"""VinDr-Mammo 1.0 as published: headers, spellings and list strings of its two tables."""

from pathlib import Path

import polars as pl
import pytest

from mammoclip.artifacts import FINDING_NAMES, NO_FINDING
from mammoclip.datasets import base
from mammoclip.datasets.vindr import VinDr
from mammoclip.errors import DatasetError

BREASTS = """study_id,series_id,image_id,laterality,view_position,height,width,breast_birads,breast_density,split
s1,r1,s1lc,L,CC,3518,2800,BI-RADS 2,DENSITY C,training
s1,r1,s1lm,L,MLO,3518,2800,BI-RADS 2,DENSITY C,training
s1,r1,s1rc,R,CC,3518,2800,BI-RADS 5,DENSITY C,training
s2,r2,s2lc,L,CC,3518,2800,BI-RADS 1,DENSITY A,test
s2,r2,s2rc,R,CC,3518,2800,BI-RADS 4,DENSITY D,test
"""
FINDINGS = """image_id,study_id,series_id,laterality,view_position,height,width,breast_birads,breast_density,\
finding_categories,finding_birads,xmin,ymin,xmax,ymax,split
s1lc,s1,r1,L,CC,3518,2800,BI-RADS 2,DENSITY C,['No Finding'],,,,,,training
s1lm,s1,r1,L,MLO,3518,2800,BI-RADS 2,DENSITY C,['No Finding'],,,,,,training
s1rc,s1,r1,R,CC,3518,2800,BI-RADS 5,DENSITY C,"['Mass', 'Skin Retraction']",BI-RADS 5,2355.139893,1731.640015,\
2482.979980,1852.750000,training
s1rc,s1,r1,R,CC,3518,2800,BI-RADS 5,DENSITY C,['Mass'],BI-RADS 4,10.5,20.25,30.0,40.0,training
s2lc,s2,r2,L,CC,3518,2800,BI-RADS 1,DENSITY A,['No Finding'],,,,,,test
s2rc,s2,r2,R,CC,3518,2800,BI-RADS 4,DENSITY D,"['Suspicious Calcification', 'Focal Asymmetry']",BI-RADS 4,\
1.0,2.0,3.0,4.0,test
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "breast-level_annotations.csv").write_text(BREASTS)
    (tmp_path / "finding_annotations.csv").write_text(FINDINGS)
    for line in BREASTS.splitlines()[1:]:
        study, _, image = line.split(",")[:3]
        (tmp_path / "images" / study).mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / study / f"{image}.dicom").touch()
    return tmp_path


def change(root: Path, table: str, old: str, new: str) -> None:
    path = root / table
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_files_are_joined_with_the_breast_level_table(root: Path) -> None:
    files = VinDr().files(root)
    assert files.schema == base.FILES
    assert files.rows() == [
        ("images/s1/s1lc.dicom", "s1", "s1", "s1lc", "L", "CC", "train", None, 3518, 2800),
        ("images/s1/s1lm.dicom", "s1", "s1", "s1lm", "L", "MLO", "train", None, 3518, 2800),
        ("images/s1/s1rc.dicom", "s1", "s1", "s1rc", "R", "CC", "train", None, 3518, 2800),
        ("images/s2/s2lc.dicom", "s2", "s2", "s2lc", "L", "CC", "test", None, 3518, 2800),
        ("images/s2/s2rc.dicom", "s2", "s2", "s2rc", "R", "CC", "test", None, 3518, 2800),
    ]


def test_a_patient_column_is_used_where_there_is_one(root: Path) -> None:
    lines = BREASTS.splitlines()
    lines = [f"patient_id,{lines[0]}"] + [f"pat{number},{line}" for number, line in enumerate(lines[1:])]
    (root / "breast-level_annotations.csv").write_text("\n".join(lines))
    assert VinDr().files(root)["patient_id"].to_list() == [f"pat{number}" for number in range(5)]


def test_an_unlisted_file_has_no_ids(root: Path) -> None:
    (root / "images" / "s9").mkdir()
    (root / "images" / "s9" / "stray.dicom").touch()
    files = VinDr().files(root)
    assert files.filter(pl.col("image_id").is_null()).rows() == [("images/s9/stray.dicom", *[None] * 9)]
    assert len(files) == 6


def test_a_listed_image_without_a_file_has_no_path(root: Path) -> None:
    (root / "images" / "s2" / "s2lc.dicom").unlink()
    files = VinDr().files(root)
    assert files.filter(pl.col("path").is_null()).rows() == [
        (None, "s2", "s2", "s2lc", "L", "CC", "test", None, 3518, 2800)
    ]
    assert files["path"].null_count() == 1 and files["path"][-1] is None


def test_a_listed_image_without_study_is_still_listed(root: Path) -> None:
    change(root, "breast-level_annotations.csv", "s2,r2,s2lc", ",r2,s2lc")
    row = VinDr().files(root).row(by_predicate=pl.col("image_id") == "s2lc", named=True)
    assert (row["path"], row["study_id"], row["view"]) == ("images/s2/s2lc.dicom", None, "CC")


def test_an_images_folder_without_a_file_lists_only_missing_ones(root: Path) -> None:
    for path in sorted((root / "images").rglob("*.dicom")):
        path.unlink()
    files = VinDr().files(root)
    assert len(files) == 5 and files["path"].null_count() == 5


def test_a_split_that_is_spelled_otherwise_is_passed_on_and_not_forgotten(root: Path) -> None:
    change(root, "breast-level_annotations.csv", "DENSITY D,test", "DENSITY D,Test")
    assert VinDr().files(root)["split"].to_list() == ["train", "train", "train", "test", "Test"]


def findings_of(root: Path) -> list[tuple[object, ...]]:
    return VinDr().annotations(root).findings.drop("source").rows()


def rejected_of(root: Path) -> list[tuple[str, str, str]]:
    return VinDr().annotations(root).rejected.rows()


def labels_of(root: Path) -> dict[tuple[str, str], int]:
    """What is stated, and 0 for what was looked for and is not stated."""
    said = VinDr().annotations(root)
    absent = {(image, name): 0 for name, images in said.searched.items() for image in images}
    return absent | {(image, name): value for image, name, value in said.attributes.rows()}


def test_findings_are_one_row_per_category_of_a_box_and_name_their_row(root: Path) -> None:
    findings = VinDr().annotations(root).findings
    assert findings.schema == base.FINDINGS
    box = (2355.139893, 1731.640015, 2482.979980, 1852.75)
    nothing = (NO_FINDING, None, None, None, None, None)
    assert findings.rows() == [
        ("s1lc", *nothing, "finding_annotations.csv row 2"),
        ("s1lm", *nothing, "finding_annotations.csv row 3"),
        ("s1rc", "mass", 5, *box, "finding_annotations.csv row 4"),
        ("s1rc", "skin_retraction", 5, *box, "finding_annotations.csv row 4"),
        ("s1rc", "mass", 4, 10.5, 20.25, 30.0, 40.0, "finding_annotations.csv row 5"),
        ("s2lc", *nothing, "finding_annotations.csv row 6"),
        ("s2rc", "suspicious_calcification", 4, 1.0, 2.0, 3.0, 4.0, "finding_annotations.csv row 7"),
        ("s2rc", "focal_asymmetry", 4, 1.0, 2.0, 3.0, 4.0, "finding_annotations.csv row 7"),
    ]
    assert rejected_of(root) == []


def test_attributes_are_the_union_over_an_images_rows(root: Path) -> None:
    assert VinDr().annotations(root).attributes.schema == base.ATTRIBUTES
    labels = labels_of(root)
    assert len(labels) == 5 * (10 + 1 + 2)
    assert {key for key, value in labels.items() if key[1] in (*FINDING_NAMES, NO_FINDING) and value} == {
        ("s1rc", "mass"),
        ("s1rc", "skin_retraction"),
        ("s2rc", "suspicious_calcification"),
        ("s2rc", "focal_asymmetry"),
        ("s1lc", NO_FINDING),
        ("s1lm", NO_FINDING),
        ("s2lc", NO_FINDING),
    }
    assert {value for (_, name), value in labels.items() if name in FINDING_NAMES} == {0, 1}
    assert [labels[image, "density"] for image in ("s1lc", "s2lc", "s2rc")] == [2, 0, 3]
    assert [labels[image, "birads"] for image in ("s1lc", "s1rc", "s2lc")] == [2, 5, 1]


@pytest.mark.parametrize(("spelling", "rejects"), [("", 0), ("DENSITY E", 1), ("2", 1), ("density b", 0)])
def test_a_density_that_cannot_be_read_is_no_label_and_told(root: Path, spelling: str, rejects: int) -> None:
    change(root, "breast-level_annotations.csv", "DENSITY A", spelling)
    assert labels_of(root).get(("s2lc", "density")) == (1 if spelling == "density b" else None)
    assert [name for _, name in labels_of(root)].count("density") == (5 if spelling == "density b" else 4)
    told = [("breast-level_annotations.csv row 5", "wrong_type")] * rejects
    assert [row[:2] for row in rejected_of(root)] == told


def test_an_unknown_category_is_left_out_and_told_and_the_others_of_its_row_stay(root: Path) -> None:
    change(root, "finding_annotations.csv", "'Focal Asymmetry'", "'Other - Odd/Thing'")
    assert [row[1] for row in findings_of(root)][-1] == "suspicious_calcification"
    ((path, reason, detail),) = rejected_of(root)
    assert (path, reason) == ("finding_annotations.csv row 7", "unknown_finding")
    assert "Suspicious Lymph Node" in detail and "Odd" not in detail


@pytest.mark.parametrize(
    "text",
    [
        "Mass",
        "['Mass'",
        "{'Mass': 1}",
        "[1]",
        "__import__('os').mkdir('made-by-eval')",
        "[__import__('os').mkdir('made-by-eval')]",
        "['Mass'] + open('x')",
        "[{[]: 1}]",
        "[" * 5000,
        "'Mass'",
    ],
)
def test_a_category_list_is_parsed_and_never_run(root: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """What an image with such a row has is unknown: without the label the other findings would be called absent."""
    monkeypatch.chdir(root)
    path = root / "finding_annotations.csv"
    path.write_text(path.read_text().replace("['Mass']", f'"{text}"'))
    assert ("finding_annotations.csv row 5", "wrong_type") in [row[:2] for row in rejected_of(root)]
    assert not (root / "made-by-eval").exists()
    assert {image for image, name in labels_of(root) if name in FINDING_NAMES} == {"s1lc", "s1lm", "s2lc", "s2rc"}
    assert "s1rc" not in [row[0] for row in findings_of(root)]


def test_a_corner_that_is_no_number_is_left_out_and_told_and_the_label_stays(root: Path) -> None:
    change(root, "finding_annotations.csv", "20.25", "twenty")
    assert rejected_of(root) == [
        ("finding_annotations.csv row 5", "wrong_type", "ymin should be a number; the cell is left out")
    ]
    assert ("s1rc", "mass", 4, 10.5, None, 30.0, 40.0) in findings_of(root)


def test_a_row_that_is_repeated_is_told(root: Path) -> None:
    path = root / "finding_annotations.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[1]]))
    assert [row[:2] for row in rejected_of(root)] == [("finding_annotations.csv row 8", "duplicate_row")]


def test_a_finding_of_an_image_that_is_not_listed_is_told(root: Path) -> None:
    change(root, "finding_annotations.csv", "s2rc,s2", "elsewhere,s2")
    assert [row[:2] for row in rejected_of(root)] == [("finding_annotations.csv row 7", "unknown_image")]
    assert "elsewhere" not in [row[0] for row in findings_of(root)]


@pytest.mark.parametrize("table", ["breast-level_annotations.csv", "finding_annotations.csv"])
def test_a_missing_table_is_named(root: Path, table: str) -> None:
    (root / table).unlink()
    with pytest.raises(DatasetError, match=f"{table} is missing"):
        VinDr().annotations(root)


@pytest.mark.parametrize(
    ("table", "column"),
    [
        *[
            ("breast-level_annotations.csv", column)
            for column in (
                "study_id",
                "image_id",
                "laterality",
                "view_position",
                "breast_birads",
                "breast_density",
                "split",
            )
        ],
        *[
            ("finding_annotations.csv", column)
            for column in ("image_id", "finding_categories", "finding_birads", "xmin", "ymin", "xmax", "ymax")
        ],
    ],
)
def test_a_missing_column_is_named_with_its_file(root: Path, table: str, column: str) -> None:
    pl.read_csv(root / table, infer_schema=False).drop(column).write_csv(root / table)
    with pytest.raises(DatasetError, match=f"{table} has no column '{column}'"):
        VinDr().annotations(root)


def test_without_an_images_folder_every_listed_image_is_missing(tmp_path: Path) -> None:
    (tmp_path / "breast-level_annotations.csv").write_text(BREASTS)
    files = VinDr().files(tmp_path)
    assert files["path"].null_count() == len(files) == 5


def test_there_are_no_reports(root: Path) -> None:
    assert VinDr().annotations(root).reports.schema == base.REPORTS
    assert len(VinDr().annotations(root).reports) == 0
