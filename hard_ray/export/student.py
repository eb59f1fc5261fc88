"""Exports a student: a folder in timm's layout with a model card, and on request ONNX and pt2 files."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hard_ray.data.readers import Picture
from hard_ray.data.sources.build import build_index, cache_of
from hard_ray.data.views import UnreadableImageError, decode
from hard_ray.errors import DataError, HardrayError, RunFolderError
from hard_ray.export.backbone import FACTS, copy_projection, projection_facts
from hard_ray.export.graphs import FILES, GraphCheck, Kind, check_graph, check_packages, write_graph
from hard_ray.export.named_model import find_folder
from hard_ray.export.saved_model import SavedModel, load_model
from hard_ray.export.student_card import student_card
from hard_ray.export.timm_folder import write_timm_files
from hard_ray.files import make_folder, read_json, replacing_folder, write_json, write_text
from hard_ray.runs.record import RunRecord

NOTE = "export.json"
"""The file that marks a folder as an export; it lists the files and the checks."""
CHECKED = 64
"""Number of real images on which a file is compared with the network."""


@dataclass(frozen=True, slots=True)
class Exported:
    """The folder that was written, and the checks of its graphs."""

    folder: Path
    model: SavedModel
    checks: tuple[GraphCheck, ...]


def export(source: Path, to: Path, *, best: bool = False, onnx: bool = False, torch_export: bool = False) -> Exported:
    """Write an export, see `hard_ray.api.export`, and check its graphs."""
    if onnx:
        check_packages()
    source, to = source.expanduser(), to.expanduser().resolve()
    if source.resolve() == to:
        raise RunFolderError(f"{to} cannot be the export of itself; choose another --to")
    check_place(to)
    saved = load_model(find_folder(source, best=best))
    wanted: tuple[tuple[Kind, bool], ...] = (("onnx", onnx), ("pt2", torch_export))
    kinds = [kind for kind, is_wanted in wanted if is_wanted]
    images = real_images(saved) if kinds else None
    make_folder(to.parent)
    try:
        with replacing_folder(to) as temporary:
            _write_model(saved, temporary)
            checks = tuple(_graph(kind, saved, temporary, images) for kind in kinds if images is not None)
            _write_texts(saved, temporary, checks)
    except OSError as error:
        raise RunFolderError(f"{to} cannot be written: {error.strerror or error}") from None
    return Exported(to, saved, checks)


def _write_model(saved: SavedModel, folder: Path) -> None:
    """Write the network in timm's layout and, if there is one beside it, its projection."""
    facts = None if saved.folder is None else projection_facts(saved.folder)
    more = {} if facts is None else {FACTS: facts}
    write_timm_files(saved.network, folder, images=saved.images, names=saved.names, view=saved.eval_view, facts=more)
    if saved.folder is not None:
        copy_projection(saved.folder, folder)


def check_place(to: Path) -> None:
    """Check that an export may be written to this folder; RunFolderError: it holds files that no export wrote."""
    if not to.exists():
        return
    if not to.is_dir():
        raise RunFolderError(f"{to} is a file; give the export a folder of its own with --to")
    strange = sorted({path.name for path in to.iterdir()} - set(_files_of(to)))
    if strange:
        raise RunFolderError(
            f"{to} is there already and holds {strange[0]!r}, which no export wrote; choose another --to, or empty it"
        )


def _files_of(export: Path) -> list[str]:
    try:
        return list(read_json(export / NOTE, {})["files"])
    except (ValueError, KeyError, TypeError):
        return []


def _graph(kind: Kind, saved: SavedModel, folder: Path, images: Tensor) -> GraphCheck:
    path = folder / FILES[kind]
    write_graph(kind, saved.network, path, saved.images)
    source = "images of the run" if saved.record else "parts of photographs"
    return check_graph(kind, path, saved.network, images, source=source, has_classes=saved.has_classes)


def _write_texts(saved: SavedModel, folder: Path, checks: tuple[GraphCheck, ...]) -> None:
    write_text(folder / "README.md", student_card(saved, checks))
    if saved.names is not None:
        write_text(folder / "classes.txt", "".join(f"{name}\n" for name in saved.names))
    files = sorted([*(path.name for path in folder.iterdir()), NOTE])
    facts = {
        "hardray": version("hardray"),
        "of": saved.title if saved.record else Path(saved.title).name,
        "weights": "best" if saved.is_best else "last",
        "identity": saved.network.identity(),
        "checks": [asdict(check) for check in checks],
        "files": files,
    }
    write_json(folder / NOTE, facts)


def real_images(saved: SavedModel) -> Tensor:
    """Evaluation views in [0, 1] of the run's final split, else of photographs; HardrayError: they cannot be read."""
    pictures = _photographs() if saved.record is None else _of_the_run(saved.record)
    views = list(itertools.islice(_views(saved, pictures), CHECKED))
    if not views:
        raise DataError("none of the run's images can be read, so no file can be checked; repair the data")
    return torch.from_numpy(np.stack(views)).float() / 255.0


def _of_the_run(record: RunRecord) -> Iterator[Picture]:
    """Yield the final split in large steps, because sources are often sorted by class."""
    try:
        index = build_index(record.config.data, cache=cache_of(record.config.runtime))
    except HardrayError as error:
        raise DataError(
            f"a file is checked on the run's images, and they are not where the run had them: {error}; put them "
            f"back, or export {record.folder.student}, which is checked on photographs"
        ) from None
    rows = index.rows(index.final_split)
    step = max(1, len(rows) // CHECKED)
    for start in range(step):
        for row in rows[start::step]:
            yield index.reader.read([int(row)])[0]


def _photographs() -> Iterator[Picture]:
    """Yield square crops of the two photographs that come with scikit-learn."""
    from sklearn.datasets import load_sample_images

    side = 100
    for photograph in load_sample_images().images:
        height, width = photograph.shape[:2]
        for top in range(0, height - side, side):
            for left in range(0, width - side, side):
                yield photograph[top : top + side, left : left + side]


def _views(saved: SavedModel, pictures: Iterator[Picture]) -> Iterator[NDArray[np.uint8]]:
    for picture in pictures:
        try:
            yield saved.view(decode(picture, in_chans=saved.images.in_chans))
        except UnreadableImageError:
            continue
