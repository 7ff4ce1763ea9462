"""Images of batches, read ahead by threads while what was read before is computed with."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from mammoclip.data.warp import Image
from mammoclip.errors import ArtifactError

Key = TypeVar("Key")
ReadImage = Callable[[str], Image]


def prefetch(
    read: Callable[[Key], npt.NDArray[Any]], batches: Iterable[Iterable[Key]], threads: int, ahead: int = 2
) -> Generator[npt.NDArray[Any], None, None]:
    """Yield what ``read`` gives for the keys of each batch, stacked, while threads read the ``ahead`` batches after it.

    16-bit images come as int32: torch computes little with 16 bits without a sign. What ``read`` raises is raised here.
    """
    following = iter(batches)
    pool = ThreadPoolExecutor(max(1, threads))

    def submit(number: int) -> list[list[Future[npt.NDArray[Any]]]]:
        return [[pool.submit(read, key) for key in batch] for batch in islice(following, number)]

    try:
        waiting = deque(submit(ahead))
        while waiting:
            images = np.stack([future.result() for future in waiting.popleft()])
            waiting.extend(submit(1))
            yield images.astype(np.int32) if images.dtype == np.uint16 else images
    finally:  # after an error nobody waits for images that were not begun
        pool.shutdown(cancel_futures=True)


def of_size(read_image: ReadImage, size_px: tuple[int, int]) -> ReadImage:
    """Return ``read_image`` with a check: ``ArtifactError`` for an image that is not ``size_px`` (height, width)."""

    def read(image_id: str) -> Image:
        image = read_image(image_id)
        if image.shape != size_px:
            raise ArtifactError(
                f"image {image_id!r} has the shape {image.shape}; the model takes one channel of {size_px[0]} x "
                f"{size_px[1]} pixels (height x width)"
            )
        return image

    return read
