"""The open EMBED tables: their headers, codes and regions of interest."""

from pathlib import Path

import polars as pl
import pytest

from mammoclip.datasets import base
from mammoclip.datasets.embed import Embed
from mammoclip.errors import DatasetError

STORE = "/mnt/NAS2/mammo/anon_dicom/cohort_1"
METADATA = f""",empi_anon,acc_anon,anon_dicom_path,FinalImageType,ImageLateralityFinal,ViewPosition,num_roi,ROI_coords,\
Rows,Columns,BreastImplantPresent
0,100,900,{STORE}/100/1.2.3/1.2.3.1.dcm,2D,L,CC,1,"((1204, 567, 1390, 742),)",3328,2560,NO
1,100,900,{STORE}/100/1.2.3/1.2.3.2.dcm,cview,L,MLO,2,"((10, 20, 30, 40), (50, 60, 70, 80))",3328,2560,NO
2,100,900,{STORE}/100/1.2.3/1.2.3.3.dcm,2D,R,CC,0,(),3328,2560,YES
3,100,900,{STORE}/100/1.2.3/1.2.3.4.dcm,3D,R,CC,0,(),3328,2560,NO
4,200,901,{STORE}/200/1.2.4/1.2.4.1.dcm,2D,L,CC,1,"((1, 2, 3, 4))",,,
"""
CLINICAL = """empi_anon,acc_anon,desc,side,numfind,asses,tissueden,massshape,calcfind,path_severity,age_at_study
100,900,MG Diagnostic,L,1,S,3,X,,0,61.7
100,900,MG Diagnostic,L,2,B,3,,,4,61.7
100,900,MG Diagnostic,R,1,N,3,,,,61.7
200,901,MG Screening,B,1,A,1,F,,,55.2
200,901,MG Screening,L,2,P,1,O,G,4,55.2
300,902,MG Screening,,1,N,5,,,,44.0
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "EMBED_OpenData_metadata.csv").write_text(METADATA)
    (tmp_path / "tables" / "EMBED_OpenData_clinical.csv").write_text(CLINICAL)
    for name in ("100/1.2.3/1.2.3.1", "100/1.2.3/1.2.3.3", "100/1.2.3/1.2.3.4", "200/1.2.4/1.2.4.1", "200/1.2.4/9.9"):
        path = tmp_path / "images" / "cohort_1" / f"{name}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_mammograms_are_joined_by_the_name_of_their_file_and_other_types_left_out(root: Path) -> None:
    files = Embed().files(root)
    assert files.schema == base.FILES
    assert files.drop("split", "fold").rows() == [
        ("images/cohort_1/100/1.2.3/1.2.3.1.dcm", "100", "900", "1.2.3.1", "L", "CC", 3328, 2560),
        ("images/cohort_1/100/1.2.3/1.2.3.3.dcm", "100", "900", "1.2.3.3", "R", "CC", 3328, 2560),
        ("images/cohort_1/200/1.2.4/1.2.4.1.dcm", "200", "901", "1.2.4.1", "L", "CC", None, None),
        ("images/cohort_1/200/1.2.4/9.9.dcm", *[None] * 7),
        (None, "100", "900", "1.2.3.2", "L", "MLO", 3328, 2560),
    ]


def labels(root: Path) -> dict[tuple[str, str], dict[str, int]]:
    found: dict[tuple[str, str], dict[str, int]] = {}
    for patient, _, side, name, value in Embed().annotations(root).breast_attributes.rows():
        found.setdefault((patient, side), {})[name] = value
    return found


def test_labels_are_those_of_a_breast_over_its_findings(root: Path) -> None:
    assert Embed().annotations(root).breast_attributes.schema == base.BREAST_ATTRIBUTES
    found = labels(root)
    assert found["100", "L"] == {"mass": 1, "birads": 4, "density": 2, "malignancy": 1, "age": 61}
    assert found["100", "R"] == {"no_finding": 1, "birads": 1, "density": 2, "age": 61}


def test_a_finding_of_both_sides_or_of_none_is_one_of_each(root: Path) -> None:
    found = labels(root)
    # 0 (more images needed) is more urgent than 3; benign tissue alone is no malignancy.
    assert found["200", "L"] == {
        "mass": 1, "focal_asymmetry": 1, "calcification": 1, "birads": 0, "density": 0, "malignancy": 0, "age": 55
    }  # fmt: skip
    assert found["200", "R"] == {"focal_asymmetry": 1, "birads": 0, "density": 0, "age": 55}
    assert found["300", "L"] == found["300", "R"] == {"no_finding": 1, "birads": 1, "age": 44}


def write_clinical(root: Path, *rows: str) -> None:
    header = "empi_anon,acc_anon,side,bside,asses,tissueden,massshape,calcfind,calcdistri,path_severity"
    (root / "tables" / "EMBED_OpenData_clinical.csv").write_text("\n".join([header, *rows]))


@pytest.mark.parametrize("assessment", ["", "X"])
def test_without_an_assessment_nothing_is_known_to_be_absent(root: Path, assessment: str) -> None:
    write_clinical(root, f"100,900,L,,{assessment},3,,,,", "100,900,R,,N,3,,,,", f"100,900,R,,{assessment},3,,,,")
    assert labels(root) == {("100", "L"): {"density": 2}, ("100", "R"): {"birads": 1, "density": 2}}
    assert "wrong_type" not in Embed().annotations(root).rejected["reason"]


@pytest.mark.parametrize(
    ("side", "biopsied", "malignant"),
    [("L", "", ["L"]), ("L", "R", ["R"]), ("B", "R", ["R"]), ("", "L", ["L"]), ("L", "B", ["L", "R"]), ("B", "", [])],
)
def test_a_pathology_is_of_the_side_of_the_biopsy(root: Path, side: str, biopsied: str, malignant: list[str]) -> None:
    write_clinical(root, f"100,900,{side},{biopsied},S,3,X,,,1.0")
    assert [breast for (_, breast), found in labels(root).items() if "malignancy" in found] == malignant
    told = Embed().annotations(root).rejected.filter(reason="wrong_type")["path"].to_list()
    assert told == ([] if malignant else ["tables/EMBED_OpenData_clinical.csv row 2"])


def test_a_finding_of_another_side_is_left_out_and_told(root: Path) -> None:
    write_clinical(root, "100,900,Left,,S,3,X,,,", "100,900,R,,B,3,,,G,")
    assert labels(root) == {("100", "R"): {"calcification": 1, "birads": 2, "density": 2}}
    assert "tables/EMBED_OpenData_clinical.csv row 2" in Embed().annotations(root).rejected["path"]


def test_implants_are_those_of_the_metadata(root: Path) -> None:
    attributes = Embed().annotations(root).attributes
    assert dict(attributes.filter(attribute="implant").select("image_id", "value").rows()) == {
        "1.2.3.1": 0, "1.2.3.2": 0, "1.2.3.3": 1, "1.2.3.4": 0
    }  # fmt: skip


def test_regions_of_interest_are_boxes_where_the_breast_has_one_kind_of_finding(root: Path) -> None:
    said = Embed().annotations(root)
    assert said.findings.schema == base.FINDINGS
    assert said.findings.drop("source", "birads").rows() == [
        ("1.2.3.1", "mass", 567, 1204, 742, 1390),
        ("1.2.3.2", "mass", 20, 10, 40, 30),
        ("1.2.3.2", "mass", 60, 50, 80, 70),
    ]
    assert said.rejected.select("path", "reason").rows() == [
        ("tables/EMBED_OpenData_metadata.csv row 6", "unknown_finding")
    ]


@pytest.mark.parametrize("other", ["F,,", "Y,,", ",A,", ",,G"])
def test_a_region_is_no_box_where_the_breast_has_another_finding_too(root: Path, other: str) -> None:
    write_clinical(root, "100,900,L,,S,3,X,,,", f"100,900,L,,S,3,{other},")
    said = Embed().annotations(root)
    assert said.findings.is_empty()
    assert said.rejected["reason"].to_list() == ["unknown_finding"] * 3


@pytest.mark.parametrize(
    ("cell", "boxes", "told"),
    [
        ("([1224, 172, 1457, 559], [10, 20, 30, 40])", [(172, 1224, 559, 1457), (20, 10, 40, 30)], []),
        ("((1, 2, 3), (10, 20, 30, 40))", [(20, 10, 40, 30)], ["bad_box"]),
        ("((1.5, 2, 3, 4),)", [], ["bad_box"]),
        ("", [], []),
    ],
)
def test_regions_have_either_bracket_and_what_is_no_region_is_told(
    root: Path, cell: str, boxes: list[tuple[int, ...]], told: list[str]
) -> None:
    path = root / "tables" / "EMBED_OpenData_metadata.csv"
    path.write_text(METADATA.replace("((1204, 567, 1390, 742),)", cell))
    said = Embed().annotations(root)
    assert said.findings.filter(image_id="1.2.3.1").select(base.BOX).rows() == boxes
    assert said.rejected.filter(pl.col("path").str.ends_with("row 2"))["reason"].to_list() == told


def test_regions_are_read_and_never_evaluated(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    path = root / "tables" / "EMBED_OpenData_metadata.csv"
    path.write_text(METADATA.replace("((1204, 567, 1390, 742),)", "__import__('os').mkdir('made')"))
    assert "1.2.3.1" not in Embed().annotations(root).findings["image_id"]
    assert not (root / "made").exists()


def test_a_path_of_the_table_leads_nowhere_but_below_images(root: Path) -> None:
    path = root / "tables" / "EMBED_OpenData_metadata.csv"
    path.write_text(METADATA.replace(f"{STORE}/100/1.2.3/1.2.3.1.dcm", "../../../../etc/passwd"))
    files = Embed().files(root)
    assert files.filter(image_id="passwd")["path"].to_list() == [None]


def test_a_code_that_is_none_is_left_out_and_told(root: Path) -> None:
    path = root / "tables" / "EMBED_OpenData_clinical.csv"
    path.write_text(CLINICAL.replace(",L,1,S,3,", ",L,1,Z,9,"))
    said = Embed().annotations(root)
    assert {(row[0], row[1]) for row in said.rejected.rows()} >= {
        ("tables/EMBED_OpenData_clinical.csv row 2", "wrong_type")
    }
    assert labels(root)["100", "L"]["birads"] == 2


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("metadata", "anon_dicom_path"),
        ("metadata", "ImageLateralityFinal"),
        ("clinical", "asses"),
        ("clinical", "tissueden"),
    ],
)
def test_a_missing_table_or_column_is_named(root: Path, table: str, column: str) -> None:
    path = root / "tables" / f"EMBED_OpenData_{table}.csv"
    pl.read_csv(path, infer_schema=False).drop(column).write_csv(path)
    with pytest.raises(DatasetError, match=rf"{table}\.csv has no column '{column}'"):
        Embed().annotations(root)
    path.unlink()
    with pytest.raises(DatasetError, match=rf"{table}\.csv is missing"):
        Embed().annotations(root)


def test_weights_may_not_be_released() -> None:
    assert not Embed.source.weights_may_be_released and "clause 5" in Embed.source.licence
