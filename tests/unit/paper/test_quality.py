"""The quality page: what it counts, and that it is one file which people can read."""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mammoclip.artifacts import MANIFEST, REJECT_REASONS, REJECTS, read_table
from mammoclip.errors import ArtifactError
from mammoclip.paper.inputs import DatasetTables, Inputs
from mammoclip.paper.quality import Quality, describe_quality, draw_crop_ratios, render_quality
from mammoclip.paper.unusual import most_unusual, read_pictures
from pipelines.quality import run
from tests.unit.paper.html_page import Page

HOSTILE = "<script>alert('x')</script> & \"Sons\""


@pytest.fixture
def tables(inputs: Inputs) -> DatasetTables:
    """The tables of 24 images, 23 of them written; the crop of the second is planted to be unusual."""
    tables = inputs.datasets["cohort"]
    planted = pl.col("image_id") == "cohort-p1-L-MLO"
    manifest = tables.manifest.with_columns(crop_bottom=pl.when(planted).then(12).otherwise(pl.col("crop_bottom")))
    return replace(tables, manifest=manifest)


def _describe(tables: DatasetTables) -> Quality:
    return describe_quality("cohort", tables.index, tables.index_rejects, tables.manifest, tables.shard_rejects)


def _render(tables: DatasetTables) -> str:
    quality = _describe(tables)
    return render_quality(quality, read_pictures(quality.unusual, tables.manifest, tables.shards))


def _with_values(tables: DatasetTables, **values: list[object]) -> DatasetTables:
    """The tables with these values in the index, repeated over its rows."""
    rows = len(tables.index)
    columns = [
        pl.Series(name, list(itertools.islice(itertools.cycle(some), rows)), tables.index.schema[name])
        for name, some in values.items()
    ]
    return replace(tables, index=tables.index.with_columns(columns))


def _keep(tables: DatasetTables, number: int) -> DatasetTables:
    """The tables of a data set of which the first ``number`` images were written, the others rejected."""
    manifest = tables.manifest.sort("image_id")[:number]
    lost = tables.index.filter(~pl.col("image_id").is_in(manifest["image_id"].to_list()))["path"].to_list()
    rejects = [("cohort", "shard", path, "no_breast", "nothing stands out") for path in lost]
    return replace(tables, manifest=manifest, shard_rejects=pl.DataFrame(rejects, schema=REJECTS.schema, orient="row"))


def _rows(quality: Quality, title: str) -> list[tuple[str, int]]:
    (counts,) = (counts for counts in quality.counts if counts.header == title)
    return [(value, count) for value, (count,) in counts.rows]


# What is counted.


def test_files_found_are_images_written_and_rejects(tables: DatasetTables) -> None:
    quality = _describe(tables)
    assert (quality.num_found, quality.num_written) == (25, 23)
    assert (quality.num_rejected_index, quality.num_rejected_shard, quality.num_missing) == (1, 1, 1)
    assert quality.num_found == quality.num_written + quality.num_rejected_index + quality.num_rejected_shard


def test_rejects_of_both_stages_have_their_sentences(tables: DatasetTables) -> None:
    rejects = [(reject.stage, reject.reason, reject.count) for reject in _describe(tables).rejects]
    assert sorted(rejects) == [
        ("index", "missing_file", 1),
        ("index", "not_dicom", 1),
        ("shard", "constant_image", 1),
    ]
    assert all(reject.sentence == REJECT_REASONS[reject.reason] for reject in _describe(tables).rejects)


def test_images_are_counted_by_every_attribute(tables: DatasetTables) -> None:
    tables = _with_values(
        tables,
        bits_stored=[12, 12, 14],
        rows=[96, 96, 200],
        columns=[64, 80],
        manufacturer=["Maker", None, ""],
        transfer_syntax=["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.90"],
        presentation_intent=["FOR PRESENTATION", None],
    )
    written = [row for row in tables.index.to_dicts() if row["image_id"] in set(tables.manifest["image_id"])]
    names = {
        "1.2.840.10008.1.2.1": "Explicit VR Little Endian",
        "1.2.840.10008.1.2.4.90": "JPEG 2000 Image Compression (Lossless Only)",
    }
    expected = {
        "View": Counter(row["view"] for row in written),
        "Laterality": Counter(row["laterality"] for row in written),
        "Manufacturer": Counter(row["manufacturer"] or "not stated" for row in written),
        "Transfer syntax": Counter(names[row["transfer_syntax"]] for row in written),
        "Bit depth": Counter(str(row["bits_stored"]) for row in written),
        "Rows × columns": Counter(f"{row['rows']} × {row['columns']}" for row in written),  # noqa: RUF001
        "Presentation intent": Counter(row["presentation_intent"] or "not stated" for row in written),
    }
    quality = _describe(tables)
    assert {counts.header: dict(_rows(quality, counts.header)) for counts in quality.counts} == expected
    for counts in quality.counts:
        numbers = [count for _, (count,) in counts.rows]
        assert numbers == sorted(numbers, reverse=True)
        assert sum(numbers) == quality.num_written


def test_a_long_table_is_cut_and_the_rest_is_summed_up(tables: DatasetTables) -> None:
    makers = ["Often"] * 6 + [f"Maker {number:02d}" for number in range(18)]
    quality = _describe(_with_values(tables, manufacturer=makers))
    (counts,) = (counts for counts in quality.counts if counts.header == "Manufacturer")
    rows = _rows(quality, "Manufacturer")
    assert len(rows) == 15
    assert rows[0] == ("Often", 5)  # one of the six was rejected
    assert rows[-1] == ("Maker 13", 1)
    assert (counts.num_more, counts.more) == (4, [4])
    assert sum(count for _, count in rows) + 4 == 23


def test_fifteen_values_are_not_cut(tables: DatasetTables) -> None:
    quality = _describe(_with_values(tables, manufacturer=[f"Maker {number:02d}" for number in range(15)]))
    assert len(_rows(quality, "Manufacturer")) == 15
    assert all(counts.num_more == 0 for counts in quality.counts)


def test_flags_are_counted_and_a_header_that_says_nothing_is_not_a_no(tables: DatasetTables) -> None:
    tables = _with_values(tables, implant=[True, False, None], synthetic_2d=[True, False])
    written = tables.manifest.join(tables.index, on="image_id")
    implants, synthetic = (Counter(written[name].to_list()) for name in ("implant", "synthetic_2d"))
    assert list(_describe(tables).flags) == [
        ("magnification", 0, 23, 0),
        ("spot compression", 0, 23, 0),
        ("implant", implants[True], implants[False], implants[None]),
        ("implant displaced", 0, 23, 0),
        ("synthetic 2D", synthetic[True], synthetic[False], 0),
    ]


def test_the_planted_crop_comes_first(tables: DatasetTables) -> None:
    quality = _describe(tables)
    assert quality.unusual[0].image_id == "cohort-p1-L-MLO"
    assert quality.unusual[0].reason == "crop ratio 0.12, median of all images 1.00"
    assert [crop.image_id for crop in quality.unusual[1:4]] == ["cohort-p0-L-MLO", "cohort-p0-R-CC", "cohort-p0-R-MLO"]
    assert sorted(quality.ratios.tolist()) == [12 / 96] + [1.0] * 22


def test_the_order_of_the_rows_does_not_matter(tables: DatasetTables) -> None:
    reordered = replace(tables, index=tables.index.reverse(), manifest=tables.manifest.reverse())
    assert _render(reordered) == _render(tables)


def test_an_image_lost_by_the_shards_is_an_error(tables: DatasetTables) -> None:
    with pytest.raises(ArtifactError, match="24 indexed, 22 written, 1 rejected"):
        _describe(replace(tables, manifest=tables.manifest[1:]))


def test_the_histogram_holds_every_image_and_marks_unusual_ratios(tables: DatasetTables) -> None:
    ratios = np.array([0.0, 0.31, 0.33, 0.5, 0.5, 1.0])
    unusual = most_unusual(tables.manifest.join(tables.index, on="image_id"), 1)
    for measure, marks in (("crop ratio", [12 / 96]), ("height to width", [])):
        (axes,) = draw_crop_ratios(ratios, [replace(unusual[0], measure=measure)]).axes
        heights = {round(bar.get_x(), 2): bar.get_height() for bar in axes.patches if bar.get_height()}
        assert heights == {0.0: 1, 0.3: 1, 0.32: 1, 0.5: 2, 0.98: 1}
        (drawn,) = (line for line in axes.lines if line.get_marker() == "^")
        assert list(drawn.get_xdata()) == marks


# The page.


@pytest.fixture
def page(tables: DatasetTables) -> Page:
    return Page(_render(tables))


def test_the_page_needs_no_other_resource(page: Page, tables: DatasetTables) -> None:
    for tag, attributes, _ in page.find("img", "script", "link", "iframe", "source", "object", "video"):
        assert tag == "img"
        assert str(attributes["src"]).startswith("data:image/")
    assert all(str(attributes["href"]).startswith("#") for _, attributes, _ in page.find("a"))
    style = page.find("style")[0][2]
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in _render(tables)


def test_links_have_targets_and_headings_are_in_order(page: Page) -> None:
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert [str(attributes["href"])[1:] for _, attributes, _ in page.find("a")] == ids
    assert [(tag, text) for tag, _, text in page.find("h1", "h2", "h3")] == [
        ("h1", "Data quality: cohort"),
        ("h2", "Files and rejects"),
        ("h2", "Images"),
        ("h2", "Crop ratios"),
        ("h2", "Most unusual crops"),
    ]


def test_every_picture_is_there_in_words(page: Page) -> None:
    alternatives = [str(attributes["alt"]) for _, attributes, _ in page.find("img")]
    assert len(alternatives) == 1 + 10
    assert alternatives[0].startswith("Histogram of the crop ratios of 23 images: from 0.12 to 1.00, median 1.00.")
    assert all(text.startswith("Mammogram crop, ") for text in alternatives[1:])


def test_every_table_header_says_what_it_heads(page: Page) -> None:
    assert all(attributes.get("scope") in {"col", "row"} for _, attributes, _ in page.find("th"))
    assert len(page.find("caption")) == len(page.find("table")) == 1 + 7 + 1


def test_the_page_has_a_language_a_dark_side_and_a_warning(page: Page, tables: DatasetTables) -> None:
    assert _render(tables).startswith("<!doctype html>")
    assert page.find("html")[0][1]["lang"] == "en"
    assert "viewport" in [attributes.get("name") for _, attributes, _ in page.find("meta")]
    assert "prefers-color-scheme: dark" in page.find("style")[0][2]
    assert "Research software. Not a medical device. Not for clinical use." in page.find("header")[0][2]


def test_the_sum_and_the_reasons_are_on_the_page(page: Page) -> None:
    assert (
        "25 files found = 23 images written + 1 rejected at index + 1 rejected at shard; 1 more listed in the data "
        "set's tables, but not there." in page.text()
    )
    assert "all pixels are equal" in page.text()


def test_the_most_unusual_crop_is_shown_first_with_its_numbers(page: Page) -> None:
    first = next(text for _, attributes, text in page.find("li") if text.endswith("cohort-p1-L-MLO"))
    assert page.find("ul")[-1][2].startswith(first)
    assert "L MLO" in first
    assert "median of all images" in first
    assert "12 × 64 of 96 × 64" in first  # noqa: RUF001


def test_flags_stand_beside_the_crop(tables: DatasetTables) -> None:
    cards = Page(_render(_with_values(tables, magnification=[True]))).find("ul")[-1][2]
    assert "L MLO, magnification" in cards


def test_a_cut_table_says_how_much_is_left_out(tables: DatasetTables) -> None:
    makers = [f"Maker {number:02d}" for number in range(24)]
    page = Page(_render(_with_values(tables, manufacturer=makers)))
    assert page.has_row("and 8 more", "8")


def test_a_hostile_manufacturer_stays_text(tables: DatasetTables) -> None:
    text = _render(_with_values(tables, manufacturer=[HOSTILE]))
    assert "<script" not in text.lower()
    assert Page(text).has_row(HOSTILE, "23")


def test_no_path_of_a_reject_and_no_detail_is_shown(tables: DatasetTables) -> None:
    text = _render(tables)
    for rejects in (tables.index_rejects, tables.shard_rejects):
        for path, detail in rejects.select("path", "detail").rows():
            assert path not in text
            assert detail not in text


def test_no_patient_and_no_study_is_named(tables: DatasetTables) -> None:
    named = tables.index.with_columns(patient_id=pl.lit("patient-7"), study_id=pl.lit("study-7"))
    text = _render(replace(tables, index=named))
    assert "patient-7" not in text
    assert "study-7" not in text


def test_a_data_set_without_an_image_says_so(tables: DatasetTables) -> None:
    text = _render(_keep(tables, 0))
    page = Page(text)
    assert "25 files found = 0 images written + 1 rejected at index + 24 rejected at shard" in page.text()
    assert "No image was written" in page.text()
    assert not page.find("img")
    assert [attributes["href"] for _, attributes, _ in page.find("a")] == ["#files"]


def test_a_data_set_without_a_file_says_so(tables: DatasetTables) -> None:
    empty = replace(
        tables,
        index=tables.index.clear(),
        index_rejects=REJECTS.empty(),
        manifest=MANIFEST.empty(),
        shard_rejects=REJECTS.empty(),
    )
    page = Page(_render(empty))
    assert "0 files found = 0 images written + 0 rejected at index + 0 rejected at shard." in page.text()
    assert "Nothing was rejected." in page.text()
    assert "No image was written" in page.text()


def test_a_data_set_of_one_image_has_a_whole_page(tables: DatasetTables) -> None:
    page = Page(_render(_keep(tables, 1)))
    assert len(page.find("img")) == 2
    assert "Counts of the 1 image written" in page.text()
    assert "Crop ratio 1.00, median of all images 1.00 (z 0.0)" in page.text()


# The command.


def _arguments(results: Path, out: Path, adapter: str = "") -> argparse.Namespace:
    return argparse.Namespace(
        dataset="cohort",
        adapter=adapter,
        index=results / "index" / "cohort.parquet",
        index_rejects=results / "index" / "cohort.rejects.parquet",
        manifest=results / "shard" / "cohort" / "manifest.parquet",
        shard_rejects=results / "shard" / "cohort.rejects.parquet",
        shards=results / "shard" / "cohort",
        out=out,
    )


def test_the_page_is_made_from_index_and_shards_alone(pristine_results: Path, tmp_path: Path) -> None:
    only = tmp_path / "results"
    for stage in ("index", "shard"):
        (only / stage).parent.mkdir(exist_ok=True)
        (only / stage).symlink_to(pristine_results / stage)
    for name in ("first.html", "second.html"):
        run(_arguments(only, tmp_path / name))
    assert (tmp_path / "first.html").read_bytes() == (tmp_path / "second.html").read_bytes()
    page = Page((tmp_path / "first.html").read_text(encoding="utf-8"))
    assert len(page.find("img")) == 11


def test_real_films_are_credited(pristine_results: Path, tmp_path: Path) -> None:
    texts = {}
    for adapter in ("cbis_ddsm", "phantom", "rsna", ""):
        out = tmp_path / f"{adapter}.html"
        run(_arguments(pristine_results, out, adapter))
        texts[adapter] = Page(out.read_text(encoding="utf-8")).text()
    assert "CC BY 3.0" in texts["cbis_ddsm"]
    assert "doi:10.7937/K9/TCIA.2016.7O02S9CY" in texts["cbis_ddsm"]
    assert "Images: computer-generated phantoms, not patients" in texts["phantom"]
    assert texts["rsna"].count("doi:") == 0
    assert "Images: " not in texts[""]


def test_tables_that_do_not_add_up_leave_no_page(results: Path, tmp_path: Path) -> None:
    arguments = _arguments(results, tmp_path / "quality.html")
    arguments.shard_rejects = results / "index" / "cohort.rejects.parquet"
    with pytest.raises(ArtifactError, match="do not conserve images"):
        run(arguments)
    assert not arguments.out.exists()


def test_the_command_says_in_one_sentence_which_file_is_missing(results: Path, tmp_path: Path) -> None:
    arguments = _arguments(results, tmp_path / "quality.html")
    manifest = read_table(MANIFEST, arguments.manifest)
    (arguments.shards / manifest["shard"][0]).unlink()
    options = [(f"--{name.replace('_', '-')}", str(value)) for name, value in vars(arguments).items()]
    command = [sys.executable, "-m", "pipelines.quality", *itertools.chain(*options), "--log", str(tmp_path / "a.log")]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    assert finished.stderr.strip() == f"Error: {arguments.shards / '00000.tar'} does not exist; rerun the shard stage"
    assert not arguments.out.exists()
