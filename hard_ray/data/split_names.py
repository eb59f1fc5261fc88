"""Names of splits: what the name of a file, a folder or a split says, and the choice among the names that are there."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hard_ray.config.data import HuggingFaceData, ImageFolderData, ParquetData, WebDatasetData
from hard_ray.data.index import SplitName
from hard_ray.data.layout import some
from hard_ray.errors import DataError

FilesConfig = ImageFolderData | ParquetData | WebDatasetData | HuggingFaceData

WORDS: dict[str, SplitName] = {
    **dict.fromkeys(("train", "training", "trainset", "trainval", "trn"), "train"),
    **dict.fromkeys(
        ("val", "valid", "validation", "validate", "valset", "validset", "dev", "devel", "eval", "evaluation"), "val"
    ),
    **dict.fromkeys(("test", "testing", "testset", "tst", "holdout", "heldout"), "test"),
}
"""The split that a word in a name says."""

EXTRA_WORDS = frozenset(
    [
        *("unlabeled", "unlabelled", "unlabel", "nolabel", "extra", "unsup", "unsupervised", "additional"),
        *("distractor", "distractors", "background"),
    ]
)
"""Words of splits that are none of the three: they are left out."""

NEUTRAL_WORDS = frozenset(
    [
        *("part", "shard", "data", "dataset", "images", "image", "img", "imgs", "pictures", "samples"),
        *("split", "splits", "set", "batch", "chunk", "file", "of", "rank", "worker", "wds", "webdataset"),
        *("parquet", "tar", "default", "full"),
    ]
)
"""Words that tell no split from another of the same kind."""


def words_of(name: str) -> list[str]:
    """The words of a name in lower case, with numbers cut off: `trainImages_2017-x` is train, images, x."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    name = re.sub(r"(?i)(train|held|hold)[-_+ ](val|out)", r"\1\2", name)
    return [word for word in re.split(r"[\W\d_]+", name.lower()) if word]


def kinds_in(name: str) -> set[SplitName]:
    """The splits that the words of a name say."""
    return {WORDS[word] for word in words_of(name) if word in WORDS}


def whole_kind(name: str) -> SplitName | None:
    """The split that a whole name says, as `train` and `val_images2017` do and `train_station` does not."""
    rest = {word for word in words_of(name) if word not in NEUTRAL_WORDS}
    return WORDS.get(rest.pop()) if len(rest) == 1 else None


def cleaned(name: str) -> str:
    """A shard's or folder's name without its numbering: `imagenet1k-train` of `imagenet1k-train-0003-of-0040`.

    Where a word says the split, numbers, hashes and neutral words beside it are dropped; other names stay as they are.
    """
    parts = re.findall(r"[-_.= ]*[^-_.= ]+", name)
    said = next((place for place, part in enumerate(parts) if kinds_in(part)), None)
    if said is None:
        return name
    before = [part for part in parts[:said] if not _is_neutral(part) and not _plain(part).isdigit()]
    after = [part for part in parts[said + 1 :] if not _is_neutral(part) and not _is_number(_plain(part))]
    return "".join([*before, re.sub(r"\d+$", "", parts[said]), *after]).lstrip("-_.= ")


def _plain(part: str) -> str:
    return part.lstrip("-_.= ")


def _is_neutral(part: str) -> bool:
    return _plain(part).lower() in NEUTRAL_WORDS


def _is_number(part: str) -> bool:
    """Whether a part of a name numbers a shard: digits, or a hash."""
    return any(letter.isdigit() for letter in part) or bool(re.fullmatch(r"[0-9a-f]{6,}", part))


def refuse_splits_in(names: Iterable[str], *, where: str) -> None:
    """Raise DataError if the images of a pool all have names that say splits, and not the same: it would mix them."""
    refuse_mixed_splits(splits_said_by_all(names), where=where)


def splits_said_by_all(names: Iterable[str]) -> set[SplitName]:
    """The splits that names say; none if one of them says no split."""
    kinds: set[SplitName] = set()
    for name in names:
        said = set().union(*(kinds_in(part) for part in name.split("/")))
        if not said:
            return set()
        kinds |= said
    return kinds


def refuse_mixed_splits(kinds: Collection[SplitName], *, where: str) -> None:
    """Raise DataError if the names of all images of a pool say splits, and not the same: these are the `kinds`."""
    if len(kinds) > 1:
        raise DataError(
            f"{where}: no folder or file of the data says a split, but every image's name says "
            f"{' or '.join(sorted(kinds))}, and a split by chance would mix them; move the images to folders or files "
            "of these names, or set data.train_split=false to mix them"
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """The names that are used, and those that are not."""

    splits: dict[SplitName, str] = field(default_factory=dict)
    """Train first; empty if the source is one pool."""
    unused: dict[str, str] = field(default_factory=dict)
    """Reason by name."""
    notes: tuple[str, ...] = ()


def choose_splits(
    config: FilesConfig, kinds: Mapping[str, SplitName | None], *, where: str, missing: str = ""
) -> Choice:
    """Choose the three splits among names, given the kind that each name says.

    The split that the configuration names is the one of that name; `null` takes the only one of its kind, and `false`
    takes none. Names that say no split are left out if all three splits are configured, or they say so themselves.

    Raises DataError if a split cannot be told, or a configured one is not there.
    """
    if config.train_split is False:
        return Choice(notes=("data.train_split is false: all images are one pool",))
    train = _training(config, kinds, where)
    if train is None:
        return Choice()
    splits: dict[SplitName, str] = {"train": train}
    for split in ("val", "test"):
        name = _held_out(config, kinds, split, taken=set(splits.values()), where=where)
        if name is not None:
            splits[split] = name
    _refuse_overlap(config, splits, where)
    notes = tuple(
        f"{name!r} is taken for the {split} split; set data.{split}_split to choose another"
        for split, name in splits.items()
        if set(words_of(name)) & {"eval", "evaluation", "holdout", "heldout", "trainval"}
    )
    return Choice(splits, _others(config, kinds, splits, where), notes)


def _is_complete(config: FilesConfig) -> bool:
    """Whether all three splits are configured, so that nothing is left to tell."""
    return config.val_split is not None and config.test_split is not None


def _is_more(name: str) -> bool:
    """Whether a name of training images says that they come on top of others: `trainval`, `train_extra`."""
    return "trainval" in words_of(name) or bool(EXTRA_WORDS & set(words_of(name)))


def _training(config: FilesConfig, kinds: Mapping[str, SplitName | None], where: str) -> str | None:
    """The name of the training split; None if the names are no splits."""
    known = sorted(name for name, kind in kinds.items() if kind == "train" and not _is_more(name))
    if config.train_split in kinds and (config.train_split != "train" or len(known) < 2 or _is_complete(config)):
        return str(config.train_split)
    names = some(sorted(kinds))
    if config.train_split != "train":
        raise DataError(f"{where}: data.train_split {config.train_split!r} is not among {names}; set it to one of them")
    known = known or sorted(name for name, kind in kinds.items() if kind == "train")
    if len(known) > 1:
        raise DataError(
            f"{where}: {len(known)} names say a training split, {some(known)}; set data.train_split to one of them "
            "(and for 'train' itself data.val_split and data.test_split too), or data.path to the folder of one"
        )
    if known:
        return known[0]
    configured = [f"data.{split}_split {getattr(config, f'{split}_split')!r}" for split in ("val", "test")]
    configured = [text for text in configured if not text.endswith((" None", " False"))]
    if any(kinds.values()) or configured:
        raise DataError(
            f"{where}: data.train_split 'train' is not among {names}, and "
            f"{' and '.join(configured) or 'others say a held-out split'}; set it to one of them, or to false if they "
            "are no splits"
        )
    return None


def _held_out(
    config: FilesConfig, kinds: Mapping[str, SplitName | None], split: SplitName, *, taken: set[str], where: str
) -> str | None:
    """The name of the validation or test split; None if there is none, or none is wanted."""
    wanted: str | bool | None = getattr(config, f"{split}_split")
    if wanted is False:
        return None
    if wanted is not None:
        if wanted not in kinds:
            raise DataError(
                f"{where}: data.{split}_split {wanted!r} is not among {some(sorted(kinds))}; set it to one of them, or "
                "to false for none"
            )
        if wanted in taken:
            raise DataError(f"{where}: {wanted!r} is named for two splits; set data.{split}_split to another, or false")
        return str(wanted)
    named = {config.val_split, config.test_split}
    known = sorted(name for name, kind in kinds.items() if kind == split and name not in taken | named)
    if len(known) > 1:
        raise DataError(
            f"{where}: {len(known)} names say a {split} split, {some(known)}; set data.{split}_split to one of them, "
            "or to false for none"
        )
    return known[0] if known else None


def _refuse_overlap(config: FilesConfig, splits: Mapping[SplitName, str], where: str) -> None:
    """Refuse a `trainval` beside a validation split that nobody chose: it holds the validation images."""
    if "trainval" in words_of(splits["train"]) and "val" in splits and config.val_split is None:
        raise DataError(
            f"{where}: {splits['train']!r} usually holds the images of {splits['val']!r} too; set data.val_split to "
            f"{splits['val']!r} if it does not, or to false to split validation off from {splits['train']!r}"
        )


def _others(
    config: FilesConfig, kinds: Mapping[str, SplitName | None], splits: Mapping[SplitName, str], where: str
) -> dict[str, str]:
    """The reason for each name that is not used; raises DataError for a name that says nothing."""
    unused: dict[str, str] = {}
    for name, kind in kinds.items():
        if name in splits.values():
            continue
        if kind is not None and getattr(config, f"{kind}_split") is False:
            unused[name] = f"the split {name!r}: data.{kind}_split is false"
        elif kind is not None:
            unused[name] = f"the split {name!r}: data.{kind}_split is {splits.get(kind, 'another')!r}"
        elif _is_complete(config) or EXTRA_WORDS & set(words_of(name)):
            unused[name] = f"the split {name!r}: it is neither train, val nor test"
    unknown = sorted(set(kinds) - set(splits.values()) - set(unused))
    if unknown:
        chosen = " ".join(f"data.{split}_split={splits.get(split, 'false')}" for split in ("train", "val", "test"))
        raise DataError(
            f"{where}: beside {some(sorted(splits.values()))} there is {some(unknown)}, which says no split; "
            f"set all three splits to leave it out ({chosen}), data.train_split=false if these are no splits, or move "
            "it away"
        )
    return unused


def disagreement(where: str, examples: Sequence[str]) -> DataError:
    """The error for names that say more than one split."""
    return DataError(
        f"{where}: the split cannot be told, as these names say more than one: {some(examples)}; rename them, set "
        "data.path to a folder below, or name all three (data.train_split=NAME data.val_split=NAME "
        "data.test_split=false)"
    )
