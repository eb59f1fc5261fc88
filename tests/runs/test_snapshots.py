from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hard_ray.config.run import as_control
from hard_ray.errors import RunFolderError
from hard_ray.runs.snapshots import Guesses, Snapshot, View, read_snapshot, spread, why_none, write_snapshot
from tests.support.helpers import Trap, tiny_config


def guesses(seed: int, count: int) -> Guesses:
    random = np.random.default_rng(seed)
    return Guesses(random.integers(0, 3, count), random.random(count).astype(np.float32))


def view(seed: int, count: int, channels: int) -> View:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, channels, 12, 12), dtype=np.uint8)
    return View(pixels, guesses(seed + 1, count), guesses(seed + 2, count))


def snapshot(step: int = 40, *, count: int = 5, channels: int = 1) -> Snapshot:
    random = np.random.default_rng(step)
    return Snapshot(
        step,
        np.arange(count) % 3,
        original=view(0, count, channels),
        augmented=view(step + 10, count, channels),
        samples={"mix.own_share": random.random(64).astype(np.float32), "odd": random.random(64).astype(np.float32)},
        bounds={"mix.own_share": (0.0, 1.0)},
    )


def test_a_snapshot_is_read_as_it_was_written(tmp_path: Path):
    given = snapshot(channels=3)
    write_snapshot(tmp_path / "gallery" / "step-00000040.npz", given)
    found = read_snapshot(tmp_path / "gallery" / "step-00000040.npz")
    assert (found.step, dict(found.bounds)) == (40, {"mix.own_share": (0.0, 1.0)})
    np.testing.assert_array_equal(found.labels, given.labels)
    assert found.samples.keys() == given.samples.keys()
    for name, values in given.samples.items():
        np.testing.assert_array_equal(found.samples[name], values)
    for was, now in ((given.original, found.original), (given.augmented, found.augmented)):
        np.testing.assert_array_equal(now.images, was.images)
        assert now.images.dtype == np.uint8
        for before, after in ((was.teacher, now.teacher), (was.student, now.student)):
            np.testing.assert_array_equal(after.classes, before.classes)
            np.testing.assert_array_equal(after.confidences, before.confidences)
    assert [path.name for path in (tmp_path / "gallery").iterdir()] == ["step-00000040.npz"]


def test_arrays_of_the_documented_names_and_types_are_in_the_file(tmp_path: Path):
    write_snapshot(tmp_path / "x.npz", snapshot())
    with np.load(tmp_path / "x.npz", allow_pickle=False) as stored:
        kinds = {name: stored[name].dtype.name for name in stored.files}
    rows = [(network, row) for network in ("teacher", "student") for row in ("original", "augmented")]
    assert kinds == {
        "step": "int64",
        "labels": "int64",
        "original": "uint8",
        "augmented": "uint8",
        **{f"{network}/{row}/class": "int64" for network, row in rows},
        **{f"{network}/{row}/confidence": "float32" for network, row in rows},
        "samples/mix.own_share": "float32",
        "samples/odd": "float32",
        "bounds/mix.own_share": "float64",
    }


def test_a_file_with_a_pickle_is_refused_and_the_pickle_not_run(tmp_path: Path):
    np.savez(tmp_path / "x.npz", step=1, labels=np.array([Trap(tmp_path / "sprung")], dtype=object))
    with pytest.raises(RunFolderError, match=r"x\.npz is not a readable snapshot"):
        read_snapshot(tmp_path / "x.npz")
    assert not (tmp_path / "sprung").exists()


def test_a_pickle_in_place_of_the_file_is_refused(tmp_path: Path):
    np.save(tmp_path / "x.npy", np.array([Trap(tmp_path / "sprung")], dtype=object), allow_pickle=True)
    (tmp_path / "x.npy").rename(tmp_path / "x.npz")
    with pytest.raises(RunFolderError, match="is not a readable snapshot"):
        read_snapshot(tmp_path / "x.npz")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "without labels"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str):
    path = tmp_path / "step-00000001.npz"
    write_snapshot(path, snapshot())
    content = path.read_bytes()
    if damage == "without labels":
        with np.load(path) as stored:
            np.savez(path, **{name: stored[name] for name in stored.files if name != "labels"})
    else:
        path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"no zip"}[damage])
    with pytest.raises(RunFolderError, match=r"step-00000001\.npz is not a readable snapshot"):
        read_snapshot(path)


def test_guesses_are_the_top_class_and_its_probability():
    found = Guesses.of(np.array([[0.0, 2.0], [1.0, 1.0], [1000.0, 0.0]], dtype=np.float32))
    assert found.classes.tolist() == [1, 0, 0]
    assert found.confidences.tolist() == pytest.approx([1 / (1 + np.exp(-2)), 0.5, 1.0])


def test_moments_are_spread_over_the_training_with_its_ends():
    paths = [Path(str(number)) for number in range(101)]
    assert [int(path.name) for path in spread(paths, 5)] == [0, 25, 50, 75, 100]
    assert spread(paths[:3], 8) == paths[:3]
    assert spread(paths[:1], 8) == paths[:1]
    assert spread([], 8) == []


def test_the_reason_for_no_snapshots_names_the_key():
    assert "tracking.gallery_images is 0" in why_none(tiny_config("tracking.gallery_images=0"))
    assert "augmentor.kind is identity" in why_none(as_control(tiny_config(), "kd"))
    assert "gallery/step-*.npz" in why_none(tiny_config("tracking.gallery_images=2"))


def test_a_snapshot_without_draws_is_one_too(tmp_path: Path):
    write_snapshot(tmp_path / "x.npz", replace(snapshot(), samples={}, bounds={}))
    assert dict(read_snapshot(tmp_path / "x.npz").samples) == {}
