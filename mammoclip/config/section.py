"""What every section is made of, and the sentences that say what is wrong with one."""

from __future__ import annotations

import difflib
import importlib.resources
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, ValidationError

from mammoclip.errors import ConfigError


def _check_name(name: str) -> str:
    if not name or not all(c.isascii() and (c.isalnum() or c in "-_") for c in name):
        raise ValueError("names become folder names: use ASCII letters, digits, '-' and '_' only")
    return name


Name = Annotated[str, AfterValidator(_check_name)]


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


def merge(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return ``values`` with ``changes``, section by section: what a section in ``changes`` does not name stays."""
    changed = dict(values)
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(values.get(key), dict)
        changed[key] = merge(values[key], value) if nested else value
    return changed


def suggest(name: str, valid: Any) -> str:
    """Return the end of a sentence about an unknown name: the nearest valid one, or all."""
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
        return f"unknown key {key!r}{suggest(str(location[-1]), _fields_at(section, location[:-1]))}"
    if error["type"] == "missing":
        return f"missing key {key!r}"
    message = error["msg"]
    return f"{key or section.__name__}: {message[0].lower()}{message[1:]}, got {error['input']!r}"
