"""A model that a user names: a run, a folder in timm's layout such as an export, or a timm name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from timm.models import get_pretrained_cfg

from hard_ray.errors import ModelError, RunFolderError, command_line
from hard_ray.networks.network import check_known
from hard_ray.runs.folder import RunFolder


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model that was found, but not loaded."""

    name: str
    """As the user wrote it."""
    source: str
    """The name for `timm.create_model`."""
    run: RunFolder | None = None
    """The run that trained it; None: it is from no run."""
    is_best: bool = False
    """Whether it is the run's best on the validation split, instead of its last."""


def find_model(name: str, *, best: bool = False) -> NamedModel:
    """Find the model that a user names.

    Args:
        name: a run folder, a folder in timm's layout, or a timm name.
        best: of a run the best student on the validation split, instead of the last.

    Raises:
        HardrayError: there is no such model, or it has no weights.
    """
    path = Path(name).expanduser()
    if path.exists():
        return find_folder(path, best=best)
    if ":" not in name:
        if "/" in name or name.startswith((".", "~")):
            raise ModelError(
                f"{name}: there is no such folder; want a run folder, a folder in timm's layout, or a timm model name"
            )
        check_known(name, "model")
        known = get_pretrained_cfg(name)
        if known is None or not known.has_weights:
            raise ModelError(f"{name}: timm has no weights for it; name a run, or a folder that holds some")
    _refuse_best(name, best)
    return NamedModel(name, name)


def find_folder(path: Path, *, best: bool = False) -> NamedModel:
    """Find the student of a run, or the model in timm's layout; RunFolderError: the folder holds neither."""
    if not path.exists():
        raise RunFolderError(f"{path}: there is no such folder; want a run folder, or a folder in timm's layout")
    run = RunFolder(path.expanduser().resolve())
    if run.config.is_file():
        return _student(str(path), run, best=best)
    if not (path / "config.json").is_file():
        raise RunFolderError(
            f"{path} is no run, which has a config.yaml, and no folder in timm's layout, which has a config.json; "
            "name the folder that `hardray distill` wrote, or its student/"
        )
    _refuse_best(str(path), best)
    return NamedModel(str(path), f"local-dir:{run.path}")


def no_classes(what: str, source: str) -> ModelError:
    """The error for a backbone, timm's `source`, whose classes a command wants."""
    remedy = command_line("fit-head", "--kind", "probe", "--tower", source)
    return ModelError(
        f"{what} answers with features, not with classes; want a classifier; give it a head: `{remedy}` with your data"
    )


def _student(name: str, run: RunFolder, *, best: bool) -> NamedModel:
    folder = run.best if best else run.student
    if (folder / "config.json").is_file():
        return NamedModel(name, f"local-dir:{folder}", run, best)
    if best:
        raise RunFolderError(
            f"{run.path} has no best/: no student was measured on the validation split yet; "
            "wait for the first evaluation"
        )
    also = ", or take the best so far with --best" if (run.best / "config.json").is_file() else ""
    raise RunFolderError(
        f"{run.path} has no finished student; continue the run with "
        f"`{command_line('distill', '--resume', run.path)}`{also}"
    )


def _refuse_best(name: str, best: bool) -> None:
    if best:
        raise RunFolderError(f"{name} is no run, so --best has nothing to choose from; name a run, or leave out --best")
