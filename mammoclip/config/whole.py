"""The whole of ``config.yaml``, and the references between its sections."""

from __future__ import annotations

from typing import Any

from pydantic import Field, PositiveInt

from mammoclip.config.data import Dataset, ParaphraseSection, ShardSection, TabulateSection
from mammoclip.config.evaluate import EvaluateSection
from mammoclip.config.localize import LocalizeSection
from mammoclip.config.pretrain import PretrainSection
from mammoclip.config.section import Name, Section, suggest
from mammoclip.errors import ConfigError


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
    localize: LocalizeSection = LocalizeSection()
    paper: PaperSection = PaperSection()

    def model_post_init(self, __context: Any) -> None:
        """Check the references between sections."""
        self._check_names()
        for run in self.pretrain.runs:
            self._check_run(run)
        if self.paper.main_run not in self.pretrain.runs:
            hint = suggest(self.paper.main_run, self.pretrain.runs)
            raise ConfigError(f"paper.main_run names {self.paper.main_run!r}, which is not under pretrain.runs{hint}")
        for name, dataset in self.datasets.items():
            if dataset.generate is not None and dataset.adapter != "phantom":
                raise ConfigError(f"datasets.{name}.generate: only the phantom adapter can generate its data")
            if (dataset.generate is None) == (dataset.root is None):
                raise ConfigError(f"datasets.{name}: give either root (data that exist) or generate (phantoms)")

    def _check_names(self) -> None:
        """Check that every data set and run that a section names is there, and that modes go together."""
        for key, names in (
            ("pretrain.datasets", self.pretrain.datasets),
            ("evaluate.matrix", self.evaluate.datasets),
            ("evaluate.retrieval", self.evaluate.retrieval),
            ("evaluate.showcase", self.evaluate.showcase),
            ("localize", self.localize.datasets),
        ):
            for name in names:
                if name not in self.datasets:
                    raise ConfigError(
                        f"{key} names {name!r}, which is not under datasets{suggest(name, self.datasets)}"
                    )
        for key, rows in (
            ("evaluate.matrix", self.evaluate.matrix),
            ("localize.detection.matrix", self.localize.detection.matrix),
            ("localize.factor", [self.localize.factor]),
        ):
            for run in (run for row in rows for run in row.runs):
                if run not in self.pretrain.runs:
                    raise ConfigError(
                        f"{key} names the run {run!r}, which is not under pretrain.runs"
                        f"{suggest(run, self.pretrain.runs)}"
                    )
        for name, section in (("evaluate", self.evaluate), ("localize", self.localize)):
            if section.mode == "compat" and self.tabulate.mode != "compat":
                raise ConfigError(f"{name}.mode: compat wants the labels as released: set tabulate.mode to compat too")

    def _check_run(self, name: str) -> None:
        section = self.pretrain.of_run(name)
        for dataset in section.datasets:
            if dataset not in self.datasets:
                hint = suggest(dataset, self.datasets)
                raise ConfigError(f"pretrain.runs.{name} names {dataset!r}, which is not under datasets{hint}")
        for dataset in section.dataset_weights:
            if dataset not in section.datasets:
                hint = suggest(dataset, section.datasets)
                raise ConfigError(
                    f"pretrain.dataset_weights names {dataset!r}, which the run {name!r} is not trained on{hint}"
                )


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of :class:`Config` (draft 2020-12), as committed under ``workflow/schemas``."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
