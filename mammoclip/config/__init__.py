"""The configuration, written once: typed, described, and the source of the JSON schema.

``config.yaml`` holds one section per stage. Every key states its unit in its name or description, and an unknown
key is an error that names the nearest valid one. ``mammoclip.documentation`` generates from it the schema with which
Snakemake validates the configuration at parse time, and its reference.
"""

from mammoclip.config.data import (
    AdapterName,
    Dataset,
    Mode,
    ParaphraseSection,
    PhantomCohort,
    ShardSection,
    Split,
    TabulateSection,
)
from mammoclip.config.evaluate import (
    EvaluateSection,
    Evaluation,
    FineTuneSection,
    MatrixRow,
    Protocol,
    TaskSection,
)
from mammoclip.config.localize import (
    ALL_FINDINGS,
    FACTOR,
    DetectionProtocol,
    DetectionSection,
    Detector,
    FactorSection,
    LocalizeSection,
    findings_of,
)
from mammoclip.config.pretrain import IMAGE_ENCODERS, Augmentation, Control, LossWeights, PretrainSection, Run
from mammoclip.config.section import Section, parse_section, resolve_source
from mammoclip.config.whole import Config, PaperSection, json_schema

__all__ = [
    "ALL_FINDINGS",
    "FACTOR",
    "IMAGE_ENCODERS",
    "AdapterName",
    "Augmentation",
    "Config",
    "Control",
    "Dataset",
    "DetectionProtocol",
    "DetectionSection",
    "Detector",
    "EvaluateSection",
    "Evaluation",
    "FactorSection",
    "FineTuneSection",
    "LocalizeSection",
    "LossWeights",
    "MatrixRow",
    "Mode",
    "PaperSection",
    "ParaphraseSection",
    "PhantomCohort",
    "PretrainSection",
    "Protocol",
    "Run",
    "Section",
    "ShardSection",
    "Split",
    "TabulateSection",
    "TaskSection",
    "findings_of",
    "json_schema",
    "parse_section",
    "resolve_source",
]
