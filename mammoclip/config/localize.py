"""The section of the stage ``localize``, and the detectors that its matrix asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from pydantic import Field, PositiveFloat

from mammoclip.config.data import FINDING_NAMES, Mode
from mammoclip.config.evaluate import Seed, Share
from mammoclip.config.pretrain import Augmentation
from mammoclip.config.section import Fraction, Name, PositiveInt, Section, suggest
from mammoclip.errors import ConfigError

ALL_FINDINGS = "all_findings"
"""The target of a detector of all ten findings together."""

DetectionProtocol = Literal["detection-frozen", "detection-fine-tune"]
FACTOR = "mammo-factor"
"""The protocol of Mammo-FActOR, whose boxes are learned from labels of images alone."""

_NUM_LEVELS = 5  # of the pyramid, P3 to P7


class DetectionRow(Section):
    """Detectors: every combination of what the lists name."""

    runs: list[Name] = Field(default=[], description="pretraining runs; none: all")
    datasets: list[Name] = Field(min_length=1, description="data sets with boxes")
    targets: list[Name] = Field(
        min_length=1, description="findings, a detector each, or all_findings: one detector of all ten"
    )
    protocols: list[DetectionProtocol] = Field(
        min_length=1, description="detection-frozen; detection-fine-tune (the image encoder is trained too)"
    )
    fractions: list[Share] = Field(default=[1.0], description="shares of the training patients")
    seeds: list[Seed] = Field(default=[0], description="seeds of patients and training")

    def model_post_init(self, __context: object) -> None:
        """Check the targets."""
        for target in self.targets:
            if target not in (*FINDING_NAMES, ALL_FINDINGS):
                raise ConfigError(
                    f"localize.detection.matrix names the target {target!r}"
                    f"{suggest(target, (*FINDING_NAMES, ALL_FINDINGS))}"
                )


class DetectionSection(Section):
    """RetinaNet on the image encoder (paper: 512 x 512 pixels, Adam, 5e-5, 120 epochs, batches of 7)."""

    matrix: list[DetectionRow] = Field(default=[], description="detectors, tested on the test patients")
    height_px: PositiveInt = Field(default=1520, description="height of the images, in pixels (paper: 512)")
    width_px: PositiveInt = Field(default=912, description="width of the images, in pixels (paper: 512)")
    anchor_sizes_px: list[PositiveFloat] = Field(
        default=[32, 64, 128, 256, 512],
        min_length=_NUM_LEVELS,
        max_length=_NUM_LEVELS,
        description="smallest side of an anchor of each level of the pyramid, P3 to P7; two more follow in thirds of "
        "an octave",
    )
    anchor_ratios: list[PositiveFloat] = Field(
        default=[0.5, 1.0, 2.0], min_length=1, description="height over width of the anchors"
    )
    focal_alpha: float = Field(
        default=0.6, gt=0, lt=1, description="focal loss: weight of positive anchors (released default 0.6; README .25)"
    )
    focal_gamma: float = Field(
        default=2.0, ge=0, description="focal loss: how much less counts what is right already (released: 2)"
    )
    channels: PositiveInt = Field(default=256, description="width of the feature pyramid and of the heads (paper: 256)")
    max_detections: PositiveInt = Field(default=100, description="boxes found in an image at most")
    score_threshold: Fraction = Field(default=0.05, description="lowest score of a box")
    num_epochs: PositiveInt = Field(default=120, description="passes over the training images at most (paper: 120)")
    patience: PositiveInt = Field(
        default=20, description="epochs without a better validation AP at IoU .5 that end it; compat trains all epochs"
    )
    batch_size: PositiveInt = Field(default=7, description="images per step, over all processes (paper: 7)")
    learning_rate: float = Field(default=5e-5, gt=0, description="of AdamW (paper: Adam, 5e-5)")
    weight_decay: float = Field(default=0.0, ge=0, description="of AdamW; 0: Adam")
    gradient_clip: float = Field(default=0.1, gt=0, description="largest norm of the gradient (paper: 0.1)")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        default="auto", description="of encoder, pyramid and heads: auto is bf16 on a GPU that has it, else fp32"
    )
    augmentation: Augmentation = Augmentation()

    @property
    def size_px(self) -> tuple[int, int]:
        """(height, width) of the images."""
        return self.height_px, self.width_px


class FactorSection(Section):
    """Mammo-FActOR on the frozen image encoder (paper: AdamW, 1e-4, 20 epochs, temperature 0.007)."""

    datasets: list[Name] = Field(default=[], description="data sets with labels, on each of which it is trained")
    runs: list[Name] = Field(default=[], description="pretraining runs; none: all")
    attributes: list[Name] = Field(
        default=["mass", "suspicious_calcification"],
        min_length=1,
        description="labels of the data sets, of value 1 or 0, each with a mapping of its own",
    )
    sentences: Literal["grammar", "reports"] = Field(
        default="grammar",
        description="what speaks of an attribute: prompts of the grammar, or sentences of training patients' reports",
    )
    prompts: dict[Name, list[str]] = Field(default={}, description="sentences of one's own for an attribute, by name")
    sentences_per_attribute: PositiveInt = Field(
        default=16, description="sentences of the grammar or of reports whose embeddings are averaged, at most"
    )
    height_px: PositiveInt | None = Field(
        default=None, description="height of the images, in pixels; null: as the run was pretrained"
    )
    width_px: PositiveInt | None = Field(
        default=None, description="width of the images, in pixels; null: as the run was pretrained"
    )
    pool: PositiveInt = Field(
        default=1, description="cells of a map, across and down, that are averaged to one: less disk, coarser boxes"
    )
    hidden: PositiveInt = Field(default=512, description="units of a mapping's hidden layer")
    temperature: PositiveFloat = Field(
        default=0.007, description="divides the similarities (paper: 0.007; released notebook: 0.07)"
    )
    num_epochs: PositiveInt = Field(
        default=20, description="passes over the training images (paper: 20); strict takes the best on validation"
    )
    batch_size: PositiveInt = Field(default=32, description="images per step")
    learning_rate: float = Field(default=1e-4, gt=0, description="of AdamW (paper: 1e-4)")
    weight_decay: float = Field(default=1e-4, ge=0, description="of AdamW")
    keep_negative: bool = Field(
        default=False, description="heat maps: subtract channels whose similarity is negative, instead of leaving them"
    )
    box_threshold: Fraction = Field(default=0.5, description="heat, as a share of the largest, that is part of a box")
    min_box_area_px: PositiveInt = Field(default=1, description="smallest area of a box's heat, in pixels of the PNG")

    def model_post_init(self, __context: object) -> None:
        """Check that a size is whole, and that prompts are of attributes and say something."""
        if (self.height_px is None) != (self.width_px is None):
            raise ConfigError("localize.factor: give both height_px and width_px, or neither")
        for attribute, sentences in self.prompts.items():
            if attribute not in self.attributes:
                raise ConfigError(
                    f"localize.factor.prompts has sentences of {attribute!r}, which is not under attributes"
                    f"{suggest(attribute, self.attributes)}"
                )
            if not sentences or not all(map(str.strip, sentences)):
                raise ConfigError(f"localize.factor.prompts.{attribute}: give sentences that are not empty")

    @property
    def size_px(self) -> tuple[int, int] | None:
        """(height, width) of the images, None for that of the run."""
        return None if self.height_px is None or self.width_px is None else (self.height_px, self.width_px)


@dataclass(frozen=True)
class Detector:
    """One cell of the matrix of detectors."""

    run: str
    dataset: str
    target: str
    protocol: DetectionProtocol
    fraction: float
    seed: int

    @property
    def name(self) -> str:
        """The detections' file below the folder of run and data set, without its end.

        >>> Detector("mammo-clip", "vindr", "mass", "detection-frozen", 0.1, 0).name
        'mass/detection-frozen-0.1-0'
        """
        return f"{self.target}/{self.protocol}-{self.fraction:g}-{self.seed}"

    @property
    def findings(self) -> tuple[str, ...]:
        """What it looks for."""
        return findings_of(self.target)


class LocalizeSection(Section):
    """Detection of findings, Mammo-FActOR and the attribution of its heat maps."""

    mode: Mode = Field(
        default="strict",
        description="compat, as released: only images with the finding, the epoch selected on the test images, "
        "upsampled maps, FActOR's e^0; tabulate.mode has to be compat too",
    )
    detection: DetectionSection = DetectionSection()
    factor: FactorSection = FactorSection()
    gpus: int = Field(default=1, ge=0, description="GPUs of a detector, one process each, FActOR takes one; 0: the CPU")
    num_resamples: PositiveInt = Field(default=2000, description="bootstrap resamples, clustered by patient")
    confidence: float = Field(default=0.95, gt=0, lt=1, description="coverage of the intervals")

    @property
    def datasets(self) -> list[str]:
        """The data sets of the matrix and of Mammo-FActOR."""
        detected = [dataset for row in self.detection.matrix for dataset in row.datasets]
        return list(dict.fromkeys([*detected, *self.factor.datasets]))

    def detectors(self, runs: Sequence[str]) -> list[Detector]:
        """Return the cells of the matrix, each once, of all pretraining ``runs`` where a row names none."""
        cells = [
            Detector(*cell)
            for row in self.detection.matrix
            for cell in product(row.runs or runs, row.datasets, row.targets, row.protocols, row.fractions, row.seeds)
        ]
        return list(dict.fromkeys(cells))

    def factors(self, runs: Sequence[str]) -> list[tuple[str, str]]:
        """Return (run, data set) of every Mammo-FActOR, of all pretraining ``runs`` if the section names none."""
        return list(dict.fromkeys(product(self.factor.runs or runs, self.factor.datasets)))


def findings_of(target: str) -> tuple[str, ...]:
    """Return the findings of a target: itself, or all ten."""
    return FINDING_NAMES if target == ALL_FINDINGS else (target,)
