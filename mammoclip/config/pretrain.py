"""The section of the stage ``pretrain``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveFloat

from mammoclip.config.data import Mode
from mammoclip.config.section import Fraction, Name, PositiveInt, Range, Section, merge, parse_section
from mammoclip.errors import ConfigError

IMAGE_ENCODERS = ("efficientnet-b5", "efficientnet-b2", "efficientnet-lite0")


Control = Literal["none", "untrained", "shuffled_reports"]


def _check_image_encoder(name: str) -> str:
    if name not in IMAGE_ENCODERS and not name.startswith("timm:"):
        raise ValueError(f"should be one of {', '.join(IMAGE_ENCODERS)}, or timm: and the name of a timm model")
    return name


ImageEncoderName = Annotated[str, AfterValidator(_check_image_encoder)]


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
    nodes: PositiveInt = Field(
        default=1, description="machines of a run, each with as many GPUs; more than one are started under SLURM"
    )
    gpus: int = Field(default=1, ge=0, description="GPUs of a run on a node, one process each; 0: one, on the CPU")
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
        values = merge(self.model_dump(mode="json"), run.changes) | {"runs": {name: {"control": run.control}}}
        try:
            return parse_section(PretrainSection, values)
        except ConfigError as error:
            raise ConfigError(f"pretrain.runs.{name}.changes: {error}") from None

    @property
    def all_datasets(self) -> list[str]:
        """The data sets that any run is trained on."""
        return list(dict.fromkeys(dataset for name in self.runs for dataset in self.of_run(name).datasets))
