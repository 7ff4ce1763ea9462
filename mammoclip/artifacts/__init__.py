"""Every on-disk table: name, version, columns with type and meaning; read, write (atomic) and validate.

The prose specification is ``docs/formats.md``. A table is a Parquet file whose key-value metadata hold
``mammoclip.table`` and ``mammoclip.version``; a reader gets exactly the columns below or an error that says
which file, which column, what was expected and what was found.
"""

from mammoclip.artifacts.data_tables import (
    ATTRIBUTES,
    BREASTS,
    FINDINGS,
    IMAGES,
    INDEX,
    LABELS,
    MANIFEST,
    NO_FINDING,
    PARAPHRASES,
    REJECT_REASONS,
    REJECTS,
    REPORTS,
    TABULATED,
)
from mammoclip.artifacts.result_tables import (
    ATTRIBUTIONS,
    CHOICES,
    DETECTIONS,
    FEATURES,
    HEAT_MAPS,
    LOCALIZATION,
    METRICS,
    PREDICTIONS,
    PROMPTS,
    RETRIEVAL,
    STEPS,
    VALIDATION,
)
from mammoclip.artifacts.storage import (
    Column,
    Table,
    atomic_path,
    read_table,
    told_when_full,
    write_table,
    write_text,
)
from mammoclip.config.data import FINDING_NAMES

__all__ = [
    "ATTRIBUTES",
    "ATTRIBUTIONS",
    "BREASTS",
    "CHOICES",
    "DETECTIONS",
    "FEATURES",
    "FINDINGS",
    "FINDING_NAMES",
    "HEAT_MAPS",
    "IMAGES",
    "INDEX",
    "LABELS",
    "LOCALIZATION",
    "MANIFEST",
    "METRICS",
    "NO_FINDING",
    "PARAPHRASES",
    "PREDICTIONS",
    "PROMPTS",
    "REJECTS",
    "REJECT_REASONS",
    "REPORTS",
    "RETRIEVAL",
    "STEPS",
    "TABULATED",
    "VALIDATION",
    "Column",
    "Table",
    "atomic_path",
    "read_table",
    "told_when_full",
    "write_table",
    "write_text",
]
