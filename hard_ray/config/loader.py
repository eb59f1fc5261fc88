"""From files and overrides to one validated configuration.

Later layers win: defaults, then files from left to right, then `dotted.key=value` overrides. A block whose
`kind` (or `policy`) changes is replaced; any other block is merged key by key. Validation happens once, after
merging, and reports every mistake together.
"""

from __future__ import annotations

import copy
import difflib
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hard_ray.config.run import RunConfig
from hard_ray.errors import ConfigError, RunFolderError, suggestion
from hard_ray.redaction import masked

Layer = dict[str, Any]

DISCRIMINATORS = ("kind", "policy")
ALTERNATIVES = {"epochs": "steps", "steps": "epochs"}
LOCAL_PREFIXES = ("local-dir:", "sqlite:///")

MOST_VALUES = 100_000
"""In a YAML text, what aliases repeat included."""

MOST_SHOWN = 200
"""Characters of a wrong value."""

ConfigT = TypeVar("ConfigT", bound=BaseModel)


class _BoundedLoader(yaml.SafeLoader):
    """YAML's safe subset, without bombs of aliases."""

    def get_single_node(self) -> yaml.Node | None:
        """The text's node, once it is known to be no bomb."""
        found: yaml.Node | None = super().get_single_node()
        if found is not None:
            _count(found, {})
        return found

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A node's value; a tag that its text does not fit is an error of YAML's, not of Python's."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError):
            kind = node.tag.removeprefix("tag:yaml.org,2002:")
            raise yaml.constructor.ConstructorError(
                None, None, f"this value cannot be read as {kind}", node.start_mark
            ) from None


class _Loader(_BoundedLoader):
    """A key that stands twice is an error instead of a silent choice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(str(key))
        return super().construct_mapping(node, deep=deep)


def _count(node: yaml.Node, known: dict[int, int | None]) -> int:
    """How many values stand in a node, each alias as what it stands for.

    Raises:
        ComposerError: more than anybody writes, or a node within itself.
    """
    if id(node) in known:
        found = known[id(node)]
        if found is None:
            raise yaml.composer.ComposerError(None, None, "an alias stands within what it names", node.start_mark)
        return found
    known[id(node)] = None
    inner = node.value if isinstance(node, yaml.CollectionNode) else ()
    parts = (part for item in inner for part in (item if isinstance(item, tuple) else (item,)))
    found = 1 + sum(_count(part, known) for part in parts)
    if found > MOST_VALUES:
        raise yaml.composer.ComposerError(None, None, f"more than {MOST_VALUES:,} values", node.start_mark)
    known[id(node)] = found
    return found


def parse_yaml(text: str, source: str, *, repeated_keys: bool = False) -> Any:
    """Read YAML's safe subset.

    Args:
        text: the YAML.
        source: what messages call it.
        repeated_keys: a key that stands twice is no error, and the later one counts.

    Raises:
        ConfigError: the text is not YAML; the message has the line.
    """
    try:
        return yaml.load(text, Loader=_BoundedLoader if repeated_keys else _Loader)  # noqa: S506  (a SafeLoader)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise ConfigError([f"not valid YAML: {_yaml_problem(error)}"], source) from None


def _yaml_problem(error: Exception) -> str:
    """What is wrong and where, without the text that stands there, which may hold a password."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return masked(" ".join(str(error).split()))
    said = ((error.context, error.context_mark), (error.problem, error.problem_mark))
    return masked(": ".join(f"{text}{_place(mark)}" for text, mark in said if text))


def _place(mark: yaml.Mark | None) -> str:
    return "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"


def read_layer(path: Path) -> Layer:
    """Read one configuration file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError([f"cannot read the file: {reason}"], str(path)) from None
    layer = parse_yaml(text, str(path))
    if layer is None:
        return {}
    if not isinstance(layer, dict):
        raise ConfigError([f"want blocks such as `data:`, got a {type(layer).__name__}"], str(path))
    return layer


def parse_overrides(overrides: Iterable[str]) -> Layer:
    """Turn `dotted.key=value` texts into one layer; values are YAML."""
    values: list[tuple[str, str, Any]] = []
    problems = []
    for override in overrides:
        dotted, sep, text = override.partition("=")
        if not sep or not all(dotted.strip().split(".")):
            problems.append(f"{masked(repr(override))}: want dotted.key=value, for example optim.lr=0.1")
            continue
        values.append((override, dotted.strip(), parse_yaml(text, f"the override {masked(repr(override))}")))
    layer, conflicts = _nested(values)
    if problems or conflicts:
        raise ConfigError([*problems, *conflicts], "the overrides")
    return layer


def dotted_values(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested blocks as dotted keys; an empty block has none."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= dotted_values(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def layer_of(values: Mapping[str, Any], source: str) -> Layer:
    """One layer of values by their dotted keys.

    Raises:
        ConfigError: a key is a part of another one; the message names `source`.
    """
    layer, conflicts = _nested((key, key, value) for key, value in values.items())
    if conflicts:
        raise ConfigError(conflicts, source)
    return layer


def _nested(values: Iterable[tuple[str, str, Any]]) -> tuple[Layer, list[str]]:
    """Blocks in blocks, of what was said, a dotted key and a value; and what contradicts what was said before."""
    layer: Layer = {}
    conflicts = []
    for said, dotted, value in values:
        *blocks, last = dotted.split(".")
        block = layer
        for key in blocks:
            block = block.setdefault(key, {})
            if not isinstance(block, dict):
                conflicts.append(f"{masked(repr(said))}: {key} was already given a value")
                break
        else:
            block[last] = value
    return layer, conflicts


def merge(base: Mapping[str, Any], layer: Mapping[str, Any]) -> Layer:
    """`layer` over `base`; a block whose kind changes, and a length given otherwise, are replaced."""
    if any(key in layer and layer[key] != base.get(key) for key in DISCRIMINATORS):
        return dict(layer)
    merged = dict(base)
    for key, value in layer.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
        other = ALTERNATIVES.get(key)
        if other in base and other not in layer and value is not None:
            merged[str(other)] = None
    return merged


def preset_names() -> list[str]:
    """The shipped configurations."""
    folder = resources.files("hard_ray.presets")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def preset_text(name: str) -> str:
    """The text of a shipped configuration."""
    if name not in preset_names():
        raise ConfigError([f"no preset is named {name!r}; {suggestion(name, preset_names())}"], "--preset")
    return (resources.files("hard_ray.presets") / f"{name}.yaml").read_text(encoding="utf-8")


def preset_description(name: str) -> str:
    """The comment on a preset's first line."""
    return preset_text(name).splitlines()[0].lstrip("# ").rstrip()


def load_config(
    files: Sequence[Path] = (),
    *,
    preset: str | None = None,
    overrides: Sequence[str] = (),
    beneath: Layer | None = None,
    defaults: Layer | None = None,
) -> RunConfig:
    """Merge and validate.

    Args:
        files: YAML files, the later ones win.
        preset: a shipped configuration that lies below the files.
        overrides: `dotted.key=value` texts that lie above them.
        beneath: what lies between the preset and the files.
        defaults: what counts where neither preset nor files nor overrides say otherwise.

    Raises:
        ConfigError: every mistake found, in one message.
    """
    layers: list[Layer] = [] if defaults is None else [defaults]
    if preset is not None:
        layers.append(parse_yaml(preset_text(preset), f"preset {preset}"))
    layers += [beneath] if beneath is not None else []
    layers += [read_layer(path) for path in files]
    layers.append(parse_overrides(overrides))
    sources = [f"preset {preset}"] if preset else []
    sources += [str(path) for path in files]
    sources += ["the overrides"] if overrides else []
    return validate(layers, source=" + ".join(sources) or "the defaults")


def validate(layers: Sequence[Layer], *, source: str) -> RunConfig:
    """Merge `layers` over the defaults and validate once."""
    merged: Layer = RunConfig().model_dump(mode="json")
    for layer in layers:
        merged = merge(merged, layer)
    try:
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(_all_problems(error, merged), source) from None


def of_options(model: type[ConfigT], values: Layer) -> ConfigT:
    """What the options of a command describe.

    Raises:
        ConfigError: every mistake in them, in one message.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [describe(problem, values) for problem in error.errors(include_url=False)]
        raise ConfigError(problems, "the options") from None


def read_begun(model: type[ConfigT], path: Path) -> ConfigT:
    """The settings that a folder was begun with.

    Args:
        model: what they are settings of.
        path: the folder's file of them.

    Raises:
        ConfigError: the file cannot be read.
        RunFolderError: it holds no settings of this version's.
    """
    layer = read_layer(path)
    try:
        return model.model_validate(layer)
    except ValidationError as error:
        problems = [describe(problem, layer, model) for problem in error.errors(include_url=False)]
        raise RunFolderError(
            f"{path} has settings that this version of hardray does not take: {'; '.join(problems[:5])}; go on with "
            "the version that began the folder, or choose another --output"
        ) from None


def _all_problems(error: ValidationError, merged: Layer) -> list[str]:
    """What is wrong, and what would still be wrong with those keys taken out.

    Pydantic compares blocks with each other only once each is valid by itself.
    """
    problems: list[str] = []
    remaining = copy.deepcopy(merged)
    for _ in range(len(list(known_keys(RunConfig)))):
        found = error.errors(include_url=False)
        problems += [describe(problem, merged) for problem in found]
        removed = [_remove(remaining, problem["loc"]) for problem in found]
        if not any(removed):
            break
        try:
            RunConfig.model_validate(remaining)
        except ValidationError as next_error:
            error = next_error
        else:
            break
    return list(dict.fromkeys(problems))


def _remove(raw: Any, location: Sequence[str | int]) -> bool:
    """Take out what `location` points at; whether anything was there."""
    for key in dotted_location(location, raw).split("."):
        if not isinstance(raw, dict) or key not in raw:
            return False
        if not isinstance(raw[key], dict):
            del raw[key]
            return True
        raw = raw[key]
    return False


def describe(problem: ErrorDetails, raw: Any, model: type[BaseModel] = RunConfig) -> str:
    """One line for one of pydantic's findings: where, what is wrong, what was got."""
    where = dotted_location(problem["loc"], raw)
    if problem["type"] == "extra_forbidden":
        if where in set(known_keys(model)):
            return f"{where}: unknown key here; another kind of {where.rpartition('.')[0]} has it"
        return f"{where}: unknown key{_suggestion(where, model)}"
    if problem["type"] == "value_error":
        text = str(problem["msg"]).removeprefix("Value error, ")
        return f"{where}: {text}" if where else text
    if problem["type"] == "union_tag_invalid":
        tag, known = problem["ctx"]["discriminator"].strip("'"), problem["ctx"]["expected_tags"].replace("'", "")
        got = problem["ctx"]["tag"]
        return f"{where}.{tag}: {got!r} is unknown; {suggestion(got, known.split(', '))}"
    if problem["type"] == "missing":
        return f"{where}: is required and has no default"
    return f"{where}: {problem['msg']} (got {_shown(problem['input'])})"


def _shown(value: object) -> str:
    """Enough of a value to know it again."""
    text = masked(repr(value))
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def dotted_location(location: Sequence[str | int], raw: Any) -> str:
    """Pydantic's location without the tags of discriminated unions, which are no keys."""
    keys: list[str] = []
    for part in location:
        if isinstance(raw, Mapping) and part not in raw and part in [raw.get(key) for key in DISCRIMINATORS]:
            continue
        keys.append(str(part))
        if isinstance(raw, Mapping):
            raw = raw.get(part)
        elif isinstance(raw, Sequence) and isinstance(part, int) and part < len(raw):
            raw = raw[part]
    return ".".join(keys)


def _suggestion(dotted: str, model: type[BaseModel]) -> str:
    """`; did you mean ...?`: a sibling that looks alike, else the same last word elsewhere."""
    block, _, last = dotted.rpartition(".")
    known = sorted(set(known_keys(model)))
    siblings = [key for key in known if key.rpartition(".")[0] == block]
    close = difflib.get_close_matches(dotted, siblings, n=1, cutoff=0.7)
    words = difflib.get_close_matches(last, [key.rpartition(".")[2] for key in known], n=1, cutoff=0.8)
    close = close or sorted((key for key in known if key.rpartition(".")[2] in words), key=len)[:1]
    return f"; did you mean {close[0]}?" if close else ""


def known_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key that some kind of each block has."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        yield key
        for inner in _models_in(field.annotation):
            yield from known_keys(inner, f"{key}.")


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _models_in(part)


def absolute(config: ConfigT) -> ConfigT:
    """The same configuration with every path that starts at the working directory made absolute.

    Workers and a later resume stand elsewhere.
    """
    changed = {name: _absolute(getattr(config, name)) for name in type(config).model_fields}
    return config.model_copy(update=changed)


def _absolute(value: Any) -> Any:
    match value:
        case BaseModel():
            return absolute(value)
        case tuple():
            return tuple(_absolute(item) for item in value)
        case Path():
            return value.expanduser().absolute()
        case str():
            for prefix in LOCAL_PREFIXES:
                if value.startswith(prefix):
                    return f"{prefix}{Path(value.removeprefix(prefix)).expanduser().absolute()}"
    return value


def dump_yaml(config: BaseModel) -> str:
    """The resolved configuration as YAML that loads back to an equal object."""
    return yaml.safe_dump(_kind_first(config.model_dump(mode="json")), sort_keys=False, allow_unicode=True)


def _kind_first(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    keys = sorted(value, key=lambda key: key not in DISCRIMINATORS)
    return {key: _kind_first(value[key]) for key in keys}
