"""Sections of the stages that prepare data: data sets, shard, tabulate, paraphrase."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveFloat

from mammoclip.config.section import Fraction, PositiveInt, Section
from mammoclip.errors import ConfigError

Mode = Literal["compat", "strict"]


AdapterName = Literal[
    "vindr",
    "rsna",
    "embed",
    "cbis_ddsm",
    "cmmd",
    "inbreast",
    "csaw_cc",
    "image_report",
    "image_label",
    "phantom",
]


Split = Literal["train", "validation", "test"]
FINDING_NAMES = (
    "mass",
    "suspicious_calcification",
    "architectural_distortion",
    "asymmetry",
    "focal_asymmetry",
    "global_asymmetry",
    "suspicious_lymph_node",
    "nipple_retraction",
    "skin_retraction",
    "skin_thickening",
)
"""The ten findings of the paper, as all tables spell them."""


class PhantomCohort(Section):
    """Size of the generated phantom cohort (one exam of four views per patient)."""

    num_patients: PositiveInt = Field(default=400, description="patients, one exam each")
    rows_px: int = Field(default=800, ge=128, description="nominal detector rows, in pixels")
    columns_px: int = Field(default=512, ge=128, description="nominal detector columns, in pixels")


class Dataset(Section):
    """One data set: where it lies and which adapter reads its layout."""

    adapter: AdapterName = Field(description="layout of the data set's folder and tables")
    root: str | None = Field(
        default=None,
        description="folder of the data set, or package:NAME/FOLDER for data inside a Python package; "
        "null only with generate, whose data lie under results/generate",
    )
    split: Split | None = Field(
        default=None, description="puts every patient into one split; default: the data set's own"
    )
    generate: PhantomCohort | None = Field(
        default=None, description="phantom only: generate the cohort, in place of a root"
    )


class ShardSection(Section):
    """DICOM to cropped PNG shards."""

    mode: Mode = Field(
        default="strict", description="grey scale and breast crop: as released (compat) or as it should be"
    )
    grayscale: Mode | None = Field(
        default=None,
        description="grey scale alone: the released one (compat, which the released weights need) or the standard's; "
        "null: as mode",
    )
    geometry: Literal["stretch", "pad"] = Field(
        default="stretch", description="stretch the crop to the PNG (paper), or keep its aspect ratio and pad"
    )
    bits: Literal[8, 16] = Field(default=8, description="bits of a PNG sample; 16 with the strict grey scale only")
    height_px: PositiveInt = Field(default=1520, description="height of the PNG, in pixels (paper: 1520)")
    width_px: PositiveInt = Field(default=912, description="width of the PNG, in pixels (paper: 912)")
    num_shards: PositiveInt = Field(
        default=64, description="shards per data set; a study belongs to hash(study_id) % num_shards"
    )
    decoder: Literal["cpu", "gpu"] = Field(
        default="cpu", description="gpu: JPEG 2000 through nvImageCodec, an optional extra; the pixels are the same"
    )
    time_limit_s: PositiveFloat = Field(
        default=120.0, description="longest conversion of one image, in seconds; slower ones are rejected"
    )

    def model_post_init(self, __context: Any) -> None:
        """Check that the bits fit the grey scale."""
        if self.bits == 16 and (self.grayscale or self.mode) == "compat":
            raise ConfigError("shard.bits: the released grey scale (compat) has 8 bits; set grayscale: strict for 16")


class TabulateSection(Section):
    """Reports, boxes, labels and image-text pairs as Parquet tables."""

    mode: Mode = Field(
        default="strict", description="texts, labels and boxes: as released (compat) or as they should be"
    )
    validation_fraction: Fraction = Field(
        default=0.1, description="part of the training patients that selects the epoch"
    )
    test_fraction: Fraction = Field(
        default=0.2, description="part of the patients tested where the data set has no split"
    )
    stratify_by: str | None = Field(
        default=None, description="attribute, such as malignancy, of whose values every split has the same share"
    )


class ParaphraseSection(Section):
    """A second wording of every sentence of a report (paper: back-translation from Italian)."""

    method: Literal["none", "rules", "back_translation"] = Field(
        default="rules", description="rules: synonyms and word order, offline; back_translation: two Marian models"
    )
    forward: str = Field(
        default="Helsinki-NLP/opus-mt-en-it", description="Marian model away from English: hub id or folder"
    )
    backward: str = Field(default="Helsinki-NLP/opus-mt-it-en", description="Marian model back into English")
    num_paraphrases: PositiveInt = Field(default=1, description="wordings of each sentence beside its own")
    num_beams: PositiveInt = Field(default=5, description="beams of a translation (paper: 5)")
    temperature: PositiveFloat = Field(default=1.5, description="sampling temperature of a translation (paper: 1.5)")
    batch_size: PositiveInt = Field(default=64, description="sentences at a time; the result does not depend on it")
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="where the models of back_translation run")
