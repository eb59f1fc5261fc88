"""Options that several verbs take, and the configuration and run folder that they describe."""

from __future__ import annotations

import functools
import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .terminal import usage_error

if TYPE_CHECKING:
    from hard_ray.config.base import Config
    from hard_ray.config.run import RunConfig


def path_or_url(text: str) -> Path:
    """A path or a URL of an option, which is checked here: of `s3:///x`, a Path keeps no sign that the bucket lacks."""
    from hard_ray.errors import StorageError
    from hard_ray.storage.address import Remote, is_url

    if is_url(text):
        try:
            Remote.parse(text)
        except StorageError as error:
            raise typer.BadParameter(str(error)) from None
    return Path(text)


Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Dotted overrides, for example optim.lr=0.1.")
]
Files = Annotated[
    list[Path] | None,
    typer.Option("--config", "-c", help="YAML file, or its URL; may be repeated, later ones win.", parser=path_or_url),
]
Preset = Annotated[str | None, typer.Option("--preset", help="A shipped configuration; see `hardray presets`.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", help="Run folder, or a URL such as s3://BUCKET/NAME; by default runs/NAME-TIME.", parser=path_or_url
    ),
]
Teacher = Annotated[str | None, typer.Option("--teacher", help="Short for teacher.model=...")]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="Short for data.path=...; data.kind is image_folder unless set.", parser=path_or_url),
]
Resume = Annotated[
    Path | None, typer.Option("--resume", help="Resume the run in this folder or at this URL.", parser=path_or_url)
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, try the first updates, print the plan, and stop.")
]
Continue = Annotated[
    bool,
    typer.Option(
        "--continue", help="Start the run, or resume it if --output holds it already; for jobs that are retried."
    ),
]


def load(
    files: list[Path] | None,
    preset: str | None,
    overrides: list[str] | None,
    *,
    teacher: str | None = None,
    data: Path | None = None,
    trains_teacher: bool = False,
    trains: bool = True,
) -> RunConfig:
    """Load the configuration that a command line describes; `trains` is that of `load_config`."""
    from hard_ray.config.loader import load_config
    from hard_ray.config.teacher_training import load_teacher_config

    short = shorthands(teacher=teacher, data=data)
    made = load_teacher_config if trains_teacher else functools.partial(load_config, trains=trains)
    defaults = None if data is None else {"data": {"kind": "image_folder"}}
    return made(files or [], preset=preset, overrides=[*short, *(overrides or [])], defaults=defaults)


def listed(text: str | None, option: str) -> list[Any] | None:
    """The values of an option such as `1,2,3`, as YAML reads them; None: the option was not given.

    ConfigError: a value cannot be read.
    """
    from hard_ray.config.safe_yaml import parse_yaml

    return None if text is None else parse_yaml(f"[{text}]", f"the option {option}")


def shorthands(*, teacher: str | None, data: Path | None) -> list[str]:
    """The overrides that `--teacher` and `--data` stand for."""
    short = {"data.path": data, "teacher.model": teacher}
    return [f"{key}={json.dumps(str(value))}" for key, value in short.items() if value is not None]


def given_output(output: Path | None, *, continues: bool) -> Path | None:
    """The value of `--output`, which `--continue` needs: the default is a new folder every time."""
    if continues and output is None:
        raise usage_error("--continue resumes the run in --output; give --output")
    return output


def holds_run(config: RunConfig, folder: Path) -> bool:
    """Whether the folder holds this run, finished or not; one that has another configuration is refused.

    Settings of `runtime` that are null now keep the values that the hardware gave them at the start.
    """
    from hard_ray.config.layers import read_layer
    from hard_ray.config.loader import absolute, validate
    from hard_ray.runs.place import config_of

    path = config_of(folder)
    if path is None:
        return False
    refuse_other(absolute(config), validate([read_layer(path, saved=True)], source=str(path)), folder, "run")
    return True


def refuse_other(now: Config, then: Config, folder: Path, noun: str) -> None:
    """Refuse to go on with what began with other settings; those of `runtime` that are null now may be any."""
    from hard_ray.config.layers import dotted_values

    new, old = (dotted_values(each.model_dump(mode="json", by_alias=True)) for each in (now, then))
    differing = [
        f"{key} is {new.get(key)!r}, the {noun} has {old.get(key)!r}"
        for key in sorted(new.keys() | old.keys())
        if new.get(key) != old.get(key) and not (key.startswith("runtime.") and new.get(key) is None)
    ]
    if differing:
        raise usage_error(
            f"{shown(folder)} holds a {noun} of another configuration: {'; '.join(differing)}; choose another --output"
        )


def shown(output: Path) -> str:
    """A folder, or a URL, as the user gave it; StorageError: the URL cannot be used."""
    from hard_ray.storage.address import Remote, is_url

    return str(Remote.parse(output)) if is_url(output) else str(output)


def planned(output: Path, *, resumes: bool) -> Path:
    """The local folder of a run at `output`, which may be a URL; RunFolderError: the URL holds a run, and must not."""
    from hard_ray.runs.place import planned_folder
    from hard_ray.storage.address import Remote, is_url
    from hard_ray.storage.mirror import working_copy

    if is_url(output) and resumes:
        return working_copy(Remote.parse(output))
    return planned_folder(output)


def job_folder(output: Path) -> Path:
    """The local folder of a job that the same command continues: of a URL, the working copy of this machine."""
    return planned(output, resumes=True)


def default_output(config: RunConfig, preset: str | None) -> Path:
    """A run folder in `runs`, named after the configuration and the time."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{config.experiment.name or preset or config.data.kind}-{stamp}"


def as_given(
    files: list[Path] | None, preset: str | None, overrides: list[str] | None, *, teacher: str | None, data: Path | None
) -> list[str]:
    """The words of a command line that give the same configuration again."""
    named = {"--preset": preset, "--teacher": teacher, "--data": data}
    given = [part for path in files or [] for part in ("-c", shown(path))]
    given += [
        part
        for name, value in named.items()
        if value is not None
        for part in (name, shown(value) if isinstance(value, Path) else value)
    ]
    return [*given, *(overrides or [])]
