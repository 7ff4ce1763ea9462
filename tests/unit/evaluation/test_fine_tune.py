"""Fine-tuning: what it learns, what may choose its epoch, and that neither threads, processes nor a stop change it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from mammoclip.artifacts import ATTRIBUTES, IMAGES, LABELS, PREDICTIONS, Table, read_table, write_table
from mammoclip.config import Augmentation, EvaluateSection, FineTuneSection
from mammoclip.errors import ArtifactError, ConfigError, ModelError
from mammoclip.evaluation.classifier import Classifier, class_weights, parameter_groups, selection_score
from mammoclip.evaluation.fine_tune import FineTuneJob, LabelledImages, Tuned, fine_tune
from mammoclip.evaluation.metrics import auroc, macro_auroc
from mammoclip.models import EfficientNet, LoadedModel, TimmEncoder
from pipelines import fine_tune as stage
from tests.interruption import counting, stopping, stops
from tests.unit.evaluation.fine_tune_process import (
    SIZE_PX,
    labelled,
    make_job,
    make_model,
    read_image,
    run_process,
    small_fine_tuning,
)

SLOW_LEARNING = {"learning_rate": 3e-5, "num_epochs": 6}  # epochs differ in what they know
BATCH_NORMS = "timm:test_efficientnet"


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    torch.set_num_threads(1)
    return make_model()


def relabelled(part: LabelledImages, labels: np.ndarray) -> LabelledImages:
    return replace(part, labels=labels)


def assert_equal(found: Tuned, expected: Tuned) -> None:
    assert found.selected == expected.selected
    assert found.epochs == expected.epochs
    assert np.array_equal(found.validation, expected.validation)
    assert np.array_equal(found.test, expected.test)


# What it learns


def test_what_can_be_seen_is_learned(model: LoadedModel, tmp_path: Path) -> None:
    job = make_job(tmp_path)
    tuned = fine_tune(model, job)
    assert auroc(job.test.labels, tuned.test[:, 1]) > 0.9
    assert auroc(job.validation.labels, tuned.validation[:, 1]) > 0.9
    for scores, part in ((tuned.validation, job.validation), (tuned.test, job.test)):
        assert scores.shape == (len(part.image_ids), 2)
        assert scores.dtype == np.float64
        np.testing.assert_allclose(scores.sum(axis=1), 1.0, atol=1e-12)


def test_several_classes_are_learned(model: LoadedModel, tmp_path: Path) -> None:
    parts = {"train": labelled(48, 0, 3), "validation": labelled(18, 100, 3), "test": labelled(18, 200, 3)}
    job = make_job(tmp_path, num_classes=3, **parts)
    tuned = fine_tune(model, job)
    assert tuned.test.shape == (18, 3)
    assert macro_auroc(job.test.labels, tuned.test) > 0.8


def test_labels_that_say_nothing_about_the_images_teach_nothing(model: LoadedModel, tmp_path: Path) -> None:
    def meaningless(part: LabelledImages) -> LabelledImages:
        return relabelled(part, np.arange(len(part.labels)) // 2 % 2)  # as often of one shade as of the other

    job = make_job(tmp_path, test=labelled(40, 200))
    shuffled = replace(job, train=meaningless(job.train), validation=meaningless(job.validation))
    tuned = fine_tune(model, shuffled)
    assert abs(auroc(meaningless(job.test).labels, tuned.test[:, 1]) - 0.5) < 0.2


def test_a_head_alone_learns_and_leaves_the_encoder_alone(model: LoadedModel, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    job = make_job(tmp_path, trains_encoder=False, mode="compat", num_epochs=8, learning_rate=3e-3)
    tuned = fine_tune(model, job)
    assert auroc(job.test.labels, tuned.test[:, 1]) > 0.8
    assert all(torch.equal(value, before[name]) for name, value in model.model.state_dict().items())
    weights = torch.load(tmp_path / "step-8.pt", weights_only=True)["weights"]
    for name, value in model.model.image_encoder.state_dict().items():
        assert torch.equal(weights[f"encoder.{name}"], value)


def test_training_the_encoder_changes_a_copy_of_it(model: LoadedModel, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    fine_tune(model, make_job(tmp_path, num_epochs=1))
    assert all(torch.equal(value, before[name]) for name, value in model.model.state_dict().items())
    weights = torch.load(tmp_path / "step-1.pt", weights_only=True)["weights"]
    moved = [not torch.equal(weights[f"encoder.{name}"], p) for name, p in model.model.image_encoder.named_parameters()]
    assert all(moved)


@pytest.mark.parametrize(("mode", "moves"), [("compat", True), ("strict", False)])
def test_statistics_of_a_frozen_encoder_move_in_compat_alone(tmp_path: Path, mode: str, moves: bool) -> None:
    with_norms = make_model(BATCH_NORMS)
    fine_tune(with_norms, make_job(tmp_path, num_epochs=1, trains_encoder=False, mode=mode))
    after = torch.load(tmp_path / "step-1.pt", weights_only=True)["weights"]["encoder.backbone.bn1.running_mean"]
    assert torch.equal(after, with_norms.model.image_encoder.backbone.bn1.running_mean) is not moves


def test_what_an_image_scores_does_not_depend_on_the_others_in_its_batch(tmp_path: Path) -> None:
    with_dropout_and_norms = make_model("efficientnet-lite0")
    many, one = (
        fine_tune(with_dropout_and_norms, make_job(tmp_path / str(n), num_epochs=1, test=labelled(n, 200)))
        for n in (8, 1)
    )
    np.testing.assert_allclose(one.test, many.test[:1], atol=1e-6)


def test_bf16_gives_about_the_same(model: LoadedModel, tmp_path: Path) -> None:
    exact, rounded = (
        fine_tune(model, make_job(tmp_path / precision, precision=precision, num_epochs=1))
        for precision in ("fp32", "bf16")
    )
    assert not np.array_equal(exact.test, rounded.test)
    np.testing.assert_allclose(rounded.test, exact.test, atol=0.05)


# The loss


def test_positives_weigh_as_many_times_as_negatives_are_more() -> None:
    labels = np.array([0] * 9 + [1] * 3)
    for mode in ("strict", "compat"):
        assert class_weights(labels, 2, mode).tolist() == [1.0, 3.0]


def test_several_classes_weigh_the_inverse_of_their_share_in_strict_mode_alone() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    assert class_weights(labels, 3, "compat").tolist() == [1.0, 1.0, 1.0]
    weights = class_weights(labels, 3, "strict")
    assert (weights * np.bincount(labels)).tolist() == pytest.approx([2.0, 2.0, 2.0])
    assert weights[labels].mean() == pytest.approx(1.0)


def test_weights_are_of_the_training_images(model: LoadedModel, tmp_path: Path) -> None:
    """A head that cannot tell images apart ends at the prior that the weights make of the classes: 1/2."""
    labels = np.array([0] * 24 + [1] * 8)
    train = LabelledImages([f"{number}-0" for number in range(32)], labels)
    tuned = fine_tune(model, make_job(tmp_path, train=train, num_epochs=12, learning_rate=3e-3, patience=12))
    assert tuned.epochs[-1].loss == pytest.approx(2 * 0.75 * np.log(2), abs=0.15)  # 3/4 * 1 and 1/4 * 3 times ln 2


# What chooses the epoch


def test_the_score_is_auroc_or_where_a_class_is_absent_minus_the_log_loss() -> None:
    probabilities = np.array([[0.8, 0.2], [0.6, 0.4], [0.7, 0.3]])
    assert selection_score(np.array([0, 1, 1]), probabilities) == 1.0
    assert selection_score(np.array([0, 0, 0]), probabilities) == pytest.approx(np.log([0.8, 0.6, 0.7]).mean())
    three = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    assert selection_score(np.array([0, 1, 2]), three) == 1.0
    assert selection_score(np.array([0, 1, 1]), three) == pytest.approx(np.log([0.8, 0.8, 0.2]).mean())


def test_the_epoch_with_the_best_validation_score_predicts(model: LoadedModel, tmp_path: Path) -> None:
    job = make_job(tmp_path, **SLOW_LEARNING, patience=6)
    tuned = fine_tune(model, job)
    scores = [epoch.score for epoch in tuned.epochs]
    assert len(set(scores)) > 1
    assert tuned.selected == int(np.argmax(scores))
    assert selection_score(job.validation.labels, tuned.validation) == scores[tuned.selected]


def test_training_stops_when_patience_ends_in_strict_mode_alone(model: LoadedModel, tmp_path: Path) -> None:
    job = make_job(tmp_path / "strict", num_epochs=9, patience=2)
    misled = replace(job, validation=relabelled(job.validation, 1 - job.validation.labels))  # the more it learns, ...
    tuned = fine_tune(model, misled)
    assert len(tuned.epochs) == tuned.selected + 1 + 2 < 9
    compat = replace(misled, mode="compat", work=tmp_path / "compat", test=misled.validation)
    assert len(fine_tune(model, compat).epochs) == 9


def test_test_labels_choose_nothing_in_strict_mode(model: LoadedModel, tmp_path: Path) -> None:
    job = make_job(tmp_path / "as-they-are", **SLOW_LEARNING)
    permuted = relabelled(job.test, job.test.labels[::-1])
    assert (permuted.labels != job.test.labels).all()
    expected = fine_tune(model, job)
    assert_equal(fine_tune(model, replace(job, test=permuted, work=tmp_path / "permuted")), expected)


def test_test_labels_choose_the_epoch_in_compat_mode(model: LoadedModel, tmp_path: Path) -> None:
    job = make_job(tmp_path / "as-they-are", **SLOW_LEARNING, mode="compat")
    permuted = relabelled(job.test, job.test.labels[::-1])
    expected = fine_tune(model, job)
    found = fine_tune(model, replace(job, test=permuted, work=tmp_path / "permuted"))
    assert [epoch.loss for epoch in found.epochs] == [epoch.loss for epoch in expected.epochs]
    assert found.selected != expected.selected
    assert not np.array_equal(found.test, expected.test)


def test_compat_needs_no_validation_images(model: LoadedModel, tmp_path: Path) -> None:
    job = make_job(tmp_path, mode="compat", num_epochs=1, validation=labelled(0))
    assert fine_tune(model, job).validation.shape == (0, 2)


# Learning rates of layers


def rates(encoder: EfficientNet | TimmEncoder, trains_encoder: bool = True) -> dict[str, float]:
    classifier = Classifier(encoder, 2, trains_encoder=trains_encoder, mode="strict", bf16=False)
    groups = parameter_groups(classifier, FineTuneSection(learning_rate=1.0, layer_decay=0.5))
    of_parameter = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert len(of_parameter) == sum(len(group["params"]) for group in groups)
    torch.optim.AdamW(groups, weight_decay=0.1)
    assert {group.get("weight_decay", 0.1) for group in groups} == {0.1}
    return {name: of_parameter[id(p)] for name, p in classifier.named_parameters() if p.requires_grad}


def test_blocks_of_an_efficientnet_learn_the_slower_the_farther_from_the_head() -> None:
    encoder = EfficientNet("efficientnet-lite0")
    found, last = rates(encoder), len(encoder._blocks) - 1
    assert found["head.weight"] == found["encoder._conv_head.weight"] == found["encoder._bn1.bias"] == 1.0
    for block in range(last + 1):
        assert found[f"encoder._blocks.{block}._project_conv.weight"] == 0.5 ** (last - block)
    assert found["encoder._conv_stem.weight"] == found["encoder._bn0.weight"] == 0.5 ** (last + 1)


def test_blocks_of_a_timm_model_learn_the_slower_the_farther_from_the_head() -> None:
    found = rates(TimmEncoder("test_vit", SIZE_PX))
    assert found["head.bias"] == found["encoder.backbone.norm.weight"] == 1.0
    for block in range(6):
        assert found[f"encoder.backbone.blocks.{block}.norm1.bias"] == 0.5 ** (5 - block)
    assert found["encoder.backbone.patch_embed.proj.weight"] == found["encoder.backbone.pos_embed"] == 0.5**6


def test_of_a_frozen_encoder_nothing_is_trained() -> None:
    for encoder in (EfficientNet("efficientnet-lite0"), TimmEncoder("test_vit", SIZE_PX)):
        assert rates(encoder, trains_encoder=False) == {"head.weight": 1.0, "head.bias": 1.0}


# The same again


def test_the_number_of_threads_changes_nothing(model: LoadedModel, tmp_path: Path) -> None:
    one, three = (fine_tune(model, make_job(tmp_path / str(n), threads=n)) for n in (1, 3))
    assert_equal(three, one)


def test_augmentation_differs_between_epochs_and_is_none_at_probability_0(model: LoadedModel, tmp_path: Path) -> None:
    losses = {}
    for probability in (0.0, 0.5):
        tuned = fine_tune(
            model,
            make_job(
                tmp_path / str(probability),
                trains_encoder=False,
                learning_rate=1e-30,
                num_epochs=2,
                augmentation=Augmentation(probability=probability),
            ),
        )
        losses[probability] = [epoch.loss for epoch in tuned.epochs]
    assert losses[0.0][0] == pytest.approx(losses[0.0][1], abs=1e-6)  # 32 images in four whole batches, in any order
    assert losses[0.5][0] != pytest.approx(losses[0.5][1], abs=1e-6)


def test_images_are_mirrored_where_the_configuration_says(model: LoadedModel, tmp_path: Path) -> None:
    still = {"rotation_deg": 0.0, "translation_fraction": 0.0, "scale_range": (1.0, 1.0), "shear_deg": 0.0}
    found = []
    for flips, columns in ((False, slice(None)), (False, slice(None, None, -1)), (True, slice(None, None, -1))):
        changes = {"horizontal_flip": flips, "vertical_flip": False, "elastic_alpha_px": 0.0, "probability": 1.0}
        tuned = fine_tune(
            model,
            make_job(
                tmp_path / str(len(found)),
                num_epochs=1,
                augmentation=Augmentation(**still, **changes),
                read_image=lambda image_id, columns=columns: np.ascontiguousarray(read_image(image_id)[:, columns]),
            ),
        )
        found.append(tuned.epochs[0].loss)
    as_they_are, mirrored, mirrored_twice = found
    assert mirrored_twice == as_they_are != mirrored


@pytest.mark.parametrize("encoder", ["timm:test_vit", "efficientnet-lite0"])  # the second: dropout and batch norms
@stops
def test_what_was_stopped_goes_on_to_the_very_same_result(
    tmp_path: Path, encoder: str, stop: Callable[[], None], raised: type[Exception]
) -> None:
    model = make_model(encoder)
    parts = {"train": labelled(17), "validation": labelled(6, 100), "test": labelled(6, 200)}
    expected = fine_tune(model, make_job(tmp_path / "whole", **parts))
    job = make_job(tmp_path / "stopped", **parts)
    of_epoch = 16 + 6
    with pytest.raises(raised):
        fine_tune(model, replace(job, read_image=stopping(read_image, of_epoch + 3, stop)))
    read: list[str] = []
    assert_equal(fine_tune(model, replace(job, read_image=counting(read_image, read))), expected)
    assert len(read) == 2 * of_epoch + 6 + 6  # not the first epoch again


def test_a_damaged_checkpoint_is_passed_over(model: LoadedModel, tmp_path: Path) -> None:
    job = make_job(tmp_path)
    expected = fine_tune(model, job)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-2.pt", "step-3.pt"]
    os.truncate(tmp_path / "step-3.pt", 1000)
    assert_equal(fine_tune(model, job), expected)


def test_two_processes_find_what_one_finds(model: LoadedModel, tmp_path: Path) -> None:
    expected = small_fine_tuning(tmp_path / "alone")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    module = "tests.unit.evaluation.fine_tune_process"
    other = subprocess.Popen([sys.executable, "-m", module, str(tmp_path), str(port), "1"])
    try:
        run_process(tmp_path, port, 0)  # this process is one of the two: importing everything twice takes long
        assert other.wait(timeout=60) == 0
    finally:
        other.kill()
        other.wait()
    first, second = (np.load(tmp_path / f"{rank}.npz") for rank in range(2))
    for name in ("validation", "test", "epochs"):
        assert np.array_equal(first[name], second[name])
    assert expected.test.std(axis=0).min() > 0.01
    np.testing.assert_allclose(first["epochs"][:, 0], [epoch.loss for epoch in expected.epochs], rtol=1e-4)
    np.testing.assert_allclose(first["validation"], expected.validation, atol=1e-3)
    np.testing.assert_allclose(first["test"], expected.test, atol=1e-3)


# Errors


def wrong_size(image_id: str) -> np.ndarray:
    return np.zeros((32, 16), np.uint8)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"validation": labelled(0)}, ArtifactError, "needs validation images with labels"),
        ({"test": labelled(0)}, ArtifactError, "needs test images with labels"),
        ({"num_classes": 4}, ArtifactError, "no training image has class 2 or 3 of 4"),
        ({"read_image": wrong_size}, ArtifactError, r"image '\d+-[01]' has the shape .32, 16.; .* of 32 x 32 pixels"),
        ({"batch_size": 64}, ConfigError, r"32 training images do not fill one batch of .*batch_size=64"),
        ({"world_size": 3}, ConfigError, "8 images cannot be divided among 3 processes; choose a multiple of 3"),
        ({"learning_rate": 1e30}, ModelError, "not finite in epoch 1; lower evaluate.fine_tune.learning_rate"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(
    model: LoadedModel, tmp_path: Path, changes: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        fine_tune(model, make_job(tmp_path, **changes))


def test_images_of_16_bits_are_read_too(model: LoadedModel, tmp_path: Path) -> None:
    job: FineTuneJob = make_job(tmp_path, read_image=lambda image_id: read_image(image_id).astype(np.uint16) << 8)
    assert auroc(job.test.labels, fine_tune(model, job).test[:, 1]) > 0.9


# The command


def filled(table: Table, **columns: list[Any]) -> pl.DataFrame:
    """A table with these columns, nulls where they may be, and anything else elsewhere."""
    rows = len(next(iter(columns.values())))
    anything = {pl.String: "x", pl.Int32: 0}
    values = {
        name: columns.get(name) or [None if column.nullable else anything[column.dtype]] * rows
        for name, column in table.columns.items()
    }
    return pl.DataFrame(values, schema=table.schema)


@pytest.mark.parametrize(("mode", "protocol"), [("strict", "fine-tune"), ("compat", "linear-probe")])
def test_the_command_writes_predictions_and_clears_its_work(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, protocol: str
) -> None:
    parts = {"train": labelled(32), "validation": labelled(8, 100), "test": labelled(8, 200)}
    ids = [image_id for part in parts.values() for image_id in part.image_ids]
    split = [name for name, part in parts.items() for _ in part.image_ids]
    values = [int(image_id[-1]) for image_id in ids]
    shared = {"image_id": ids, "patient_id": ids, "split": split}
    write_table(filled(IMAGES, **shared), IMAGES, tmp_path / "images.parquet")
    of_mass = {"image_id": ids, "attribute": ["mass"] * len(ids), "value": values, "source": ["table"] * len(ids)}
    write_table(filled(ATTRIBUTES, **of_mass), ATTRIBUTES, tmp_path / "attributes.parquet")
    write_table(filled(LABELS, **shared, given_split=split, mass=values), LABELS, tmp_path / "labels.parquet")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(stage, "load", lambda path, device: model)
    monkeypatch.setattr(stage, "ShardReader", lambda *_: Namespace(read=read_image, close=lambda: None))
    matrix = [{"datasets": ["ours"], "tasks": ["mass"], "protocols": [protocol], "fractions": [0.5], "seeds": [2]}]
    section = EvaluateSection(mode=mode, matrix=matrix, fine_tune={"num_epochs": 2, "learning_rate": 1e-3})
    tables = {name: tmp_path / f"{name}.parquet" for name in ("images", "attributes", "labels")}
    of_cell = {"task": "mass", "protocol": protocol, "fraction": 0.5, "seed": 2}
    paths = {"model": tmp_path, "shards": tmp_path, "work": tmp_path / "work", "out": tmp_path / "predictions.parquet"}
    stage.run(Namespace(config=section, threads=1, **tables, **of_cell, **paths))
    written = read_table(PREDICTIONS, tmp_path / "predictions.parquet")
    assert written["split"].unique().sort().to_list() == ["test", "validation"]
    assert set(written.filter(pl.col("split") == "test")["image_id"]) == set(parts["test"].image_ids)
    assert written["label"].to_list() == [int(image_id[-1]) for image_id in written["image_id"]]
    assert written.select(list(of_cell)).unique().rows(named=True) == [of_cell]
    assert written["selected"].unique().to_list() in ([0.0], [1.0])
    assert list((tmp_path / "work").iterdir()) == []


def test_another_model_seed_or_setting_does_not_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    for name in ("images", "attributes", "labels", "model.safetensors"):
        (tmp_path / name).write_bytes(b"")

    def folder(seed: int = 0, fraction: float = 1.0, **options: Any) -> Path:
        matrix = [{"datasets": ["ours"], "tasks": ["mass"], "protocols": ["fine-tune"]}]
        section = EvaluateSection(matrix=matrix, fine_tune=options)
        tables = {name: tmp_path / name for name in ("images", "attributes", "labels")}
        cell = {"task": "mass", "protocol": "fine-tune", "fraction": fraction, "seed": seed}
        return stage.work_folder(Namespace(config=section, model=tmp_path, work=tmp_path / "work", **tables, **cell))

    first = folder()
    assert folder() == first
    others = [folder(seed=1), folder(fraction=0.5), folder(num_epochs=3)]
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    assert len({first, *others, folder()}) == 5
