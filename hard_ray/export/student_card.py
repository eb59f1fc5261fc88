"""The model card of an export: the training, the measurements, and the limits of both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hard_ray.config.base import Config
from hard_ray.config.data import has_labels
from hard_ray.config.mix import describe_mix
from hard_ray.config.run import RunConfig
from hard_ray.config.validation import Suite
from hard_ray.config.view import describe_augment
from hard_ray.export.backbone import PROJECTION, projection_code, projection_facts, token_text
from hard_ray.export.card_text import input_rows, is_own, parameter_count, timm_code, title
from hard_ray.export.graphs import GraphCheck
from hard_ray.export.saved_model import SavedModel
from hard_ray.export.timm_folder import training_images
from hard_ray.networks.tokens import TokenAnswer
from hard_ray.runs.markdown import markdown_table
from hard_ray.runs.record import RunRecord
from hard_ray.runs.scores import MEASURES, logged_measure

SUITES: dict[Suite, str] = {
    "clean": "unchanged images",
    "shifted": "moved to the four corners, by 1/14 and 1/7 of the side",
    "translate": "moved to a corner, by 3/28 of the side",
    "shifts": "moved to a corner, by 0 to 6/28 of the side",
    "rotations": "turned by up to 45 degrees either way",
    "scales": "enlarged about their centre, by 0.5 to 2",
    "corruptions": "the 15 common corruptions: noise, blur, weather, digital",
    "extra_corruptions": "four more, kept for choosing hyper-parameters",
    "adversarial": "attacked by the gradient of the student's own loss (PGD)",
}


def student_card(saved: SavedModel, checks: Sequence[GraphCheck]) -> str:
    """The model card of a run's student, or of a folder that is from no run."""
    record = saved.record
    sections = [
        title(saved.network.architecture, has_classes=saved.has_classes),
        _what(saved),
        markdown_table(["", ""], [*_network_rows(saved), *(_recipe_rows(record, saved) if record else [])]),
        "## Use\n\n" + _use(saved, checks),
        "## Measured\n\n" + _measured(saved),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in _limits(saved)),
        _ending(saved),
    ]
    return "\n\n".join(sections) + "\n"


def _ending(saved: SavedModel) -> str:
    """The classes or, without classes, the projection if there is one."""
    if saved.has_classes:
        heading = "Classes" if knows_labels(saved) else "Outputs"
        return f"## {heading}\n\n" + _classes(saved.images.classes, _has_names(saved))
    found = None if saved.folder is None else projection_facts(saved.folder)
    if not found:
        return "## Features\n\nThe model answers with its pooled features, without classes."
    dimension = int(found["dimension"])
    tokens = TokenAnswer.from_facts(found["tokens"]) if "tokens" in found else None
    also = "" if tokens is None else f" {token_text(tokens)}"
    return (
        f"## Projection\n\n`{PROJECTION}` projects the features to the embedding of the teacher {found['teacher']}, "
        f"{dimension:,} values, whose direction was learned.{also}\n\n{projection_code(dimension, tokens)}"
    )


def _what(saved: SavedModel) -> str:
    if not saved.has_classes:
        source = (
            "trained on a teacher's embedding with" if saved.record else "exported from a folder in timm's layout by"
        )
        return f"A backbone without classes, {source} hardray."
    kind = f"An image classifier with {len(saved.images.classes)} {'classes' if knows_labels(saved) else 'outputs'}"
    if saved.record is None:
        return f"{kind}, exported by hardray from a folder in timm's layout."
    if not knows_labels(saved):
        return f"{kind}, those of its teacher, trained by knowledge distillation on images without labels with hardray."
    how = "on labels" if saved.record.config.objective.kind == "cross_entropy" else "by knowledge distillation"
    return f"{kind}, trained {how} with hardray."


def knows_labels(saved: SavedModel) -> bool:
    """Whether its outputs are classes of labels; those of a student of images without labels are its teacher's."""
    return saved.record is None or has_labels(saved.record.config.data)


def _has_names(saved: SavedModel) -> bool:
    """Whether its outputs have names; without labels, those of a teacher without names are its numbers."""
    numbers = tuple(map(str, range(len(saved.images.classes))))
    return saved.names is not None and (knows_labels(saved) or saved.names != numbers)


# ----------------------------------------------------------------------- training


def _network_rows(saved: SavedModel) -> list[list[str]]:
    view = saved.eval_view
    is_whole = view.crop_mode == "squash" and view.crop_pct == 1.0
    seen = "the whole picture" if is_whole else f"{view.crop_mode}, {100 * view.crop_pct:g} % of the shorter side"
    return [
        ["parameters", f"{parameter_count(saved.network):,}"],
        *input_rows(saved.network, saved.images),
        ["evaluation view", f"{seen}, resized to {saved.images.img_size} pixels ({view.interpolation})"],
    ]


def _recipe_rows(record: RunRecord, saved: SavedModel) -> list[list[str]]:
    config, steps = record.config, record.outcome.get("steps", {})
    augmentor = f" (and {steps['augmentor']:,} of the augmentor)" if steps.get("augmentor") else ""
    optim = config.optim
    return [
        ["run", record.name],
        ["weights", "the best on the validation split" if saved.is_best else "after the last update"],
        ["data", _data(record)],
        *([] if config.data.augment is None else [["training view", describe_augment(config.data.augment)]]),
        *([] if config.data.mix is None else [["mixed", describe_mix(config.data.mix)]]),
        ["teacher", _teacher(record)],
        ["objective", settings(config.objective)],
        ["augmentor", settings(config.augmentor)],
        ["optimiser", f"{optim.opt}, momentum {optim.momentum:g}, weight decay {optim.weight_decay:g}"],
        ["learning rate", f"{optim.lr:g} at its peak, {optim.sched}"],
        ["batch size", f"{optim.batch_size:,}"],
        ["updates", f"{steps.get('student', record.updates):,}{augmentor}"],
        ["seed", str(config.seed)],
        [
            "versions",
            ", ".join(f"{name} {found}" for name, found in (record.summary or {}).get("versions", {}).items()),
        ],
    ]


def _data(record: RunRecord) -> str:
    """Kind, name and size of the data; of a path the last part alone, because cards are published."""
    data = record.config.data
    path = getattr(data, "path", None)
    name = getattr(data, "name", None) or (path.name if path is not None else None)
    count = training_images([record.folder.student, record.folder.best])
    parts = [f"{data.kind} {name}" if name else data.kind, f"{count:,} training images" if count is not None else None]
    return ", ".join(filter(None, parts))


def _teacher(record: RunRecord) -> str:
    config, teacher = record.config, record.config.teacher
    if config.objective.kind == "cross_entropy":
        return "none: trained on labels alone"
    source, colon, place = teacher.model.partition(":")
    model = f"{source}:{Path(place).name}" if colon and source == "local-dir" else teacher.model
    if teacher.checkpoint is not None:
        model += f" with the weights {teacher.checkpoint.name}"
    elif not teacher.has_weights:
        recipe = teacher.recipe
        model += f", trained on the same data ({recipe.opt}, learning rate {recipe.lr:g}, seed {recipe.seed})"
    identity = record.outcome.get("teacher_identity")
    return f"{model}, identity {identity[:12]}" if identity else model


def settings(block: Config) -> str:
    """A block of a configuration on one line: its kind, and every setting that is not None."""
    return _line(block.model_dump())


def _line(values: dict[str, Any]) -> str:
    rest = {key: value for key, value in values.items() if key != "kind" and value is not None}
    text = ", ".join(f"{key} {_value(value)}" for key, value in rest.items())
    return f"{values['kind']}: {text}" if "kind" in values and text else str(values.get("kind", text))


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return f"({_line(value)})"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return value.name if isinstance(value, Path) else f"{value:g}" if isinstance(value, float) else str(value)


# ---------------------------------------------------------------------------- use


def _use(saved: SavedModel, checks: Sequence[GraphCheck]) -> str:
    contract = saved.network.contract
    texts = [
        timm_code(saved.network),
        f"Its input is images in [0, 1], minus {contract.mean}, divided by {contract.std}.",
    ]
    if is_own(saved.network):
        texts.append("timm's own scripts know the architecture after `import hard_ray.networks`.")
    if knows_labels(saved) and saved.names is not None:
        texts.append(
            "`classes.txt` lists the classes in the order of the outputs, one per line. timm's scripts sort the "
            "folders of a data set by the numbers in their names; `--class-map classes.txt` makes them use this order."
        )
    texts += [_graph(saved, check) for check in checks]
    return "\n\n".join(texts)


def _graph(saved: SavedModel, check: GraphCheck) -> str:
    channels, side = saved.images.in_chans, saved.images.img_size
    answers, same = ("logits", ", and every image got the same class") if saved.has_classes else ("features", "")
    call = (
        'onnxruntime.InferenceSession("model.onnx").run(["logits"], {"images": images})'
        if check.file.endswith(".onnx")
        else 'torch.export.load("model.pt2").module()(images)'
    )
    return (
        f"`{check.file}` takes **images in [0, 1]**, float32, shape (batch, {channels}, {side}, {side}) with any "
        f"batch, and returns {answers}. It normalises its input itself: do not normalise before.\n\n"
        f"```python\n{call}\n```\n\n"
        f"On {check.images} {check.source} its {answers} differed from the network's by at most "
        f"{check.max_difference:.1e}{same}."
    )


# ----------------------------------------------------------------------- measured


def _measured(saved: SavedModel) -> str:
    record = saved.record
    if record is None:
        return "Nothing: the folder is from no run, so its data and training are unknown."
    if saved.is_best:
        measure, best = _best(record)
        said = f": {MEASURES[measure]} {best:.2f} %" if best is not None else ""
        return (
            f"On the validation split alone, on which these weights were chosen{said}. The run's suites were measured "
            "with the weights after its last update, not with these."
        )
    student, teacher = (record.evaluations.get(name, {}) for name in ("student", "teacher"))
    if not student:
        return "Nothing: the run has no evaluation.json."
    columns = {key: text for key, text in COLUMNS.items() if any(key in found for found in student.values())}
    header = ["suite", "", "images", *columns.values(), *(["teacher's top-1", "its ECE"] if teacher else [])]
    body = [
        [
            suite,
            SUITES.get(suite, ""),  # type: ignore[call-overload]
            f"{found['n']:,}",
            *(_percent(found, key) for key in columns),
            *((_percent(teacher.get(suite, {}), key) for key in ("top1", "ece")) if teacher else ()),
        ]
        for suite, found in student.items()
    ]
    explained = " ".join(EXPLAINED[key] for key in columns if key in EXPLAINED)
    return (
        f"On the {record.split} split, in percent; an image counts once for each condition. {explained}\n\n"
        + markdown_table(header, body)
    )


COLUMNS = {"top1": "top-1", "agreement": "agreement", "cosine": "cosine", "ece": "ECE"}
"""What the card says of a suite, in percent, where it was measured."""
EXPLAINED = {
    "agreement": "Agreement is the share of images on which student and teacher predict the same class.",
    "cosine": "Cosine is the mean similarity of the projected features to the teacher's embedding.",
    "ece": "ECE is the expected calibration error over 15 bins.",
}


def _best(record: RunRecord) -> tuple[str, float | None]:
    """What the best weights were chosen by, and its value in percent; None: nothing was measured."""
    points = record.of_kind("val")
    measure = logged_measure(points)
    return measure, max((point[f"val/{measure}"] for point in points if f"val/{measure}" in point), default=None)


def _percent(result: dict[str, Any], key: str) -> str:
    return f"{result[key]:.2f}" if key in result else "-"


# ------------------------------------------------------------------------- limits


def _limits(saved: SavedModel) -> list[str]:
    side = saved.images.img_size
    what = "classes" if knows_labels(saved) else "outputs"
    answers = f"It predicts one of its {what} for every image, even for one that shows none of them."
    limits = [
        answers if saved.has_classes else "It names no class; what its features are worth for a task was not measured.",
        f"It is made for images of {side} x {side} pixels. Images that were resized or cropped in another way were "
        "not measured.",
    ]
    size = saved.network.contract.size
    if size is not None and size != (side, side):
        limits.append(
            f"It was measured on pictures resized to {side} pixels that the network then resized to {size[0]}; timm "
            f"resizes a picture to {size[0]} pixels directly, so its results may differ."
        )
    if saved.record is not None and saved.eval_view.crop_mode == "center":
        limits.append(
            "timm's crop of a picture that is not square may be one pixel beside the crop that hardray measured."
        )
    return limits if saved.record is None else [*limits, *_limits_of_run(saved.record, saved)]


def _limits_of_run(record: RunRecord, saved: SavedModel) -> list[str]:
    measured = {} if saved.is_best else record.evaluations.get("student", {})
    unlabelled = (
        []
        if knows_labels(saved) or not saved.has_classes
        else [
            "No image had a label: how often it is right was not measured, only how often it agrees with its teacher."
        ]
    )
    absent = [f"{name} ({text})" for name, text in SUITES.items() if name not in measured]
    limits = [
        *unlabelled,
        f"It was trained on {_data(record)}. Images from other sources were not measured.",
        f"It is from one training with seed {record.config.seed}; the variation over seeds was not measured.",
        f"Not measured: {'; '.join(absent)}{'; ' if absent else ''}attacks, other data sets, groups of images.",
    ]
    if not saved.is_best and record.split == "val":
        limits.append(
            "The data has no test split: the results are of the validation split, which was also measured in training."
        )
    return [*limits, *_limits_of_suites(record.config, list(measured))]


def _limits_of_suites(config: RunConfig, measured: list[str]) -> list[str]:
    validation = config.validation
    limits = []
    if "corruptions" in measured:
        severities = ", ".join(map(str, validation.corruption_severities))
        limits.append(f"Corruptions were measured at severity {severities} of 1 to 5.")
    if validation.changed_images is not None and set(measured) - {"clean", "corruptions"}:
        limits.append(f"Moved and turned images were measured on {validation.changed_images:,} of the split at most.")
    return limits


def _classes(classes: Sequence[str], named: bool) -> str:
    if not named:
        return f"{len(classes)}, without names: outputs are numbered from 0."
    return "\n".join(f"{number}. {name}" for number, name in enumerate(classes))
