"""Training augmentation at the size of the paper: one fused warp against one resampling per transform, in one run.

Every transform is applied to every image (in training each has probability 1/2); one CPU thread. There are two
baselines. The released code uses albumentations, which calls OpenCV for each transform in turn and smooths noise of the
size of the image; its calls are repeated here. torchvision's transforms are slower by far, because it smooths with a
Gaussian kernel that is not separated into rows and columns. Decoding a PNG, the other work of reading a training image,
is shown for scale.

Run: ``python benchmarks/bench_augmentation.py``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch

from mammoclip.data.augmentation import AugmentationStrength, augment, draw_warp
from mammoclip.data.warp import sampling_nodes
from mammoclip.models.torchvision_ops import ensure_torchvision
from mammoclip.training.augmentation_batch import augment_batch

ensure_torchvision()
from torchvision.transforms import v2  # noqa: E402

HEIGHT, WIDTH = 1520, 912
EVERYTHING = AugmentationStrength(1.0, True, 20.0, 0.1, (0.8, 1.2), 20.0, 10.0, 15.0)


def breast_like_image() -> np.ndarray:
    """Return a half ellipse of smooth noise on black, uint8."""
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    inside = ((ys - HEIGHT / 2) / (0.45 * HEIGHT)) ** 2 + (xs / (0.8 * WIDTH)) ** 2 < 1
    noise = cv2.GaussianBlur(np.random.default_rng(0).uniform(-1, 1, (HEIGHT, WIDTH)), (0, 0), 2)
    return np.where(inside, 120 + 200 * noise, 0).clip(0, 255).astype(np.uint8)


def milliseconds(work: Callable[[], object], repeats: int) -> float:
    """Return the median time of a call, after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def separate_opencv(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Flip, then resample by the affine map, then by the displacement of every pixel."""
    flipped = np.ascontiguousarray(image[::-1])
    warp = draw_warp(rng, EVERYTHING, (HEIGHT, WIDTH))
    moved = cv2.warpAffine(flipped, np.array(warp.affine), (WIDTH, HEIGHT))
    x, y = np.meshgrid(np.arange(WIDTH, dtype=np.float32), np.arange(HEIGHT, dtype=np.float32))
    noise = 2 * rng.random((2, HEIGHT, WIDTH), np.float32) - 1
    dx, dy = (EVERYTHING.elastic_alpha_px * cv2.GaussianBlur(n, (0, 0), EVERYTHING.elastic_sigma_px) for n in noise)
    return cv2.remap(moved, x + dx, y + dy, cv2.INTER_LINEAR)


def separate_torchvision() -> Callable[[torch.Tensor], torch.Tensor]:
    """Return torchvision's transforms, each of which resamples or copies the image."""
    bilinear = v2.InterpolationMode.BILINEAR
    return v2.Compose(
        [
            v2.RandomVerticalFlip(1.0),
            v2.RandomAffine(20, translate=(0.1, 0.1), scale=(0.8, 1.2), shear=20, interpolation=bilinear),
            v2.ElasticTransform(alpha=20.0, sigma=15.0),  # its alpha is in half pixels
        ]
    )


def batch_on_gpu(image: np.ndarray, batch_size: int, repeats: int) -> float:
    """Return milliseconds per image; parameters are drawn and their nodes smoothed on the CPU, within the time."""
    images = torch.from_numpy(np.stack([image] * batch_size)).cuda()
    rng = np.random.default_rng(0)

    size = (HEIGHT, WIDTH)

    def work() -> None:
        augment_batch(images, [sampling_nodes(draw_warp(rng, EVERYTHING, size), size) for _ in range(batch_size)])
        torch.cuda.synchronize()

    return milliseconds(work, repeats) / batch_size


def main() -> None:
    """Print milliseconds per image of each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=16)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)

    image = breast_like_image()
    tensor = torch.from_numpy(image)[None]
    png = cv2.imencode(".png", image)[1]
    rng = np.random.default_rng(0)
    torchvision_transforms = separate_torchvision()

    slowest = milliseconds(lambda: torchvision_transforms(tensor), 2)
    baseline = milliseconds(lambda: separate_opencv(image, rng), args.repeats)
    fused = milliseconds(lambda: augment(image, EVERYTHING, rng), args.repeats)
    decoding = milliseconds(lambda: cv2.imdecode(png, cv2.IMREAD_GRAYSCALE), args.repeats)
    print(f"{HEIGHT} x {WIDTH} px, flip, affine and elastic, one thread")
    print("                                   ms per image   ratio to fused")
    print(f"separate resamplings, torchvision  {slowest:12.1f}   {slowest / fused:14.1f}")
    print(f"separate resamplings, OpenCV       {baseline:12.1f}   {baseline / fused:14.1f}")
    print(f"fused warp, OpenCV                 {fused:12.1f}   {1:14.1f}")
    print(f"decoding the PNG, for scale        {decoding:12.1f}   {decoding / fused:14.1f}")
    if torch.cuda.is_available():
        on_gpu = batch_on_gpu(image, args.batch_size, args.repeats)
        print(f"{f'batches of {args.batch_size} on the GPU':34} {on_gpu:12.1f}   {on_gpu / fused:14.1f}")
    else:
        print("batches on a GPU                    no GPU here")


if __name__ == "__main__":
    main()
