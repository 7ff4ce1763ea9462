import ast
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pydicom
import pytest
from pydicom.errors import InvalidDicomError

from mammoclip.datasets.phantom import generate_cohort
from mammoclip.errors import DatasetError

NUM_PATIENTS, SEED, ROWS, COLUMNS = 10, 5, 200, 128


@dataclass(frozen=True)
class Cohort:
    root: Path
    breasts: pl.DataFrame
    findings: pl.DataFrame
    reports: pl.DataFrame
    broken: pl.DataFrame


def generate(out: Path, num_patients: int = NUM_PATIENTS, seed: int = SEED, processes: int = 1) -> None:
    generate_cohort(out, num_patients=num_patients, seed=seed, rows_px=ROWS, columns_px=COLUMNS, processes=processes)


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    root = tmp_path_factory.mktemp("cohort")
    generate(root)
    tables = ("breast-level_annotations", "finding_annotations", "reports", "broken_files")
    return Cohort(root, *(pl.read_csv(root / f"{name}.csv") for name in tables))


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_processes(cohort: Cohort, tmp_path: Path) -> None:
    generate(tmp_path, processes=2)
    assert contents(tmp_path) == contents(cohort.root)


def test_another_seed_gives_another_cohort(cohort: Cohort, tmp_path: Path) -> None:
    generate(tmp_path, num_patients=1, seed=SEED + 1)
    assert not {path for path in contents(tmp_path) if path.startswith("images/")} & set(contents(cohort.root))


def test_a_patient_is_the_same_in_a_cohort_of_another_size(cohort: Cohort, tmp_path: Path) -> None:
    generate(tmp_path, num_patients=2)
    images = {path: data for path, data in contents(tmp_path).items() if path.startswith("images/")}
    assert images.items() <= contents(cohort.root).items()
    assert pl.read_csv(tmp_path / "reports.csv").equals(cohort.reports.head(2))


def test_every_exam_has_four_listed_files(cohort: Cohort) -> None:
    views = cohort.breasts.group_by("study_id").agg(pl.struct("laterality", "view_position").n_unique(), pl.len())
    assert views["len"].to_list() == views["laterality"].to_list() == [4] * NUM_PATIENTS
    for row in cohort.breasts.iter_rows(named=True):
        assert (cohort.root / "images" / row["study_id"] / f"{row['image_id']}.dicom").is_file()


def test_identifiers_are_32_hexadecimal_digits_and_images_are_unique(cohort: Cohort) -> None:
    for column in ("patient_id", "study_id", "series_id", "image_id"):
        assert all(re.fullmatch("[0-9a-f]{32}", value) for value in cohort.breasts[column])
    assert cohort.breasts["image_id"].is_unique().all()


def test_tables_and_headers_agree(cohort: Cohort) -> None:
    for row in cohort.breasts.iter_rows(named=True):
        ds = pydicom.dcmread(cohort.root / "images" / row["study_id"] / f"{row['image_id']}.dicom")
        assert (ds.ImageLaterality, ds.ViewPosition) == (row["laterality"], row["view_position"])
        assert ds.pixel_array.shape == (ds.Rows, ds.Columns) == (row["height"], row["width"])
        assert np.ptp(ds.pixel_array) > 100


def test_values_are_spelled_as_in_vindr_mammo(cohort: Cohort) -> None:
    assert set(cohort.breasts["breast_density"]) <= {f"DENSITY {letter}" for letter in "ABCD"}
    assert set(cohort.breasts["breast_birads"]) <= {f"BI-RADS {number}" for number in range(1, 6)}
    assert set(cohort.breasts["split"]) == {"training", "test"}
    categories = [ast.literal_eval(text) for text in cohort.findings["finding_categories"]]
    assert {name for names in categories for name in names} == {"Mass", "Suspicious Calcification", "No Finding"}


def test_one_patient_in_five_is_in_the_test_split(cohort: Cohort) -> None:
    patients = cohort.breasts.unique("patient_id")
    assert (patients["split"] == "test").sum() == NUM_PATIENTS // 5


def test_every_image_has_boxes_or_one_row_without_a_finding(cohort: Cohort) -> None:
    assert set(cohort.findings["image_id"]) == set(cohort.breasts["image_id"])
    healthy = pl.col("finding_categories") == "['No Finding']"
    boxes = ["xmin", "ymin", "xmax", "ymax", "finding_birads"]
    assert cohort.findings.filter(healthy).select(pl.col(boxes).is_null().all()).row(0) == (True,) * 5
    assert cohort.findings.filter(~healthy).select(pl.col(boxes).is_not_null().all()).row(0) == (True,) * 5
    assert cohort.findings.filter(healthy)["image_id"].is_unique().all()
    inside = cohort.findings.filter(~healthy).select(
        ((pl.col("xmin") >= 0) & (pl.col("xmax") <= pl.col("width")) & (pl.col("ymax") <= pl.col("height"))).all()
    )
    assert inside.item()


def test_each_finding_appears_in_both_views(cohort: Cohort) -> None:
    per_view = (
        cohort.findings.filter(pl.col("xmin").is_not_null())
        .group_by("study_id", "laterality", "finding_categories")
        .agg(pl.col("view_position").sort())
    )
    assert per_view["view_position"].to_list() == [["CC", "MLO"]] * per_view.height


def test_every_exam_has_one_report(cohort: Cohort) -> None:
    assert cohort.reports["study_id"].to_list() == cohort.breasts["study_id"].unique(maintain_order=True).to_list()


def test_broken_files_are_unlisted_and_unusable(cohort: Cohort) -> None:
    problems = dict(zip(cohort.broken["what"], cohort.broken["path"], strict=True))
    assert set(problems) == {"truncated", "not DICOM", "empty", "no pixel data", "constant image"}
    assert not {Path(path).parent.name for path in problems.values()} & set(cohort.breasts["study_id"])
    for what in ("not DICOM", "empty"):
        with pytest.raises((InvalidDicomError, EOFError)):
            pydicom.dcmread(cohort.root / problems[what])
    with pytest.raises((AttributeError, ValueError, RuntimeError, EOFError)):
        _ = pydicom.dcmread(cohort.root / problems["truncated"]).pixel_array
    assert "PixelData" not in pydicom.dcmread(cohort.root / problems["no pixel data"])
    assert np.ptp(pydicom.dcmread(cohort.root / problems["constant image"]).pixel_array) == 0


def test_no_table_or_file_name_holds_what_the_headers_call_the_patient(cohort: Cohort) -> None:
    text = "".join(path.read_text() for path in cohort.root.glob("*.csv"))
    names = "".join(contents(cohort.root))
    for path in (cohort.root / "images").rglob("*.dicom"):
        if path.relative_to(cohort.root).as_posix() not in set(cohort.broken["path"]):
            ds = pydicom.dcmread(path, stop_before_pixels=True)
            for secret in (ds.PatientID, str(ds.PatientName), ds.PatientBirthDate, ds.SOPInstanceUID):
                assert secret
                assert secret not in text + names


def test_the_summary_counts_what_was_written(cohort: Cohort) -> None:
    summary = json.loads((cohort.root / "phantom.json").read_text())
    assert summary["num_patients"] == NUM_PATIENTS
    assert summary["num_images"] == cohort.breasts.height == 4 * NUM_PATIENTS
    assert summary["num_boxes"] == cohort.findings["xmin"].count()
    assert summary["num_broken_files"] == cohort.broken.height
    assert (summary["seed"], summary["rows_px"], summary["columns_px"]) == (SEED, ROWS, COLUMNS)
    assert not list(cohort.root.glob("*.partial"))


def test_progress_counts_up_to_the_number_of_patients(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    generate_cohort(
        tmp_path,
        num_patients=3,
        seed=0,
        rows_px=ROWS,
        columns_px=COLUMNS,
        processes=1,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("wrong", [{"num_patients": 0}, {"processes": 0}, {"rows_px": 20}, {"columns_px": 20}])
def test_impossible_sizes_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    good = {"num_patients": 1, "seed": 0, "rows_px": ROWS, "columns_px": COLUMNS, "processes": 1}
    with pytest.raises(DatasetError, match="ask for at least"):
        generate_cohort(tmp_path, **(good | wrong))


def test_an_occupied_folder_is_left_alone(cohort: Cohort) -> None:
    before = contents(cohort.root)
    with pytest.raises(DatasetError, match="already holds files"):
        generate(cohort.root)
    assert contents(cohort.root) == before
