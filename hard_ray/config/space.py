"""Search spaces: a base configuration, the distributions of settings, and how settings are chosen.

A space is checked completely before anything is scheduled: the base configuration must stay valid with each end of
each distribution.
"""

from __future__ import annotations

import itertools
import math
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator
from pydantic_core import ErrorDetails

from hard_ray.config.base import DISCRIMINATORS, Config, Seed
from hard_ray.config.data import has_labels, why_unlabelled
from hard_ray.config.distribution import KINDS, Choice, Distribution, Value
from hard_ray.config.layers import Layer, layer_of, parse_overrides, read_layer, shown_file
from hard_ray.config.loader import absolute, fitting_preset, validate
from hard_ray.config.presets import preset_text
from hard_ray.config.problems import describe
from hard_ray.config.run import RunConfig, embeds
from hard_ray.config.safe_yaml import parse_yaml
from hard_ray.errors import ConfigError, suggestion
from hard_ray.storage.address import Remote, is_url

SHARED_BLOCKS = ("data", "teacher", "runtime", "validate", "checkpoints", "tracking", "experiment")
"""Blocks that all trials share: the same data, one teacher pool, the same evaluation."""

BETTER = {"top1": "max", "agreement": "max", "loss": "min", "ece": "min", "cosine": "max"}
"""Measures of an evaluation, and which direction is better."""

OF_LABELS = ("top1", "ece")
"""Those of `BETTER` that need labels."""

DEFAULT_TRIALS = 20
PBT_REFUSED = (
    "pbt copies one trial's Tune checkpoint into another, which a trial of one worker in a plain function could offer; "
    "a trial here trains in a Ray Train worker group and keeps its checkpoints in its own run folder, so that Tune has "
    "none to copy; use asha or none"
)

Mode = Literal["min", "max"]


class Base(Config):
    """Base configuration of all trials."""

    preset: str | None = None
    """A shipped configuration; give this or `config`."""
    config: Path | None = None
    """A configuration file, relative to the space's folder; give this or `preset`."""
    overrides: dict[str, Any] = Field(default={})
    """Values by dotted key, above the preset or file."""

    @model_validator(mode="after")
    def _one_source(self) -> Base:
        if (self.preset is None) == (self.config is None):
            raise ValueError("give exactly one of preset and config, for example base: {preset: digits}")
        return self


class SpaceConfig(Config):
    """One search."""

    base: Base
    """Base configuration of all trials."""
    parameters: Annotated[dict[str, Distribution], Field(min_length=1)]
    """Searched settings: a distribution by dotted configuration key."""
    search: Literal["optuna", "random", "grid"] = "optuna"
    """Choice of settings: by Optuna's TPE, at random, or every combination of choices."""
    scheduler: Literal["asha", "pbt", "none"] = "asha"
    """`asha` ends trials early that are behind others at the same epoch; `none` runs all to the end."""
    trials: PositiveInt | None = None
    """Number of trials; unset: 20, and for `grid` every combination."""
    concurrency: PositiveInt = 1
    """Trials that run at the same time."""
    metric: str | Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Metric to optimise, of the validation split; a list: the trade-off between several (Pareto). Unset: `val/top1`,
    of images without labels `val/agreement`, of embeddings `val/cosine`."""
    mode: Mode | tuple[Mode, ...] | None = None
    """Whether smaller or larger values are better; unset: follows from the metric."""
    stop: dict[str, PositiveFloat] = Field(default={})
    """Values of `epoch`, `step` or a metric that end a trial which reaches them."""
    grace_epochs: PositiveInt = 1
    """Epochs that `asha` gives every trial."""
    reduction_factor: Annotated[int, Field(ge=2)] = 4
    """At each decision of `asha`, one in this many trials continues."""
    seed: Seed = 0
    """Seed of the settings; for `optuna`, they also depend on the results of earlier trials."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """The optimised metrics, the main one first."""
        metric = self.metric or "val/top1"
        return (metric,) if isinstance(metric, str) else metric

    def resolved(self, base: RunConfig) -> SpaceConfig:
        """The same space with its metric: unless one is set, what networks of the base configuration are judged by."""
        if self.metric is not None:
            return self
        judged = "top1" if has_labels(base.data) else "agreement"
        return self.model_copy(update={"metric": f"val/{'cosine' if embeds(base) else judged}"})

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The better direction of each metric."""
        if self.mode is None:
            return tuple(better(name) for name in self.metrics)
        return (self.mode,) * len(self.metrics) if isinstance(self.mode, str) else self.mode

    @property
    def count(self) -> int:
        """Number of trials of the search."""
        if self.search != "grid":
            return self.trials or DEFAULT_TRIALS
        sizes = [len(drawn.choice) for drawn in self.parameters.values() if isinstance(drawn, Choice)]
        return math.prod(sizes)

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        problems = [*self._search_problems(), *self._parameter_problems()]
        problems += self._metric_problems() or self._mode_problems()
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _search_problems(self) -> Iterator[str]:
        if self.scheduler == "pbt":
            yield f"scheduler: {PBT_REFUSED}"
        if self.scheduler == "asha" and len(self.metrics) > 1:
            yield "scheduler: asha compares trials by one metric, and metric names several; use scheduler: none"
        if self.search != "grid":
            return
        for key, drawn in self.parameters.items():
            if not isinstance(drawn, Choice):
                yield f"parameters.{key}: search: grid tries every value, and {drawn} has no list of them; use choice"
        if self.trials is not None and self.trials != self.count:
            yield f"trials: search: grid makes {self.count} trials, one for each combination, got {self.trials}"

    def _parameter_problems(self) -> Iterator[str]:
        for key in self.parameters:
            block = key.partition(".")[0]
            if block in SHARED_BLOCKS:
                yield (
                    f"parameters.{key}: {block} is the same for all trials, which see the same data, ask one teacher "
                    "pool and are measured alike; set it in base"
                )

    def _metric_problems(self) -> list[str]:
        names = [*self.metrics, *(name for name in self.stop if name not in ("epoch", "step"))]
        return [f"{_key_of(name, self.stop)}: {problem}" for name in names if (problem := _metric_problem(name))]

    def _mode_problems(self) -> Iterator[str]:
        if isinstance(self.mode, tuple) and len(self.mode) != len(self.metrics):
            yield f"mode: want one for each metric, got {len(self.mode)} for {len(self.metrics)}"
            return
        for name, mode in zip(self.metrics, self.modes, strict=True):
            if mode != better(name):
                yield f"mode: {mode} of {name} would look for the worst; use {better(name)}, or leave mode out"


def _key_of(name: str, stop: Mapping[str, float]) -> str:
    return f"stop.{name}" if name in stop else "metric"


def better(name: str) -> Mode:
    """The better direction of a metric; counters such as `epoch` rise."""
    return "min" if BETTER.get(name.rpartition("/")[2]) == "min" else "max"


def _metric_problem(name: str) -> str | None:
    parts = name.split("/")
    split, last = parts[0], parts[-1]
    if split in ("test", "ood"):
        return f"{name} is measured on the test split, which is never used to choose anything; use val/{last}"
    if split != "val" or len(parts) < 2 or last not in BETTER:
        known = ", ".join(f"val/{key}" for key in BETTER)
        return f"{name!r} is not what an evaluation reports; there are {known}, and val/SUITE/... of each"
    return None


# ------------------------------------------------------------------------- loading


@dataclass(frozen=True, slots=True)
class Search:
    """A checked space, with its base configuration."""

    space: SpaceConfig
    base: RunConfig
    source: str
    """The file, for messages."""

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return Path(self.source).stem

    def with_values(self, values: Mapping[str, Any]) -> RunConfig:
        """The base configuration with a trial's settings; ConfigError: the settings contradict each other."""
        return with_values(self.base, values, self.source)


def with_values(base: RunConfig, values: Mapping[str, Any], source: str) -> RunConfig:
    """A configuration with other values by dotted key; ConfigError: they contradict each other; it names `source`."""
    return validate([base.model_dump(mode="json"), layer_of(values, source)], source=source)


def space_names() -> list[str]:
    """Names of the shipped spaces, sorted."""
    folder = resources.files("hard_ray_spaces")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_space(name: str, overrides: Sequence[str] = (), *, saved: bool = False) -> Search:
    """Read a space and check every value of it.

    Args:
        name: a file, its URL, or a shipped space, with or without `.yaml`; a file in the working directory wins. The
            space's `base.config` is relative to the folder of the file or URL.
        overrides: `dotted.key=value` texts, above the base configuration.
        saved: whether hardray wrote the file and its base configuration.

    Raises:
        ConfigError: every mistake found, in one message.
        StorageError: there is nothing at the URL, or it cannot be used.
    """
    raw, source, folder = _read(name, saved=saved)
    space = _parse(raw, source)
    base = _base(space.base, folder, overrides, source, saved=saved)
    search = Search(space.resolved(base), absolute(base), source)
    problems = [*_label_problems(search), *_suite_problems(search), *_runtime_problems(search)]
    problems += [*_embedding_problems(search), *_value_problems(search)]
    if problems:
        raise ConfigError(problems, source)
    return search


def _read(name: str, *, saved: bool) -> tuple[Layer, str, Path | Remote]:
    """The content of a space, its name for messages, and the folder or URL that its paths are relative to."""
    if is_url(name):
        remote = Remote.parse(name)
        return read_layer(Path(str(remote)), saved=saved), remote.shown, remote.parent
    path = Path(name).expanduser()
    for here in (path, Path(f"{path}.yaml")):
        if here.is_file():
            return read_layer(here, saved=saved), str(here), here.parent
    shipped = name.removesuffix(".yaml")
    if shipped not in space_names():
        problem = f"there is no such file, and no shipped space of that name; {suggestion(shipped, space_names())}"
        raise ConfigError([problem], f"--space {name}")
    source = f"{shipped}.yaml"
    text = (resources.files("hard_ray_spaces") / source).read_text(encoding="utf-8")
    return parse_yaml(text, source), source, Path()


def _parse(raw: Layer, source: str) -> SpaceConfig:
    try:
        return SpaceConfig.model_validate(raw)
    except ValidationError as error:
        problems = [line for problem in error.errors(include_url=False) for line in _describe(problem, raw)]
        raise ConfigError(problems, source) from None


def _describe(problem: ErrorDetails, raw: Any) -> Iterator[str]:
    """Lines for one of pydantic's errors, whose locations repeat the key of a distribution."""
    parts = problem["loc"]
    location = tuple(
        part for part, after in zip(parts, (*parts, None)[1:], strict=True) if part not in KINDS or part != after
    )
    where = ".".join(str(part) for part in location)
    kinds = ", ".join(KINDS)
    if problem["type"] == "union_tag_not_found":
        yield f"{where}: want one distribution, such as {{uniform: [0, 1]}}; there are {kinds}"
    elif problem["type"] == "union_tag_invalid":
        got = problem["ctx"]["tag"]
        yield f"{where}: {got!r} is not a distribution; {suggestion(got, list(KINDS))}"
    elif problem["type"] == "value_error" and not location:
        yield from str(problem["msg"]).removeprefix("Value error, ").splitlines()
    else:
        yield describe({**problem, "loc": location}, raw, SpaceConfig)


def base_file(base: Base, folder: Path | Remote) -> Path:
    """The file of a space's base configuration, or its URL as a path; `folder` is that of the space."""
    named = base.config or Path()
    if is_url(named):
        return named
    if isinstance(folder, Path):
        return folder / named
    if named.is_absolute():
        return named
    key = posixpath.normpath(f"{folder.key}/{named.as_posix()}")
    return Path(str(replace(folder, key=key)))


def _base(base: Base, folder: Path | Remote, overrides: Sequence[str], source: str, *, saved: bool) -> RunConfig:
    upper = [layer_of(base.overrides, f"base.overrides of {source}"), parse_overrides(overrides)]
    if base.preset is not None:
        below = f"preset {base.preset}"
        lowest = fitting_preset(parse_yaml(preset_text(base.preset), below), upper)
    else:
        path = base_file(base, folder)
        lowest, below = read_layer(path, saved=saved), shown_file(path)
    above = [f"base.overrides of {source}"] if base.overrides else []
    above += ["the overrides"] if overrides else []
    return validate([lowest, *upper], source=" + ".join([below, *above]))


def _label_problems(search: Search) -> Iterator[str]:
    """Metrics of labels, where the images of the base configuration have none."""
    space, data = search.space, search.base.data
    if has_labels(data) or embeds(search.base):
        return
    for name in dict.fromkeys([*space.metrics, *space.stop]):
        above, _, last = name.rpartition("/")
        if last in OF_LABELS:
            yield (
                f"{_key_of(name, space.stop)}: {name} is measured with labels, and {why_unlabelled(data)}, so that the "
                f"images have none; use {above}/agreement"
            )


def _suite_problems(search: Search) -> Iterator[str]:
    """Metrics whose suite the base configuration does not evaluate."""
    space, suites = search.space, search.base.validation.suites
    for name in dict.fromkeys([*space.metrics, *space.stop]):
        suite = "/".join(name.split("/")[1:-1]) or "clean"
        if name not in ("epoch", "step") and suite not in suites:
            yield (
                f"{_key_of(name, space.stop)}: {name} is of the suite {suite}, and validate.suites of the base "
                f"configuration are {', '.join(suites)}; add it there"
            )


def _runtime_problems(search: Search) -> Iterator[str]:
    runtime = search.base.runtime
    if runtime.is_elastic:
        yield (
            f"base: runtime.min_workers {runtime.min_workers} lets a trial go on with fewer workers than another; "
            "leave it out of a search"
        )


def _embedding_problems(search: Search) -> Iterator[str]:
    """Trials that ask a teacher with classes beside such that ask it without, and metrics that the base lacks."""
    drawn, kind = search.space.parameters.get("objective.kind"), search.base.objective.kind
    kinds = {str(value) for value in drawn.choice} if isinstance(drawn, Choice) else {kind}
    if "embedding" in kinds | {kind} and len(kinds | {kind}) > 1:
        yield (
            "parameters.objective.kind: embedding needs a teacher without its class head, and all trials ask one "
            "teacher; search it alone, with objective.kind: embedding in base.overrides"
        )
    weights = search.space.parameters.get("objective.w_tokens")
    asked = [getattr(search.base.objective, "w_tokens", 0.0), *(() if weights is None else weights.ends())]
    if weights is not None and 0 in asked:
        yield (
            f"parameters.objective.w_tokens: {weights} or the base has 0, with which the teacher answers without "
            "tokens, and all trials ask one teacher; want weights above 0 alone, and such a one in base.overrides"
        )
    for name in search.space.metrics:
        measure = name.rpartition("/")[2]
        if measure != "loss" and (measure == "cosine") != (kind == "embedding"):
            has = "val/cosine and val/loss" if kind == "embedding" else "no val/cosine, which is of embeddings"
            yield f"metric: {name} is not reported with objective.kind {kind}: there is {has}; name another metric"


def _value_problems(search: Search) -> Iterator[str]:
    """Problems of the ends of every distribution, in the base configuration with every choice of kinds."""
    parameters = search.space.parameters
    kinds = {key: drawn.choice for key, drawn in parameters.items() if _names_kind(key) and isinstance(drawn, Choice)}
    found: dict[str, None] = {}
    for chosen in itertools.product(*kinds.values()):
        given = dict(zip(kinds, chosen, strict=True))
        for key, drawn in parameters.items():
            ends = (given[key],) if key in kinds else drawn.ends()
            problems = [problem for value in ends for problem in _refused(search, key, value, given)]
            problems = problems or list(_refused(search, key, ends[0] if key in kinds else drawn.between(), given))
            found |= dict.fromkeys(problems)
    yield from found


def _refused(search: Search, key: str, value: Value, given: Mapping[str, Value]) -> Iterator[str]:
    try:
        search.with_values({**given, key: value})
    except ConfigError as error:
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        for problem in error.problems:
            text = problem.removeprefix(f"{key}: ")
            if text.startswith("unknown key"):
                yield f"parameters.{key}: {text}"
            else:
                yield f"parameters.{key}: {shown} of {search.space.parameters[key]} is refused: {text}"


def _names_kind(key: str) -> bool:
    return key.rpartition(".")[2] in DISCRIMINATORS
