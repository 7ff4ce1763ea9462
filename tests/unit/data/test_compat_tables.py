"""The compat tables held against the reference's, computed here row by row in plain Python from the same files."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from mammoclip.artifacts import FINDING_NAMES, MANIFEST
from mammoclip.data.index import list_dataset
from mammoclip.data.splits import SplitFractions
from mammoclip.data.tabulate import tabulate_dataset
from mammoclip.datasets import ADAPTERS

CATEGORIES = (
    "Mass", "Suspicious Calcification", "Architectural Distortion", "Asymmetry", "Focal Asymmetry", "Global Asymmetry",
    "Suspicious Lymph Node", "Nipple Retraction", "Skin Retraction", "Skin Thickening",
)  # fmt: skip
HEIGHT, WIDTH = 3518, 2800


def write_vindr(root: Path, num_studies: int = 40) -> None:
    """Both tables of VinDr-Mammo, spelled as published, with boxes up to the border and rows of several findings."""
    rng = np.random.default_rng(4)
    breasts, findings = [], []
    for study in range(num_studies):
        split = "test" if study % 5 == 0 else "training"
        for side in "LR":
            density = f"DENSITY {'ABCD'[rng.integers(4)]}"
            birads = f"BI-RADS {rng.integers(1, 6)}"
            for view in ("CC", "MLO"):
                image = {
                    "study_id": f"st{study}", "series_id": f"se{study}", "image_id": f"im{study}{side}{view}",
                    "laterality": side, "view_position": view, "height": HEIGHT, "width": WIDTH,
                    "breast_birads": birads, "breast_density": density,
                }  # fmt: skip
                breasts.append({**image, "split": split})
                rows = [
                    (sorted(rng.choice(CATEGORIES, rng.integers(1, 3), replace=False).tolist()), corner)
                    for corner in rng.uniform([-5, -5], [WIDTH, HEIGHT], (rng.integers(0, 3), 2))
                ]
                for names, (x, y) in rows:
                    box = {"xmin": f"{x:.6f}", "ymin": f"{y:.6f}", "xmax": f"{x + 300:.6f}", "ymax": f"{y + 200:.6f}"}
                    found = {"finding_categories": str(names), "finding_birads": f"BI-RADS {rng.integers(3, 6)}", **box}
                    findings.append({**image, **found, "split": split})
                if not rows:
                    nothing = {"finding_categories": "['No Finding']", "finding_birads": ""}
                    empty = dict.fromkeys(("xmin", "ymin", "xmax", "ymax"), "")
                    findings.append({**image, **nothing, **empty, "split": split})
    for name, rows in (("breast-level_annotations", breasts), ("finding_annotations", findings)):
        with (root / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def crops(images: list[str]) -> pl.DataFrame:
    """A manifest in which every image has a crop of its own, made to 1520 x 912 pixels."""
    rows = []
    for number, image in enumerate(images):
        top, left, height, width = 5 + number % 7, 5 + number % 11, 3000 + number % 13, 1500 + number % 17
        rows.append(
            {
                "image_id": image, "shard": "0", "offset": 0, "length": 0, "height_px": 1520, "width_px": 912,
                "crop_top": top, "crop_bottom": top + height, "crop_left": left, "crop_right": left + width,
                "scale_x": 912 / width, "scale_y": 1520 / height, "pad_left": 0, "pad_top": 0, "grayscale": "compat",
                "crop": "compat", "geometry": "stretch", "bits": 8, "png_sha256": "0",
            }
        )  # fmt: skip
    return pl.DataFrame(rows, schema=MANIFEST.schema)


def tabulate(adapter: str, root: Path, manifest: pl.DataFrame | None = None, mode: Any = "compat") -> Any:
    reader = ADAPTERS[adapter]()
    index = list_dataset(reader, root, adapter).index
    fractions = SplitFractions(0.1, 0.2, 0)
    return tabulate_dataset(index, manifest, reader.annotations(root), adapter, mode, fractions)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def names_of(row: dict[str, str]) -> list[str]:
    return list(json.loads(row["finding_categories"].replace("'", '"')))


def test_vindr_rows_are_those_of_the_reference(tmp_path: Path) -> None:
    write_vindr(tmp_path)
    manifest = crops([row["image_id"] for row in read(tmp_path / "breast-level_annotations.csv")])
    place = {row["image_id"]: row for row in manifest.rows(named=True)}
    done = tabulate("vindr", tmp_path, manifest)
    theirs, ours = read(tmp_path / "finding_annotations.csv"), done.tables["labels"].rows(named=True)
    assert len(ours) == len(theirs) > len(place)  # a row per finding: more rows than images
    for row, label in zip(theirs, ours, strict=True):
        assert label["image_id"] == row["image_id"]
        assert (label["patient_id"], label["laterality"], label["view"]) == (
            row["study_id"],
            row["laterality"],
            row["view_position"],
        )
        assert label["given_split"] == {"training": "train"}.get(row["split"], row["split"])
        assert (label["split"] == "test") == (row["split"] == "test")
        assert label["density"] == "ABCD".index(row["breast_density"][-1])
        assert label["birads"] == int(row["breast_birads"][-1])
        present = {name.lower().replace(" ", "_") for name in names_of(row)}
        assert {name for name in FINDING_NAMES if label[name]} == present - {"no_finding"}
        assert label["no_finding"] == int("no_finding" in present)
        if not row["xmin"]:
            assert label["x_min"] is label["y_max"] is label["finding_birads"] is None
            continue
        crop = place[row["image_id"]]
        x, y = max(float(row["xmin"]) - 5, 0), max(float(row["ymin"]) - 5, 0)
        # The slip of the released code: each far corner is held against the other side of the image.
        x_far, y_far = min(float(row["xmax"]) - 5, HEIGHT - 10), min(float(row["ymax"]) - 5, WIDTH - 10)
        scale_x, scale_y = (
            912 / (crop["crop_right"] - crop["crop_left"]),
            1520 / (crop["crop_bottom"] - crop["crop_top"]),
        )
        left, top = crop["crop_left"] - 5, crop["crop_top"] - 5
        expected = [(x - left) * scale_x, (y - top) * scale_y, (x_far - left) * scale_x, (y_far - top) * scale_y]
        assert [label[name] for name in ("x_min", "y_min", "x_max", "y_max")] == pytest.approx(expected, abs=1e-9)
        assert label["finding_birads"] == int(row["finding_birads"][-1])
    assert len(done.tables["findings"]) == sum(len(names_of(row)) for row in theirs if row["xmin"])


def test_vindr_breasts_are_those_of_the_reference(tmp_path: Path) -> None:
    write_vindr(tmp_path)
    breasts = tabulate("vindr", tmp_path).tables["breasts"].rows(named=True)
    found: dict[tuple[str, str, str], set[str]] = {}
    for row in read(tmp_path / "finding_annotations.csv"):
        key = row["study_id"], row["laterality"], row["view_position"]
        found.setdefault(key, set()).update(name.lower().replace(" ", "_") for name in names_of(row))
    assert len(breasts) == len({key[:2] for key in found}) == 80
    assert any(breast["cc_positives"] != breast["mlo_positives"] for breast in breasts)
    for breast in breasts:
        for view in ("cc", "mlo"):
            present = found[breast["patient_id"], breast["laterality"], view.upper()]
            silent = present == {"no_finding"}
            assert set(breast[f"{view}_positives"]) == present
            assert set(breast[f"{view}_negatives"]) == (set() if silent else set(FINDING_NAMES) - present)
            assert breast[f"{view}_image_ids"] == [f"im{breast['patient_id'][2:]}{breast['laterality']}{view.upper()}"]


def test_strict_vindr_labels_are_the_union_per_image(tmp_path: Path) -> None:
    write_vindr(tmp_path)
    labels = tabulate("vindr", tmp_path, mode="strict").tables["labels"].rows(named=True)
    rows = read(tmp_path / "finding_annotations.csv")
    union: dict[str, set[str]] = {}
    for row in rows:
        union.setdefault(row["image_id"], set()).update(name.lower().replace(" ", "_") for name in names_of(row))
    assert len(labels) == len(union) == 160 < len(rows)
    for label in labels:
        assert {name for name in FINDING_NAMES if label[name]} == union[label["image_id"]] - {"no_finding"}
        assert label["x_min"] is None


RSNA = """site_id,patient_id,image_id,laterality,view,age,cancer,biopsy,invasive,BIRADS,implant,density,machine_id,\
difficult_negative_case,fold
2,10006,462822612,L,CC,61.0,0,0,0,,0,,29,False,2
2,10006,1459541791,L,MLO,61.0,0,0,0,,0,,29,False,2
1,10011,220375232,R,CC,55.0,1,1,1,0.0,1,C,21,True,0
1,10011,270344397,R,MLO,,1,1,0,2.0,1,A,21,False,0
"""


def test_rsna_rows_are_those_of_the_reference_with_the_folds_as_given(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(RSNA)
    done = tabulate("rsna", tmp_path)
    ours = {row["image_id"]: row for row in done.tables["labels"].rows(named=True)}
    theirs = read(tmp_path / "train.csv")
    assert len(ours) == len(theirs)
    for row in theirs:
        label = ours[row["image_id"]]
        for name, theirs_name in (("malignancy", "cancer"), ("biopsy", "biopsy"), ("invasive", "invasive"),
                                  ("implant", "implant"), ("fold", "fold")):  # fmt: skip
            assert label[name] == int(row[theirs_name])
        assert label["birads"] == (int(float(row["BIRADS"])) if row["BIRADS"] else None)
        assert label["density"] == ("ABCD".index(row["density"]) if row["density"] else None)
        assert (label["split"] == "test") == (row["fold"] == "0")
    assert len(done.rejects) == 0
