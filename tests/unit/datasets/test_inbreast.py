import plistlib
from pathlib import Path
from typing import Any

import pytest

from mammoclip.datasets import base
from mammoclip.datasets.inbreast import InBreast
from mammoclip.errors import DatasetError

TABLE = """Patient ID;Patient age;Laterality;View;Acquisition date;File Name;ACR;Bi-Rads
removed;removed;R;CC;201001;20586908;2;4a
removed;removed;R;MLO;201001;20586934;2;1
removed;removed;L;CC;200910;20587054;7;2
removed;removed;L;MLO;200910;20587080;1;5
"""


def outline(name: str, *points: str) -> dict[str, Any]:
    return {"Name": name, "NumberOfPoints": len(points), "Point_px": list(points), "Area": 1.0, "IndexInImage": 0}


def write_outlines(root: Path, file: str, *rois: dict[str, Any]) -> None:
    (root / "AllXML").mkdir(exist_ok=True)
    with (root / "AllXML" / f"{file}.xml").open("wb") as handle:
        plistlib.dump({"Images": [{"ImageIndex": 0, "NumberOfROIs": len(rois), "ROIs": list(rois)}]}, handle)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "INbreast.csv").write_text(TABLE)
    (tmp_path / "AllDICOMs").mkdir()
    for name in ("20586908_6c613a14b80a8591_MG_R_CC_ANON", "20586934_6c613a14b80a8591_MG_R_ML_ANON",
                 "20587054_b6a4f750c6df4f90_MG_L_CC_ANON", "notes"):  # fmt: skip
        (tmp_path / "AllDICOMs" / f"{name}.dcm").touch()
    write_outlines(
        tmp_path,
        "20586908",
        outline("Mass", "(2306.220215, 1278.140015)", "(2300.5, 1290.0)", "(2320.0, 1281.25)"),
        outline("Calcification", "(10.0, 20.0)"),
        outline("Spiculated Region", "(1.0, 2.0)", "(3.0, 4.0)"),
        outline("Assymetry", "(-3.0, 20.0)", "(7.0, 30.0)"),
    )
    return tmp_path


def test_the_patient_is_in_the_file_name_and_the_rest_in_the_table(root: Path) -> None:
    files = InBreast().files(root)
    assert files.schema == base.FILES
    assert files.select(list(base.FILES)[1:6]).rows() == [
        ("6c613a14b80a8591", "6c613a14b80a8591-201001", "20586908", "R", "CC"),
        ("6c613a14b80a8591", "6c613a14b80a8591-201001", "20586934", "R", "MLO"),
        ("b6a4f750c6df4f90", "b6a4f750c6df4f90-200910", "20587054", "L", "CC"),
        (None, None, None, None, None),
        (None, None, "20587080", "L", "MLO"),
    ]


def test_outlines_are_boxes_of_findings_and_labels(root: Path) -> None:
    said = InBreast().annotations(root)
    assert said.findings.schema == base.FINDINGS
    assert said.findings.drop("birads").rows() == [
        ("20586908", "mass", 2300.5, 1278.140015, 2321.0, 1291.0, "AllXML/20586908.xml"),
        ("20586908", "asymmetry", -3.0, 20.0, 8.0, 31.0, "AllXML/20586908.xml"),
    ]
    of = {
        image: {name: 0 for name, images in said.searched.items() if image in images}
        | dict(said.attributes.filter(image_id=image).select("attribute", "value").rows())
        for image in ("20586908", "20586934", "20587054", "20587080")
    }
    absent = {"mass": 0, "asymmetry": 0, "architectural_distortion": 0, "calcification": 0}
    assert of["20586908"] == {**absent, "mass": 1, "asymmetry": 1, "calcification": 1, "density": 1, "birads": 4}
    assert of["20586934"] == {**absent, "density": 1, "birads": 1}
    assert of["20587054"] == {**absent, "birads": 2}
    assert said.rejected.select("path", "reason").rows() == [("INbreast.csv row 4", "wrong_type")]


BOMB = b"""<?xml version="1.0"?><!DOCTYPE plist [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<plist version="1.0"><dict><key>Images</key><string>&b;</string></dict></plist>"""


@pytest.mark.parametrize(
    "content", [b"", b"no plist", b"<plist><dict></dict></plist>", BOMB,
                plistlib.dumps({"Images": []})[:-20], plistlib.dumps({"Images": []}, fmt=plistlib.FMT_BINARY),
                b'<?xml version="1.0" encoding="UTE-8"?><plist/>', plistlib.dumps({"Images": [{"ROIs": [1]}]}),
                plistlib.dumps({"Images": [{"ROIs": [outline("Mass", "(1, 2, 3)")]}]}),
                plistlib.dumps({"Images": [{"ROIs": [outline("Mass")]}]}), plistlib.dumps([1])]
)  # fmt: skip
def test_outlines_that_cannot_be_read_are_told_and_the_findings_of_the_image_unknown(
    root: Path, content: bytes
) -> None:
    (root / "AllXML" / "20586934.xml").write_bytes(content)
    said = InBreast().annotations(root)
    assert ("AllXML/20586934.xml", "wrong_type") in said.rejected.select("path", "reason").rows()
    assert set(said.attributes.filter(image_id="20586934")["attribute"]) == {"density", "birads"}
    assert all("20586934" not in images for images in said.searched.values())
    assert len(said.findings) == 2


def test_without_outlines_no_finding_is_known(root: Path) -> None:
    (root / "AllXML" / "20586908.xml").unlink()
    (root / "AllXML").rmdir()
    said = InBreast().annotations(root)
    assert set(said.attributes["attribute"]) == {"density", "birads"} and said.searched == {}


def test_a_missing_column_or_table_is_named(root: Path) -> None:
    (root / "INbreast.csv").write_text(TABLE.replace(";", ","))
    with pytest.raises(DatasetError, match=r"INbreast\.csv has no column 'Laterality'"):
        InBreast().files(root)
    (root / "INbreast.csv").unlink()
    with pytest.raises(DatasetError, match=r"INbreast\.csv is missing"):
        InBreast().annotations(root)
