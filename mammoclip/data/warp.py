"""One geometric transform of an image: flips, affine and elastic, composed first and resampled once.

Points are (x, y) in pixels, the centre of the first pixel at (0, 0); sizes are (height, width) in pixels. A point p
goes to the point q with ``q + d(q) = affine(flips(p))``, d being the elastic displacement: flips first, then the affine
map, then the elastic one, as when each is applied by itself. Sampling needs the way back, from q to p, which is
explicit. Detail as fine as calcifications is blurred by one interpolation, not by two.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8 | np.uint16]
Size = tuple[int, int]
Matrix = tuple[tuple[float, float, float], tuple[float, float, float]]

_AFFINE_PITCH_PX = 16  # nodes of a linear map may lie at any distance: interpolation between them is exact
_INVERSION_STEPS = 20


@dataclass(frozen=True)
class Elastic:
    """Displacement of every pixel: uniform noise in [-1, 1] per pixel and axis, Gaussian-smoothed, times alpha.

    The definition of Simard et al. (2003) that ElasticTransform of albumentations and torchvision follow, with alpha in
    pixels; torchvision's alpha is in half pixels. The root mean square of the displacement along each axis is
    ``alpha / (sigma * sqrt(12 * pi))``: 0.11 px at alpha 10 and sigma 15.

    The noise is drawn and smoothed at nodes ``pitch_px`` apart, and interpolated between them. Noise of 1 / pitch of
    the amplitude keeps the variance and the correlation, ``exp(-distance^2 / (4 * sigma^2))``, at the nodes. The
    interpolation errs most amid four nodes, by ``pitch^2 / 8`` times the Laplacian of the field: this is
    ``0.18 * (pitch / sigma)^2`` of the field (root mean squares), 2 % at the largest pitch of sigma / 3.
    """

    seed: int
    alpha_px: float
    sigma_px: float

    @property
    def pitch_px(self) -> int:
        """Distance between nodes: a third of sigma, at least 1 pixel."""
        return max(1, int(self.sigma_px / 3))


@dataclass(frozen=True)
class WarpParameters:
    """What is done to one image.

    ``affine`` is the 2 x 3 matrix from points of the (flipped) image to points of the result; None: no such transform.
    """

    flip_horizontal: bool = False
    flip_vertical: bool = False
    affine: Matrix | None = None
    elastic: Elastic | None = None


@dataclass(frozen=True, eq=False)
class SamplingNodes:
    """Where in the image the result of a warp is sampled, known at nodes ``pitch_px`` apart; see ``sampling_nodes``.

    Points: rows x columns x (x, y), in pixels of the image.
    """

    points: npt.NDArray[np.float32]
    pitch_px: int


def affine_matrix(
    angle_deg: float, translation_px: tuple[float, float], scale: float, shear_deg: float, size: Size
) -> Matrix:
    """Return the matrix that shears along x, scales and rotates about the image centre, then shifts by (x, y).

    With angle a, shear s, centre c: ``q = R(a) * scale * [[1, -tan(s)], [0, 1]] * (p - c) + c + translation``. Positive
    angles turn clockwise (y points down); the convention of ``torchvision.transforms.v2.functional.affine``.
    """
    height, width = size
    angle, shear = np.deg2rad([angle_deg, shear_deg])
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = scale * rotation @ np.array([[1.0, -np.tan(shear)], [0.0, 1.0]])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    (a, b), (c, d) = linear.tolist()
    x, y = (centre + translation_px - linear @ centre).tolist()
    return (a, b, x), (c, d, y)


def apply_warp(image: Image, warp: WarpParameters) -> Image:
    """Return the transformed image, same shape and type: bilinear, 0 where the point sampled lies outside.

    The input is kept. Flips alone only copy, and without any transform the image itself comes back.
    """
    height, width = image.shape
    size = height, width
    if warp.elastic is not None:
        grid = _upsample(sampling_nodes(warp, size), size)
        return np.asarray(cv2.remap(image, grid, None, cv2.INTER_LINEAR), image.dtype)
    if warp.affine is not None:
        matrix = np.linalg.inv(_forward_matrix(warp, size))[:2]
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpAffine(image, matrix, (width, height), flags=flags), image.dtype)
    rows, columns = (slice(None, None, -1 if flip else 1) for flip in (warp.flip_vertical, warp.flip_horizontal))
    return np.ascontiguousarray(image[rows, columns])


def sampling_nodes(warp: WarpParameters, size: Size) -> SamplingNodes:
    """Return where in the image the result is sampled, at nodes.

    Node (i, j) is the point ``((j - 1/2) * pitch - 1/2, (i - 1/2) * pitch - 1/2)`` of the result: upsampled by the
    pitch (bilinear, pixels as areas) and cut from row and column ``pitch`` on, the nodes give a point for every pixel.
    The outermost nodes lie outside the result, so that no pixel is extrapolated.
    """
    pitch = _AFFINE_PITCH_PX if warp.elastic is None else warp.elastic.pitch_px
    rows, columns = _node_counts(size, pitch)
    (xx, xy, x_0), (yx, yy, y_0), _ = np.linalg.inv(_forward_matrix(warp, size))
    x = (np.arange(columns) - 0.5) * pitch - 0.5
    y = ((np.arange(rows) - 0.5) * pitch - 0.5)[:, None]
    points = np.empty((rows, columns, 2), np.float32)
    points[..., 0] = (xx * x + x_0) + xy * y
    points[..., 1] = (yx * x + y_0) + yy * y
    if warp.elastic is not None:
        points += cv2.transform(_displacement(warp.elastic, size), np.array([[xx, xy], [yx, yy]]))
    return SamplingNodes(points, pitch)


def warp_points(points: npt.NDArray[np.float64], warp: WarpParameters, size: Size) -> npt.NDArray[np.float64]:
    """Return where points (N x 2) of an image of this size go.

    The elastic displacement is inverted by fixed-point iteration, ``q <- affine(p) - d(q)``. It converges where
    neighbours do not change places (gradient of d below 1; its root mean square is 0.005 at alpha 10 and sigma 15).
    """
    forward = _forward_matrix(warp, size)
    target = points @ forward[:2, :2].T + forward[:2, 2]
    if warp.elastic is None:
        return target
    field = _displacement(warp.elastic, size)
    moved = target
    for _ in range(_INVERSION_STEPS):
        moved = target - _interpolate(field, (moved + 0.5) / warp.elastic.pitch_px + 0.5)
    return moved


def warp_boxes(
    boxes: npt.NDArray[np.float64], warp: WarpParameters, size: Size
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return the boxes (N x 4) around the warped boxes, cut at the image, and which of them are empty then.

    Boxes are ``x_min, y_min, x_max, y_max`` in pixels and, unlike points, measured at the edges of pixels: the whole
    image is ``0, 0, width, height``. Each result bounds the warped corners and edge midpoints of its box.
    """
    height, width = size
    x_min, y_min, x_max, y_max = boxes.T
    x_mid, y_mid = (x_min + x_max) / 2, (y_min + y_max) / 2
    outline = np.stack(
        [
            np.stack([x_min, x_mid, x_max, x_max, x_max, x_mid, x_min, x_min]),
            np.stack([y_min, y_min, y_min, y_mid, y_max, y_max, y_max, y_mid]),
        ],
        axis=-1,
    )  # 8 x N x (x, y)
    moved = warp_points(outline.reshape(-1, 2) - 0.5, warp, size).reshape(outline.shape) + 0.5
    moved = moved.clip(0, [width, height])
    low, high = moved.min(axis=0), moved.max(axis=0)
    return np.hstack([low, high]), (low >= high).any(axis=1)


def _forward_matrix(warp: WarpParameters, size: Size) -> npt.NDArray[np.float64]:
    """Return the 3 x 3 matrix of the flips and the affine map."""
    height, width = size
    matrix = np.eye(3)
    if warp.flip_horizontal:
        matrix[0] = -1, 0, width - 1
    if warp.flip_vertical:
        matrix[1] = 0, -1, height - 1
    return matrix if warp.affine is None else np.array([*warp.affine, (0, 0, 1)]) @ matrix


def _node_counts(size: Size, pitch: int) -> Size:
    height, width = size
    return -(-height // pitch) + 2, -(-width // pitch) + 2


def _displacement(elastic: Elastic, size: Size) -> npt.NDArray[np.float32]:
    """Return the displacement at the nodes, rows x columns x (x, y), in pixels."""
    pitch = elastic.pitch_px
    noise = np.random.default_rng(elastic.seed).random((*_node_counts(size, pitch), 2), np.float32) * 2 - 1
    smooth = cv2.GaussianBlur(noise, (0, 0), elastic.sigma_px / pitch)
    return np.asarray(smooth * (elastic.alpha_px / pitch), np.float32)


def _upsample(nodes: SamplingNodes, size: Size) -> npt.NDArray[np.float32]:
    height, width = size
    rows, columns = nodes.points.shape[:2]
    pitch = nodes.pitch_px
    grid = cv2.resize(nodes.points, (columns * pitch, rows * pitch), interpolation=cv2.INTER_LINEAR)
    return np.asarray(grid[pitch : pitch + height, pitch : pitch + width], np.float32)


def _interpolate(field: npt.NDArray[np.float32], points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the field (rows x columns x 2) at points (N x 2) given in nodes: bilinear, constant beyond the borders."""
    last = np.array([field.shape[1] - 1, field.shape[0] - 1])
    points = points.clip(0, last)
    first = np.minimum(points.astype(np.int64), last - 1)
    x, y = first.T
    right, down = (points - first).T[:, :, None]
    above = field[y, x] * (1 - right) + field[y, x + 1] * right
    below = field[y + 1, x] * (1 - right) + field[y + 1, x + 1] * right
    return np.asarray(above * (1 - down) + below * down, np.float64)
