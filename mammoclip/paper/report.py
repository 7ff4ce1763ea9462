"""The report: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from mammoclip.config import EvaluateSection, LocalizeSection, PretrainSection
from mammoclip.datasets.base import Source
from mammoclip.paper.chance import ChanceCheck
from mammoclip.paper.classification import Headline
from mammoclip.paper.conservation import Conservation
from mammoclip.paper.crops import Crop, crop_data_uri
from mammoclip.paper.data_card import DataCard
from mammoclip.paper.grid import Grid
from mammoclip.paper.inputs import Inputs
from mammoclip.paper.page import load_page
from mammoclip.paper.provenance import Provenance
from mammoclip.paper.shared_patients import SharedPatients
from mammoclip.paper.showcase import Showcase
from mammoclip.paper.wording import LOCALIZATION_MEANINGS, PROTOCOL_MEANINGS, ROLES, finding_name, format_percent

MAX_CROPS = 96  # over all data sets, of showcases and of data cards each; more would be too heavy to send
TITLE = "Mammo-CLIP report"


@dataclass(frozen=True)
class Thumbnails:
    """The crops of one data set as the report shows them: (crop, data URI), the first of ``num_sampled``.

    ``colours`` are those of the findings shown.
    """

    num_images: int
    num_sampled: int
    pictures: Sequence[tuple[Crop, str]]
    colours: Mapping[str, str]


@dataclass(frozen=True)
class DatasetCard:
    """The data card of one data set with its pictures; ``text_lengths`` is empty when there are no texts."""

    facts: DataCard
    text_lengths: str
    thumbnails: Thumbnails


@dataclass(frozen=True)
class NamedFigure:
    """A picture of the results, a data URI; ``caption`` says in a sentence or two what is seen, also to the blind."""

    title: str
    caption: str
    picture: str


@dataclass(frozen=True)
class Report:
    """All that the template shows; pictures are data URIs.

    ``figures`` are of the main run; ``control_figures`` of every untrained control, by its name.
    """

    inputs: Inputs
    evaluate: EvaluateSection
    pretrain: PretrainSection
    localize: LocalizeSection
    headlines: Sequence[Headline]
    chance: Sequence[ChanceCheck]
    classification: Grid
    comparisons: Grid
    calibration: Grid
    subgroups: Grid
    retrieval: Grid
    detection: Grid
    lesion_sizes: Grid
    attribution: Grid
    figures: Sequence[NamedFigure]
    control_figures: Mapping[str, Sequence[NamedFigure]]
    localization_figures: Sequence[NamedFigure]
    training: str
    shared_patients: Sequence[SharedPatients]
    showcases: Sequence[Showcase]
    cards: Sequence[DatasetCard]
    books: Sequence[Conservation]
    provenance: Provenance


def make_thumbnails(
    num_images: int, crops: Sequence[Crop], colours: Mapping[str, str], num_datasets: int
) -> Thumbnails:
    """Return as many crops as the report's size allows for one of ``num_datasets`` data sets."""
    shown = crops[: max(1, MAX_CROPS // num_datasets)]
    used = {box[0] for crop in shown for box in crop.boxes}
    pictures = [(crop, crop_data_uri(crop, colours)) for crop in shown]
    legend = {finding_name(finding): colour for finding, colour in colours.items() if finding in used}
    return Thumbnails(num_images, len(crops), pictures, legend)


def render_report(report: Report) -> str:
    """Return the HTML of ``report.html``."""
    above = [verdict for headline in report.headlines for verdict in headline.above]
    occurring = {protocol for run in report.inputs.runs for protocol in run.metrics["protocol"]}
    localized = {protocol for run in report.inputs.runs for protocol in run.localization["protocol"]}
    return load_page("report.html").render(
        **{field.name: getattr(report, field.name) for field in fields(report)},
        title=TITLE,
        confidence=format_percent(report.evaluate.confidence),
        num_above=sum(above),
        num_compared=len(above),
        roles=ROLES,
        protocols={name: meaning for name, meaning in PROTOCOL_MEANINGS.items() if name in occurring},
        localization_confidence=format_percent(report.localize.confidence),
        localization_protocols={name: meaning for name, meaning in LOCALIZATION_MEANINGS.items() if name in localized},
        trained_on=describe_training(report.inputs, report.pretrain),
    )


def describe_training(inputs: Inputs, pretrain: PretrainSection) -> str:
    """Say what the runs were trained on, with the kind of every data set that is known."""
    return " and ".join(_describe(name, _source(inputs, name)) for name in pretrain.datasets)


def _source(inputs: Inputs, dataset: str) -> Source | None:
    tables = inputs.datasets.get(dataset)
    return tables.source if tables else None


def _describe(name: str, source: Source | None) -> str:
    return f"the data set {name}" if source is None else f"the data set {name} ({source.kind})"
