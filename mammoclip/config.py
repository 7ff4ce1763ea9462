"""The configuration, written once: typed, described, and the source of the JSON schema.

``config.yaml`` holds one section per stage. Every key states its unit in its name or description, and an unknown
key is an error that names the nearest valid one. ``mammoclip.documentation`` generates from it the schema with which
Snakemake validates the configuration at parse time, and its reference.
"""

from __future__ import annotations

import difflib
import importlib.resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, ValidationError

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
Task = Literal["mass", "suspicious_calcification", "density"]
IMAGE_ENCODERS = ("efficientnet-b5", "efficientnet-b2", "efficientnet-lite0")
Control = Literal["none", "untrained", "shuffled_reports"]


def _check_name(name: str) -> str:
    if not name or not all(c.isascii() and (c.isalnum() or c in "-_") for c in name):
        raise ValueError("names become folder names: use ASCII letters, digits, '-' and '_' only")
    return name


Name = Annotated[str, AfterValidator(_check_name)]


def _check_image_encoder(name: str) -> str:
    if name not in IMAGE_ENCODERS and not name.startswith("timm:"):
        raise ValueError(f"should be one of {', '.join(IMAGE_ENCODERS)}, or timm: and the name of a timm model")
    return name


ImageEncoderName = Annotated[str, AfterValidator(_check_image_encoder)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveInt = Annotated[int, Field(gt=0)]


def _check_range(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError("the smallest value comes first")
    return limits


# Not strict: YAML and JSON have lists only.
Range = Annotated[tuple[PositiveFloat, PositiveFloat], Field(strict=False), AfterValidator(_check_range)]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values are not coerced between kinds."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


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


class Augmentation(Section):
    """Training augmentation; each transform is applied with the given probability (paper: 0.5)."""

    probability: Fraction = Field(default=0.5, description="probability of each transform")
    horizontal_flip: bool = Field(
        default=True, description="flip left-right; strict swaps the words left and right with it"
    )
    vertical_flip: bool = Field(default=True, description="flip top-bottom")
    rotation_deg: float = Field(default=20.0, ge=0, le=180, description="largest rotation, in degrees")
    translation_fraction: Fraction = Field(default=0.1, description="largest shift, as a fraction of the image size")
    scale_range: Range = Field(default=(0.8, 1.2), description="smallest and largest magnification")
    shear_deg: float = Field(default=20.0, ge=0, lt=90, description="largest shear, in degrees")
    elastic_alpha_px: float = Field(default=10.0, ge=0, description="elastic displacement, in pixels (0: none)")
    elastic_sigma_px: float = Field(default=15.0, gt=0, description="smoothness of the elastic displacement, in pixels")


class LossWeights(Section):
    """The objective and the weights of its terms (paper: multi-view supervision)."""

    objective: Literal["multi_view", "convirt", "siglip"] = Field(
        default="multi_view",
        description="multi_view: two images and two texts; convirt: the plain baseline, one of each; siglip: sigmoid "
        "loss of both images with both texts",
    )
    image_text: float = Field(default=1.0, ge=0, description="weight of the mean of image-to-text and text-to-image")
    image_image: float = Field(default=1.0, ge=0, description="weight of the image-to-image term")
    text_text: float = Field(default=0.5, ge=0, description="weight of the text-to-text term")
    mask_equal_texts: bool = Field(default=False, description="equal texts in a batch are not negatives of each other")
    mask_same_patient: bool = Field(
        default=False, description="examples of one patient in a batch are not negatives of each other"
    )


class Run(Section):
    """One pretraining run; the controls share every other setting with the run that they control."""

    control: Control = Field(
        default="none",
        description="none: trains; untrained: initial weights; shuffled_reports: texts permuted over patients",
    )
    changes: dict[str, Any] = Field(
        default={},
        description="keys of pretrain that are otherwise in this run, such as {image_encoder: timm:resnet50}",
    )


class PretrainSection(Section):
    """Contrastive image-text pretraining through DeepSpeed."""

    mode: Mode = Field(
        default="strict",
        description="compat: sentences of reports keep their order and the words left and right do not follow a flip",
    )
    datasets: list[Name] = Field(min_length=1, description="data sets whose training patients are used")
    dataset_weights: dict[Name, PositiveFloat] = Field(
        default={}, description="times that a breast of a data set is seen in an epoch; a data set not named here: 1"
    )
    batches: Literal["mixed", "homogeneous"] = Field(
        default="mixed", description="a batch mixes the data sets by chance, or is of one data set"
    )
    runs: dict[Name, Run] = Field(description="runs by name")
    image_encoder: ImageEncoderName = Field(
        default="efficientnet-b5",
        description="efficientnet-b5, -b2 or -lite0 as released (static padding), or timm:NAME, such as timm:resnet50, "
        "timm:convnext_tiny, timm:vit_base_patch16_dinov3",
    )
    image_weights: str | None = Field(
        default=None,
        description="pretrained weights: a file or package:NAME/FILE, for timm also a hub id; null: random",
    )
    text_encoder: str = Field(
        default="emilyalsentzer/Bio_ClinicalBERT", description="hub id, folder or package:NAME/FOLDER"
    )
    lora_rank: int = Field(
        default=0,
        ge=0,
        description="trains low-rank additions to the text encoder's attention alone; 0: the encoder itself",
    )
    projection: Literal["linear", "mlp"] = Field(
        default="linear", description="from each encoder into the joint space (paper: linear)"
    )
    checkpoint_activations: bool = Field(
        default=False, description="compute activations again in the backward pass: less memory, a third more time"
    )
    freeze_image_blocks: int = Field(
        default=0, ge=0, description="first blocks of the image encoder that stay as they are"
    )
    freeze_text_layers: int = Field(
        default=0, ge=0, description="first layers of the text encoder that stay as they are"
    )
    embedding_dim: PositiveInt = Field(default=512, description="dimensions of the joint space")
    height_px: PositiveInt = Field(default=1520, description="image height at the encoder, in pixels")
    width_px: PositiveInt = Field(default=912, description="image width at the encoder, in pixels")
    max_tokens: int = Field(default=256, gt=2, le=512, description="longest text, in tokens")
    global_batch_size: PositiveInt = Field(
        default=8, description="image-text examples per optimiser step, over all processes: negatives of each other"
    )
    micro_batch_size: PositiveInt | None = Field(
        default=None,
        description="examples that a process embeds at a time, to save memory: the gradient is that of the whole "
        "batch; null: all of its own",
    )
    num_epochs: PositiveInt = Field(default=10, description="passes over the training breasts (paper: 10)")
    warmup_epochs: float = Field(default=1.0, ge=0, description="linear warm-up, in epochs")
    learning_rate: float = Field(default=5e-5, gt=0, description="peak learning rate of AdamW")
    projection_learning_rate: float | None = Field(default=None, gt=0, description="of the projections; null: the same")
    weight_decay: float = Field(default=1e-4, ge=0, description="weight decay of AdamW, all parameters alike")
    loss: LossWeights = LossWeights()
    augmentation: Augmentation = Augmentation()
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        default="auto", description="of the encoders; weights and loss are fp32. auto: bf16 on a GPU, fp32 on a CPU"
    )
    sync_batch_norm: bool = Field(
        default=False, description="batch normalisation over all processes of a run; on GPUs only"
    )
    gpus: int = Field(default=1, ge=0, description="GPUs of a run, one process each, on one node; 0: on the CPU")
    threads: PositiveInt = Field(default=8, description="CPU threads per process")
    deepspeed: str = Field(default="workflow/deepspeed/zero0.json", description="DeepSpeed configuration file")
    checkpoint_minutes: float = Field(default=10.0, gt=0, description="time between resume checkpoints, in minutes")

    def of_run(self, name: str) -> PretrainSection:
        """Return the section as the run ``name`` has it: with its changes, and without the other runs.

        Raises:
            ConfigError: if the changes do not fit.
        """
        run = self.runs[name]
        if "runs" in run.changes:
            raise ConfigError(f"pretrain.runs.{name}.changes: a run cannot change the runs")
        values = _merge(self.model_dump(mode="json"), run.changes) | {"runs": {name: {"control": run.control}}}
        try:
            return parse_section(PretrainSection, values)
        except ConfigError as error:
            raise ConfigError(f"pretrain.runs.{name}.changes: {error}") from None

    @property
    def all_datasets(self) -> list[str]:
        """The data sets that any run is trained on."""
        return list(dict.fromkeys(dataset for name in self.runs for dataset in self.of_run(name).datasets))


class EvaluateSection(Section):
    """Zero-shot classification and linear probe on frozen features."""

    datasets: list[Name] = Field(description="data sets with labels: metrics are computed on their test patients")
    showcase: list[Name] = Field(default=[], description="data sets without labels: scored and shown image by image")
    tasks: list[Task] = Field(default=["mass", "suspicious_calcification", "density"])
    batch_size: PositiveInt = Field(default=16, description="images per forward pass")
    probe_strengths: list[PositiveFloat] = Field(
        default=[0.001, 0.01, 0.1, 1.0],
        min_length=1,
        description="inverse L2 strengths; the best on validation patients is used",
    )
    prompts_per_class: PositiveInt = Field(
        default=16, description="zero-shot sentences whose embeddings are averaged; 1: the single prompts of the paper"
    )
    num_permutations: PositiveInt = Field(
        default=10, description="permutations of the training labels, on which the probe is fitted as a control"
    )
    num_resamples: PositiveInt = Field(default=1000, description="bootstrap resamples, clustered by patient")
    confidence: float = Field(default=0.95, gt=0, lt=1, description="coverage of the intervals")


class PaperSection(Section):
    """Tables, figures and the report."""

    main_run: Name = Field(
        default="mammo-clip", description="the run whose curves are drawn; the others are its controls"
    )
    contact_sheet_images: PositiveInt = Field(default=24, description="crops shown per data set")


class Config(Section):
    """The whole of ``config.yaml``."""

    results: str = Field(default="results", description="folder of all artifacts")
    seed: int = Field(default=42, ge=0, description="seed of everything random")
    datasets: dict[Name, Dataset] = Field(description="data sets by name")
    shard: ShardSection = ShardSection()
    tabulate: TabulateSection = TabulateSection()
    paraphrase: ParaphraseSection = ParaphraseSection()
    pretrain: PretrainSection
    evaluate: EvaluateSection
    paper: PaperSection = PaperSection()

    def model_post_init(self, __context: Any) -> None:
        """Check the references between sections."""
        for key, names in (
            ("pretrain.datasets", self.pretrain.datasets),
            ("evaluate.datasets", self.evaluate.datasets),
            ("evaluate.showcase", self.evaluate.showcase),
        ):
            for name in names:
                if name not in self.datasets:
                    raise ConfigError(
                        f"{key} names {name!r}, which is not under datasets{_suggest(name, self.datasets)}"
                    )
        for run in self.pretrain.runs:
            self._check_run(run)
        if self.paper.main_run not in self.pretrain.runs:
            hint = _suggest(self.paper.main_run, self.pretrain.runs)
            raise ConfigError(f"paper.main_run names {self.paper.main_run!r}, which is not under pretrain.runs{hint}")
        for name, dataset in self.datasets.items():
            if dataset.generate is not None and dataset.adapter != "phantom":
                raise ConfigError(f"datasets.{name}.generate: only the phantom adapter can generate its data")
            if (dataset.generate is None) == (dataset.root is None):
                raise ConfigError(f"datasets.{name}: give either root (data that exist) or generate (phantoms)")

    def _check_run(self, name: str) -> None:
        section = self.pretrain.of_run(name)
        for dataset in section.datasets:
            if dataset not in self.datasets:
                hint = _suggest(dataset, self.datasets)
                raise ConfigError(f"pretrain.runs.{name} names {dataset!r}, which is not under datasets{hint}")
        for dataset in section.dataset_weights:
            if dataset not in section.datasets:
                hint = _suggest(dataset, section.datasets)
                raise ConfigError(
                    f"pretrain.dataset_weights names {dataset!r}, which the run {name!r} is not trained on{hint}"
                )


S = TypeVar("S", bound=BaseModel)


def parse_section(section: type[S], values: object) -> S:
    """Validate ``values`` as ``section``.

    Raises:
        ConfigError: names every wrong key, what was expected, and for an unknown key the nearest valid one.
    """
    try:
        return section.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_sentence(section, item) for item in error.errors())) from None


def resolve_source(source: str) -> str:
    """Turn ``package:NAME/PATH`` into the path of that file or folder inside an installed package.

    Anything else (a path, a hub id) is returned unchanged.

    Raises:
        ConfigError: if the package is not installed or holds no such path.
    """
    if not source.startswith("package:"):
        return source
    package, _, inner = source.removeprefix("package:").partition("/")
    try:
        root = Path(str(importlib.resources.files(package)))
    except (ImportError, TypeError, ValueError):
        raise ConfigError(f"{source}: there is no installed package {package!r}; install it with pip") from None
    path = root / inner
    if not path.exists() or not path.resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"{source}: the package {package!r} holds no {inner!r}")
    return str(path)


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of :class:`Config` (draft 2020-12), as committed under ``workflow/schemas``."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


def _merge(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return ``values`` with ``changes``, section by section: what a section in ``changes`` does not name stays."""
    changed = dict(values)
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(values.get(key), dict)
        changed[key] = _merge(values[key], value) if nested else value
    return changed


def _suggest(name: str, valid: Any) -> str:
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.4)
    return f"; did you mean {close[0]!r}?" if close else f"; valid: {', '.join(sorted(valid)) or 'none'}"


def _fields_at(section: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the valid keys at ``location``, following the schema through dictionaries and optional sections."""
    schema = section.model_json_schema()
    node: dict[str, Any] = schema
    for part in location:
        step = node.get("properties", {}).get(part) or node.get("additionalProperties") or node.get("items") or {}
        step = next((option for option in step.get("anyOf", []) if "$ref" in option), step)
        node = schema["$defs"][step["$ref"].rsplit("/", 1)[-1]] if "$ref" in step else step
    return list(node.get("properties", {}))


def _sentence(section: type[BaseModel], error: Any) -> str:
    location = error["loc"]
    key = ".".join(str(part) for part in location)
    if error["type"] == "extra_forbidden":
        return f"unknown key {key!r}{_suggest(str(location[-1]), _fields_at(section, location[:-1]))}"
    if error["type"] == "missing":
        return f"missing key {key!r}"
    message = error["msg"]
    return f"{key or section.__name__}: {message[0].lower()}{message[1:]}, got {error['input']!r}"
