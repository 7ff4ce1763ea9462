"""Training of the detector: what it learns, what may choose its epoch, and that a stop or processes change nothing."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from mammoclip.config import Augmentation, DetectionSection
from mammoclip.data.warp import WarpParameters, apply_warp, warp_boxes
from mammoclip.errors import ArtifactError, ConfigError, MammoClipError, ModelError
from mammoclip.localization.boxes import BoxedImages, ImageDetections
from mammoclip.localization.detector import build_detector
from mammoclip.localization.detector_training import (
    Detected,
    DetectionJob,
    draw_boxed_warp,
    predict,
    train_detector,
)
from mammoclip.models import TimmEncoder, normalise
from tests.interruption import counting, stopping, stops

SIZE_PX = (64, 64)
BATCH_NORMS, PLAIN = "test_efficientnet", "test_vit"  # the second has neither batch norms nor dropout
STILL = Augmentation(probability=0.0)
MILD = Augmentation(rotation_deg=5.0, scale_range=(0.95, 1.05), shear_deg=2.0, elastic_alpha_px=0.0)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def square(image_id: str) -> tuple[int, int, int, int]:
    """Where the square is in an image ``<number>-<whether there is one>``."""
    rng = np.random.default_rng([1, int(image_id.split("-", maxsplit=1)[0])])
    side = int(rng.integers(14, 24))
    left, top = rng.integers(0, 64 - side, 2).tolist()
    return left, top, left + side, top + side


def read_image(image_id: str) -> np.ndarray:
    """Dark noise with a bright square, or without."""
    number, bright = map(int, image_id.split("-"))
    image = np.random.default_rng(number).integers(0, 80, SIZE_PX)
    left, top, right, bottom = square(image_id)
    image[top:bottom, left:right] += 120 * bright
    return image.astype(np.uint8)


def boxed(number: int, first: int = 0, without: int = 0) -> BoxedImages:
    """Images with one square each, and then some without."""
    ids = [f"{first + row}-{int(row < number)}" for row in range(number + without)]
    boxes = [np.array([square(each)] if each.endswith("1") else [], float).reshape(-1, 4) for each in ids]
    return BoxedImages(ids, boxes, [np.zeros(len(each), np.int64) for each in boxes])


def make_detector(name: str = PLAIN, **changes: Any) -> Any:
    torch.manual_seed(0)
    encoder = TimmEncoder(name, SIZE_PX)
    options = {"mode": "strict", "trains_encoder": True, "anchor_sizes_px": (12, 24, 48, 96, 192), "seed": 1}
    options["channels"] = 64  # a narrow pyramid is trained in seconds
    return build_detector(encoder, changes.pop("num_classes", 1), SIZE_PX, **(options | changes))


def make_job(work: Path, **changes: Any) -> DetectionJob:
    """A short training; what ``changes`` name is of the job, or else of its options."""
    of_job = {name: changes.pop(name) for name in list(changes) if name in DetectionJob.__dataclass_fields__}
    short = {"augmentation": MILD, "num_epochs": 2, "batch_size": 4, "learning_rate": 1e-3}
    short |= {"height_px": SIZE_PX[0], "width_px": SIZE_PX[1], **changes}
    parts = {"train": boxed(8), "validation": boxed(3, 100), "test": boxed(3, 200)}
    fixed = {"read_image": read_image, "mode": "strict", "seed": 3}
    return DetectionJob(section=DetectionSection(**short), work=work, **(parts | fixed | of_job))


def iou(one: np.ndarray, other: np.ndarray) -> float:
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = np.prod((high - low).clip(0))
    return float(shared / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - shared))


def overlaps(found: Sequence[ImageDetections], part: BoxedImages) -> list[float]:
    """IoU of the surest box of each image with the true one; 0 where there is none."""
    return [
        iou(each.boxes[0], boxes[0]) if len(each.boxes) else 0.0 for each, boxes in zip(found, part.boxes, strict=True)
    ]


def assert_same(found: Detected, expected: Detected, atol: float = 0) -> None:
    assert found.selected == expected.selected
    for one, other in zip(found.epochs, expected.epochs, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=atol)
        assert one.score == pytest.approx(other.score, rel=atol)
    for one, other in zip([*found.validation, *found.test], [*expected.validation, *expected.test], strict=True):
        np.testing.assert_allclose(one.boxes, other.boxes, atol=atol * 64)
        np.testing.assert_allclose(one.scores, other.scores, atol=atol)
        assert one.labels.tolist() == other.labels.tolist()


# What it learns


LEARNING: dict[str, Any] = {"num_epochs": 10, "batch_size": 8, "learning_rate": 2e-3, "augmentation": STILL}  # 50 steps


def test_a_bright_square_is_found_and_with_boxes_of_other_images_it_is_not(tmp_path: Path) -> None:
    parts = {"train": boxed(40), "validation": boxed(8, 100), "test": boxed(16, 200)}
    job = make_job(tmp_path / "true", **parts, **LEARNING)
    found = overlaps(train_detector(make_detector(BATCH_NORMS), job).test, job.test)
    assert np.mean([each > 0.5 for each in found]) > 0.7
    assert np.mean(found) > 0.5

    def shuffled(part: BoxedImages) -> BoxedImages:
        return replace(part, boxes=[*part.boxes[1:], part.boxes[0]])

    control = replace(job, train=shuffled(job.train), validation=shuffled(job.validation), work=tmp_path / "control")
    by_chance = overlaps(train_detector(make_detector(BATCH_NORMS), control).test, job.test)
    assert np.mean([each > 0.5 for each in by_chance]) < 0.3
    assert np.mean(by_chance) < 0.2


def test_a_frozen_encoder_is_left_alone(tmp_path: Path) -> None:
    detector = make_detector(BATCH_NORMS, trains_encoder=False)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    train_detector(detector, make_job(tmp_path))
    moved = {name for name, value in detector.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert not [name for name in moved if name.startswith("backbone.encoder.")]


# Boxes follow pixels


def bounds(image: np.ndarray) -> list[int]:
    rows, columns = np.nonzero(image > 127)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("horizontal", [False, True])
@pytest.mark.parametrize("vertical", [False, True])
def test_flips_move_boxes_with_their_pixels(horizontal: bool, vertical: bool) -> None:
    image = np.zeros((64, 96), np.uint8)
    image[10:30, 50:84] = 255
    warp = WarpParameters(flip_horizontal=horizontal, flip_vertical=vertical)
    moved, empty = warp_boxes(np.array([[50.0, 10.0, 84.0, 30.0]]), warp, (64, 96))
    assert not empty.any()
    assert moved[0].tolist() == bounds(apply_warp(image, warp))


def test_all_that_is_drawn_moves_boxes_with_their_pixels() -> None:
    image = np.zeros((96, 128), np.uint8)
    image[40:60, 50:84] = 255
    drawn = [draw_boxed_warp(np.random.default_rng(seed), Augmentation(), image.shape) for seed in range(60)]
    assert {warp.flip_horizontal for warp in drawn} == {warp.flip_vertical for warp in drawn} == {False, True}
    assert {warp.affine is None for warp in drawn} == {warp.elastic is None for warp in drawn} == {False, True}
    for warp in drawn:
        moved, _ = warp_boxes(np.array([[50.0, 40.0, 84.0, 60.0]]), warp, image.shape)
        np.testing.assert_allclose(moved[0], bounds(apply_warp(image, warp)), atol=1.5)


def test_a_horizontal_flip_is_drawn_only_where_it_is_wanted_and_changes_no_other_draw() -> None:
    for seed in range(20):
        wanted, unwanted = (
            draw_boxed_warp(np.random.default_rng(seed), Augmentation(horizontal_flip=flips), SIZE_PX)
            for flips in (True, False)
        )
        assert not unwanted.flip_horizontal
        assert replace(wanted, flip_horizontal=False) == unwanted


def test_the_detector_sees_boxes_and_pixels_moved_alike(tmp_path: Path) -> None:
    """Mirrored images and boxes, mirrored again by a certain flip, are the same training."""
    options = {"rotation_deg": 0.0, "translation_fraction": 0.0, "scale_range": (1.0, 1.0), "shear_deg": 0.0}
    flip = Augmentation(**options, elastic_alpha_px=0.0, vertical_flip=False, probability=1.0)
    job = make_job(tmp_path / "0", num_epochs=1, augmentation=STILL)
    mirrored = [
        np.column_stack([64 - boxes[:, 2], boxes[:, 1], 64 - boxes[:, 0], boxes[:, 3]]) for boxes in job.train.boxes
    ]

    def read_mirrored(image_id: str) -> np.ndarray:
        image = read_image(image_id)
        return np.ascontiguousarray(image[:, ::-1]) if int(image_id.split("-", maxsplit=1)[0]) < 100 else image

    flipped = replace(
        job,
        section=job.section.model_copy(update={"augmentation": flip}),
        train=replace(job.train, boxes=mirrored),
        read_image=read_mirrored,
        work=tmp_path / "1",
    )
    expected, found = (train_detector(make_detector(), each) for each in (job, flipped))
    assert_same(found, expected, atol=1e-6)
    unmoved = replace(flipped, train=job.train, work=tmp_path / "2")
    assert train_detector(make_detector(), unmoved).epochs[0].loss != pytest.approx(expected.epochs[0].loss, rel=1e-5)


# Prediction


def test_a_batch_is_predicted_as_its_images_one_by_one() -> None:
    detector = make_detector(BATCH_NORMS, score_threshold=0.0, max_detections=20, num_classes=2)
    images = normalise(torch.from_numpy(np.stack([read_image(f"{number}-1") for number in range(5)])))
    together = predict(detector, images)
    alone = [predict(detector, image[None])[0] for image in images]
    for one, other in zip(together, alone, strict=True):
        assert one.boxes.shape == (20, 4)
        assert one.boxes.dtype == one.scores.dtype == np.float64
        assert one.labels.dtype == np.int64
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)


def test_what_is_returned_is_by_the_best_epoch_image_by_image(tmp_path: Path) -> None:
    detector = make_detector(BATCH_NORMS)
    job = make_job(tmp_path, test=boxed(5, 200, without=2))
    found = train_detector(detector, job)
    assert len(found.test) == 7
    assert len(found.validation) == 3
    for image_id, each in zip(job.test.image_ids, found.test, strict=True):
        (alone,) = predict(detector, normalise(torch.from_numpy(read_image(image_id))[None]))
        np.testing.assert_allclose(each.scores, alone.scores, atol=1e-5)
        assert len(each.boxes) == len(each.scores) == len(each.labels)


# What is trained on, and what chooses the epoch


@pytest.mark.parametrize(("mode", "images"), [("strict", 6), ("compat", 4)])
def test_images_without_a_box_are_negatives_in_strict_and_left_out_in_compat(
    tmp_path: Path, mode: Any, images: int
) -> None:
    read: set[str] = set()
    job = make_job(
        tmp_path,
        mode=mode,
        train=boxed(4, without=2),
        test=boxed(2, 200, without=1),
        num_epochs=1,
        batch_size=2,
        read_image=lambda image_id: read.add(image_id) or read_image(image_id),
    )
    found = train_detector(make_detector(), job)
    assert len([image_id for image_id in read if int(image_id.split("-")[0]) < 100]) == images
    assert len(found.test) == (3 if mode == "strict" else 2)


@pytest.mark.parametrize(("mode", "first"), [("strict", 100), ("compat", 200)])
def test_the_score_of_the_detections_chooses_the_epoch(tmp_path: Path, mode: Any, first: int) -> None:
    scores = iter([0.1, 0.3, 0.2, 0.3])
    seen: list[Sequence[ImageDetections]] = []
    parts = {"validation": boxed(3, 100), "test": boxed(2, 200)}
    score = lambda found: seen.append(found) or np.float64(next(scores))  # noqa: E731
    found = train_detector(make_detector(), make_job(tmp_path, mode=mode, num_epochs=4, score=score, **parts))
    assert found.selected == 1
    assert [epoch.score for epoch in found.epochs] == [0.1, 0.3, 0.2, 0.3]
    assert {len(each) for each in seen} == {3 if first == 100 else 2}


def test_training_stops_when_patience_ends_in_strict_mode_alone(tmp_path: Path) -> None:
    for mode, epochs in (("strict", 3), ("compat", 5)):
        scores = iter([0.5, 0.4, 0.3, 0.2, 0.1])
        job = make_job(
            tmp_path / mode, mode=mode, num_epochs=5, patience=2, score=lambda _, scores=scores: next(scores)
        )
        assert len(train_detector(make_detector(), job).epochs) == epochs


def test_without_a_score_minus_the_loss_in_evaluation_mode_chooses(tmp_path: Path) -> None:
    detector = make_detector(BATCH_NORMS)
    job = make_job(tmp_path, num_epochs=1, validation=boxed(3, 100, without=2))
    found = train_detector(detector, job)
    detector.eval()
    detector.training = True
    losses = []
    with torch.no_grad():
        for image_id, boxes in zip(job.validation.image_ids, job.validation.boxes, strict=True):
            target = {"boxes": torch.from_numpy(boxes).float(), "labels": torch.zeros(len(boxes), dtype=torch.int64)}
            image = normalise(torch.from_numpy(read_image(image_id))[None])
            losses.append(sum(map(float, detector(image, [target]).values())))
    assert found.epochs[0].score == pytest.approx(-np.mean(losses), rel=1e-4)


# The same again


@stops
def test_what_was_stopped_goes_on_to_the_very_same_result(
    tmp_path: Path, stop: Callable[[], None], raised: type[Exception]
) -> None:
    expected = train_detector(make_detector(BATCH_NORMS), make_job(tmp_path / "whole"))
    job = make_job(tmp_path / "stopped")
    of_epoch = 8 + 3
    with pytest.raises(raised):
        train_detector(make_detector(BATCH_NORMS), replace(job, read_image=stopping(read_image, of_epoch + 3, stop)))
    read: list[str] = []
    again = replace(job, read_image=counting(read_image, read))
    assert_same(train_detector(make_detector(BATCH_NORMS), again), expected)
    assert len(read) == of_epoch + 3 + 3  # not the first epoch again


def test_the_number_of_threads_changes_nothing(tmp_path: Path) -> None:
    one, three = (train_detector(make_detector(), make_job(tmp_path / str(n), threads=n)) for n in (1, 3))
    assert_same(three, one)


def small_training(work: Path, rank: int = 0, world_size: int = 1) -> Detected:
    """What is compared; 5 and 3 images cannot be shared equally."""
    parts = {"train": boxed(7, without=1), "validation": boxed(3, 100), "test": boxed(4, 200, without=1)}
    detector = make_detector(score_threshold=0.0, max_detections=5)
    return train_detector(detector, make_job(work, rank=rank, world_size=world_size, **parts))


def run_process(out: Path, port: int, rank: int) -> Detected:
    timeout = timedelta(seconds=100)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", timeout, world_size=2, rank=rank)
    try:
        found = small_training(out / "work", rank, 2)
    finally:
        dist.destroy_process_group()
    tables = [np.column_stack([each.boxes, each.scores, each.labels]) for each in [*found.validation, *found.test]]
    np.savez(out / f"{rank}.npz", tables=np.stack(tables), epochs=[[each.loss, each.score] for each in found.epochs])
    return found


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    expected = small_training(tmp_path / "alone")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    module = "tests.unit.localization.test_detector_training"
    other = subprocess.Popen([sys.executable, "-m", module, str(tmp_path), str(port), "1"])
    try:
        found = run_process(tmp_path, port, 0)  # this process is one of the two: importing everything twice takes long
        assert other.wait(timeout=60) == 0
    finally:
        other.kill()
        other.wait()
    first, second = (np.load(tmp_path / f"{rank}.npz") for rank in range(2))
    for name in ("tables", "epochs"):
        assert np.array_equal(first[name], second[name])
    assert [epoch.loss for epoch in found.epochs] == pytest.approx([epoch.loss for epoch in expected.epochs], rel=1e-3)
    assert [epoch.score for epoch in found.epochs] == pytest.approx([e.score for e in expected.epochs], rel=1e-3)
    for one, another in zip(found.test, expected.test, strict=True):
        np.testing.assert_allclose(one.scores, another.scores, atol=1e-3)


# Errors


@pytest.mark.parametrize("mode", ["strict", "compat"])
@pytest.mark.parametrize(("part", "name"), [("train", "training"), ("test", "test")])
def test_a_split_without_a_box_is_one_sentence(tmp_path: Path, mode: Any, part: str, name: str) -> None:
    with pytest.raises(ArtifactError, match=f"detection needs {name} images with boxes, and there are none"):
        train_detector(make_detector(), make_job(tmp_path, mode=mode, **{part: boxed(0, without=8)}))


def test_compat_needs_no_validation_images(tmp_path: Path) -> None:
    job = make_job(tmp_path, validation=boxed(0, without=2), num_epochs=1)
    with pytest.raises(ArtifactError, match="detection needs validation images with boxes"):
        train_detector(make_detector(), job)
    assert train_detector(make_detector(), replace(job, mode="compat")).validation == []


def test_a_finding_without_a_box_in_training_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train_detector(make_detector(num_classes=3), make_job(tmp_path, num_epochs=1))
    assert "no training image has a box of finding 1, 2" in caplog.text


def crowded(part: BoxedImages) -> BoxedImages:
    return replace(
        part, boxes=[each.repeat(3, 0) for each in part.boxes], labels=[each.repeat(3) for each in part.labels]
    )


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        (
            {"validation": crowded(boxed(3, 100))},
            ConfigError,
            "image '100-1' has 3 boxes; raise localize.detection.max_detections, which is 2",
        ),
        ({"batch_size": 9}, ConfigError, "batch_size=9 has to be .* no more than the 8 training images"),
        ({"world_size": 3}, ConfigError, "batch_size=4 has to be a multiple of the 3 processes"),
        ({"width_px": 32}, ArtifactError, r"image '\d+-1' has the shape .64, 64.; .* of 64 x 32 pixels"),
        ({"learning_rate": 1e30}, ModelError, "not finite in epoch 1; lower localize.detection.learning_rate"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(
    tmp_path: Path, changes: dict[str, Any], error: type[MammoClipError], says: str
) -> None:
    with pytest.raises(error, match=says):
        train_detector(make_detector(max_detections=2), make_job(tmp_path, **changes))


if __name__ == "__main__":  # a second process of test_two_processes_find_what_one_finds: OUT PORT RANK
    torch.set_num_threads(1)
    run_process(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
