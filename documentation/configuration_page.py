"""Makes docs/reference/configuration.md from the pydantic models."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from hard_ray.config.autoencoder_training import KlTraining, PatchTraining, VqTraining
from hard_ray.config.base import DISCRIMINATORS
from hard_ray.config.generation import GenerationConfig
from hard_ray.config.run import RunConfig

Schema = Mapping[str, Any]

HEAD = """# Configuration

<!-- Made by `make docs-reference` from hard_ray/config; a test compares the two. -->

A configuration consists of blocks of keys. Layers are merged in this order, and later ones win: the defaults below, a
preset, files from left to right (`-c`), `dotted.key=value` on the command line. A block whose `kind` or `policy`
changes is replaced; every other block is merged key by key. The result is validated once, and all mistakes are reported
together. Unknown keys are refused. [Show and presets](../how-to/show-and-presets.md) prints the merged result.

`null` means unset. Values are YAML: `optim.lr=0.1`, `validate.suites=[clean, shifted]`,
`teacher.model_kwargs={widths: [4, 8]}`. Paths are relative to the working directory of the command.
"""

RULES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "Exactly one of `optim.epochs` and `optim.steps` is set. Giving one in a later layer unsets the other.",
        ("optim.epochs=null",),
    ),
    (
        "`optim.batch_size` is a multiple of `runtime.num_workers`; so is `teacher.recipe.batch_size` if the "
        "teacher is trained first.",
        ("optim.batch_size=10", "runtime.num_workers=3"),
    ),
    (
        "`data.mix` needs two images per worker in a batch or more, and no `augmentor.join`.",
        ("data.mix.mixup=0.8", "optim.batch_size=1", "runtime.num_workers=1"),
    ),
    (
        "`data.augment.splits` needs a Jensen-Shannon weight (`objective.jsd` of `objective.kind=cross_entropy`, "
        "`teacher.recipe.jsd` or `experiment.jsd`), and the weights need it; neither goes with `data.mix`.",
        ("data.augment.splits=3", "data.augment.auto_augment=augmix-m3-w3"),
    ),
    (
        "A learned augmentor (`affine`, `policy`, `mix`, `vae`, or a combination with one) needs `objective.kind=hard` "
        "or `embedding`.",
        ("augmentor.kind=mix", "objective.kind=kd"),
    ),
    (
        "`objective.kind=cross_entropy` has no teacher, so it needs `augmentor.kind=identity`.",
        ("objective.kind=cross_entropy", "augmentor.kind=cutmix"),
    ),
    (
        "`objective.kind=embedding` has no classes: it refuses `augmentor.kind=pick` and `adversarial`, the suite "
        "`adversarial`, `teacher.class_map`, `student.new_head` and the control `labels_only`.",
        ("objective.kind=embedding", "augmentor.kind=pick"),
    ),
    (
        "Images without labels (`data.kind=images`, `data.label_column=null`, `data.label_key=null`) need a teacher "
        "with weights, and refuse `objective.w_ce` above 0, `objective.alpha` below 1, `objective.kind=dkd` and "
        "`cross_entropy`, `objective.weighting=released` and the control `labels_only`.",
        ("data.kind=images", "data.path=x", "teacher.model=local-dir:t", "objective.w_ce=1", "experiment.controls=[]"),
    ),
    (
        "`data.unlabelled` stands beside labelled images, and refuses `objective.kind=dkd` and `cross_entropy`, and "
        "`objective.weighting=released`.",
        ("data.unlabelled.kind=images", "data.unlabelled.path=x", "objective.kind=dkd", "augmentor.kind=identity"),
    ),
    (
        "`teacher.recipe.freeze` needs a teacher with weights.",
        ("teacher.recipe.freeze=tower",),
    ),
    (
        "`objective.kind=dad` needs a second view: any `augmentor.kind` but `identity`.",
        ("objective.kind=dad", "augmentor.kind=identity"),
    ),
    (
        "`objective.weighting=released` of `objective.kind=dad` and `augmentor.join` of `augmentor.kind=generated` are "
        "given together or not at all.",
        ("objective.kind=dad", "objective.weighting=released", "augmentor.kind=generated", "augmentor.path=set"),
    ),
    (
        "A combination of augmentors has at most one `generated` part, and `augmentor.join` is only allowed outside "
        "combinations.",
        (
            "augmentor={kind: sequence, augmentors: [{kind: generated, path: a}, {kind: generated, path: b}]}",
            "objective.kind=kd",
        ),
    ),
    (
        "`teacher.mean`, `teacher.std`, `student.mean` and `student.std` have 1 value or `data.in_chans` values.",
        ("student.mean=[0.5, 0.5]",),
    ),
    (
        "`data.scale` and `data.ratio` are two rising positive numbers.",
        ("data.scale=[0.9, 0.1]",),
    ),
    (
        "`data.digit_size` is at most `data.img_size`.",
        ("data.digit_size=64",),
    ),
    (
        "`controller.min_student_steps` is at most `max_student_steps`; the same holds for augmentor steps.",
        ("controller.min_student_steps=50",),
    ),
    (
        "`controller.l_max` exceeds `l_min` where thresholds are absolute, and 1 where they are relative.",
        ("controller.l_max=0.9",),
    ),
    (
        "`runtime.teacher.max_wait_ms` above 0 needs `runtime.teacher.max_batch`.",
        ("runtime.teacher.max_wait_ms=5",),
    ),
)
"""Rules between keys, each with overrides that break it."""


_WORDS = {"integer": "integer", "number": "number", "boolean": "`true`, `false`", "object": "block of arguments"}


@dataclass(frozen=True, slots=True)
class Row:
    """A key of the configuration."""

    key: str
    type: str
    default: str
    text: str

    @property
    def line(self) -> str:
        """A line of a Markdown table."""
        cells = (f"`{self.key}`", self.type, self.default, self.text)
        return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def configuration_page() -> str:
    """Make the page."""
    schema = RunConfig.model_json_schema()
    defaults = RunConfig().model_dump(mode="json")
    parts = [HEAD, _contents(schema), "## Rules between keys\n", *(f"- {text}" for text, _ in RULES), ""]
    for name, block in schema["properties"].items():
        kinds = _kinds(block, schema)
        if kinds:
            parts += _union(name, kinds, defaults[name], schema)
        elif "$ref" in block:
            parts += _block(name, _resolve(block, schema), defaults[name], schema)
    parts += _alone(schema, defaults)
    parts += _settings("`hardray generate`", "The settings of a generated set", (GenerationConfig,))
    trainings = (KlTraining, VqTraining, PatchTraining)
    parts += _settings("`hardray train-autoencoder`", "The settings of a training", trainings)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"


def _contents(schema: Schema) -> str:
    blocks = [f"[`{name}`](#{name})" for name, block in schema["properties"].items() if block.get("type") is None]
    return f"Blocks: {', '.join(blocks)}, and [`seed`](#seed).\n"


# ------------------------------------------------------------------------- blocks


def _union(name: str, kinds: Mapping[str, Schema], defaults: Mapping[str, Any], schema: Schema) -> list[str]:
    """A block with kinds: first the common keys, then the other keys of each kind."""
    tag = next(key for key in DISCRIMINATORS if key in defaults)
    rows = {kind: _rows(name, found, _values(found, defaults, tag), schema, tag) for kind, found in kinds.items()}
    first, *others = rows.values()
    common = [row for row in first if all(row in other for other in others)]
    listed = ", ".join(f"[`{kind}`](#{name}{tag}{kind})" for kind in kinds)
    lines = [f"## {name}", "", f"`{name}.{tag}` is one of {listed}; the default is `{defaults[tag]}`.", ""]
    if common:
        lines += ["Every kind has:", "", *_table(common), ""]
    for kind, found in kinds.items():
        own = [row for row in rows[kind] if row not in common]
        lines += [f"### {name}.{tag}={kind}", "", _docstring(found), "", *(_table(own) if own else []), ""]
    return lines + _inner_blocks(name, next(iter(kinds.values())), schema)


def _block(name: str, block: Schema, defaults: Mapping[str, Any], schema: Schema) -> list[str]:
    """A block without kinds, and the blocks in it."""
    lines = [f"## {name}", "", _docstring(block), "", *_table(_rows(name, block, defaults, schema)), ""]
    for key, inner in block["properties"].items():
        if "$ref" in inner:
            found = _resolve(inner, schema)
            lines += [f"### {name}.{key}", "", _docstring(found), ""]
            lines += [*_table(_rows(f"{name}.{key}", found, defaults[key], schema)), ""]
            lines += _inner_blocks(f"{name}.{key}", found, schema)
    return lines + _inner_blocks(name, block, schema)


def _inner_blocks(name: str, block: Schema, schema: Schema) -> list[str]:
    """The blocks that are unset or listed in a block, and those in them, each with its table."""
    lines: list[str] = []
    for key, field in block["properties"].items():
        found = _optional(field, schema)
        for kind, of_kind in _optional_kinds(field, schema).items():
            inner, values = f"{name}.{key}", {each: f.get("default") for each, f in of_kind["properties"].items()}
            lines += [f"### {inner}.kind={kind}", "", _docstring(of_kind), ""]
            lines += [*_table(_rows(inner, of_kind, values, schema, "kind")), ""]
        if found is not None:
            inner = f"{name}.{key}"
            values = {key: field.get("default") for key, field in found["properties"].items()}
            lines += [f"### {inner}", "", _docstring(found), "", *_table(_rows(inner, found, values, schema)), ""]
            lines += _inner_blocks(inner, found, schema)
    return lines


def _alone(schema: Schema, defaults: Mapping[str, Any]) -> list[str]:
    """Keys that stand in no block."""
    rows = [
        _row(name, field, defaults[name], schema) for name, field in schema["properties"].items() if "type" in field
    ]
    return [part for row in rows for part in (f"## {row.key}", "", *_table([row]), "")]


def _settings(verb: str, what: str, models: Sequence[type[BaseModel]]) -> list[str]:
    """Settings that are options of a verb, not keys of a run."""
    lines = [f"## Settings of {verb}", ""]
    lines += [
        f"{what}, as `hard_ray.api` takes them; [the command's options](cli.md) are the most common ones. "
        "They are not keys of a run's configuration.",
        "",
    ]
    for model in models:
        schema = model.model_json_schema()
        if len(models) > 1:
            lines += [f"### kind={schema['properties']['kind']['const']}", ""]
        required = set(schema.get("required", ()))
        values = {name: field.get("default") for name, field in schema["properties"].items()}
        rows = [
            _row(name, field, values[name], schema, required=name in required)
            for name, field in schema["properties"].items()
            if "const" not in field
        ]
        lines += [inspect.cleandoc(model.__doc__ or ""), "", *_table(rows), ""]
    return lines


def _values(block: Schema, defaults: Mapping[str, Any], tag: str) -> Mapping[str, Any]:
    """The defaults of a kind, or those of the run if it is the default kind."""
    own = {key: field["default"] for key, field in block["properties"].items() if "default" in field}
    return {**own, **defaults} if defaults[tag] == block["properties"][tag].get("const") else own


def _table(rows: Iterable[Row]) -> list[str]:
    return ["| key | type | default | meaning |", "|---|---|---|---|", *(row.line for row in rows)]


def _rows(name: str, block: Schema, values: Mapping[str, Any], schema: Schema, tag: str | None = None) -> list[Row]:
    required = set(block.get("required", ()))
    return [
        _row(f"{name}.{key}", field, values.get(key), schema, required=key in required)
        for key, field in block["properties"].items()
        if key != tag and ("const" not in field or "description" in field)
    ]


def _row(key: str, field: Schema, default: Any, schema: Schema, *, required: bool = False) -> Row:
    inner = _kinds(field, schema)
    if inner:
        shown = "`" + json.dumps(default["kind"]).strip('"') + "`" if isinstance(default, dict) else _value(default)
        return Row(key, "an [augmentor](#augmentor)", "required" if required else shown, _described(field))
    if "$ref" in field and "properties" in _resolve(field, schema):
        text = _described(field) or _docstring(_resolve(field, schema))
        where = (
            f"[a block](#{key.replace('.', '')})"
            if required is False and isinstance(default, dict)
            else _keys(field, schema)
        )
        return Row(key, where, "required" if required else "", text)
    shown = type_of(field, schema)
    if _optional(field, schema) is not None:
        link = f"(#{key.replace('.', '')})"
        shown = f"list of [blocks]{link}" if field.get("type") == "array" else f"[a block]{link} or `null`"
    return Row(key, shown, "required" if required else _value(default), _described(field))


def _optional(field: Schema, schema: Schema) -> Schema | None:
    """The block of a key that may be `null`, or is a list of such blocks; None: it is no such key."""
    for part in field.get("anyOf", [field.get("items", {})]):
        if "$ref" in part and "properties" in _resolve(part, schema):
            return _resolve(part, schema)
    return None


def _optional_kinds(field: Schema, schema: Schema) -> dict[str, Schema]:
    """The kinds of a block that may be `null`, by name; empty for any other key."""
    part: Schema = next((part for part in field.get("anyOf", []) if "oneOf" in part), {})
    mapping = part.get("discriminator", {}).get("mapping", {})
    return {kind: _resolve({"$ref": reference}, schema) for kind, reference in mapping.items()}


def _keys(field: Schema, schema: Schema) -> str:
    """A small block without defaults, by its keys."""
    return "block of " + ", ".join(f"`{key}`" for key in _resolve(field, schema)["properties"])


# -------------------------------------------------------------------------- types


def type_of(field: Schema, schema: Schema) -> str:
    """A key's type and constraint, in words."""
    if "$ref" in field:
        found = _resolve(field, schema)
        return _keys(field, schema) if "properties" in found else type_of(found, schema)
    if "anyOf" in field:
        return " or ".join("`null`" if part.get("type") == "null" else type_of(part, schema) for part in field["anyOf"])
    if "oneOf" in field or "enum" in field or "const" in field:
        return _one_of(field) if "oneOf" in field else _choice(field)
    if field["type"] == "array":
        return _array(field, schema)
    if field["type"] == "string":
        return "path" if field.get("format") == "path" else "text"
    return f"{_WORDS[field['type']]}{_range(field)}"


def _one_of(field: Schema) -> str:
    """The kinds of a block that is one of several."""
    kinds = ", ".join(f"`{kind}`" for kind in field["discriminator"]["mapping"])
    return f"a block of `{field['discriminator']['propertyName']}` {kinds}"


def _choice(field: Schema) -> str:
    return ", ".join(_value(value) for value in field.get("enum", [field.get("const")]))


def _array(field: Schema, schema: Schema) -> str:
    if "prefixItems" in field:
        items = field["prefixItems"]
        return f"list of {len(items)} {_plural(type_of(items[0], schema))}"
    inner = field["items"]
    if _kinds(inner, schema):
        return "list of [augmentors](#augmentor), at least 1"
    low, high = field.get("minItems"), field.get("maxItems")
    size = f"{low} to {high} " if low and high else f"at least {low} " if low else ""
    return f"list of {size}{_plural(type_of(inner, schema))}"


def _plural(name: str) -> str:
    """The plural of a type: `numbers, > 0` for `number, > 0`; other words stay as they are."""
    return re.sub(r"^(number|integer|text)\b", r"\1s", name)


def _range(field: Schema) -> str:
    """`> 0`, `≥ 1`, `0 to 1`."""
    low, above = field.get("minimum"), field.get("exclusiveMinimum")
    high, below = field.get("maximum"), field.get("exclusiveMaximum")
    if below is not None and below >= 2**63:
        below = None
    if low is not None and high is not None and below is None:
        return f", {_number(low)} to {_number(high)}"
    bounds = (("≥", low), (">", above), ("≤", high if below is None else None), ("<", below))
    found = [f"{sign} {_number(bound)}" for sign, bound in bounds if bound is not None]
    return f", {' and '.join(found)}" if found else ""


def _number(value: float) -> str:
    return f"{value:g}"


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"`{value:.5g}`"
    if isinstance(value, list):
        return "`[" + ", ".join(_value(item).strip("`") for item in value) + "]`"
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"


def _described(field: Schema) -> str:
    return " ".join(str(field.get("description", "")).split())


def _docstring(block: Schema) -> str:
    return " ".join(str(block.get("description", "")).split())


def _resolve(field: Schema, schema: Schema) -> Schema:
    name = field["$ref"].rpartition("/")[2]
    found: Schema = schema["$defs"][name]
    return found


def _kinds(field: Schema, schema: Schema) -> dict[str, Schema]:
    """The kinds of a discriminated union, by name; empty for any other field."""
    mapping = field.get("discriminator", {}).get("mapping", {})
    return {kind: _resolve({"$ref": reference}, schema) for kind, reference in mapping.items()}
