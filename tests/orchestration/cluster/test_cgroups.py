"""Limits of control groups, from files as kernels, containers and batch systems write them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hard_ray.orchestration.cluster import hardware
from hard_ray.orchestration.cluster.cgroups import Limits, limits

V2 = "31 24 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup rw,nsdelegate\n"
V1 = (
    "30 23 0:26 {top} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "31 23 0:27 {top} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "32 23 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)
GIB = 2**30


def machine(root: Path, groups: str, mounts: str, files: dict[str, str]) -> Path:
    """A root with the files of /proc/self and of the mounted groups."""
    for name, text in {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_container_of_version_2_sees_its_own_group_as_the_root(tmp_path: Path):
    files = {"sys/fs/cgroup/cpu.max": "150000 100000\n", "sys/fs/cgroup/memory.max": f"{3 * GIB}\n"}
    assert limits(machine(tmp_path, "0::/\n", V2, files)) == Limits(1.5, 3 * GIB)


def test_the_smallest_limit_of_the_groups_above_holds(tmp_path: Path):
    files = {
        "sys/fs/cgroup/a/b/c/cpu.max": "max 100000\n",
        "sys/fs/cgroup/a/b/c/memory.max": f"{8 * GIB}\n",
        "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n",
        "sys/fs/cgroup/a/cpu.max": "250000 50000\n",
        "sys/fs/cgroup/a/memory.max": f"{6 * GIB}\n",
        "sys/fs/cgroup/a/b/memory.max": "max\n",
    }
    assert limits(machine(tmp_path, "0::/a/b/c\n", V2, files)) == Limits(4.0, 6 * GIB)


def test_max_is_no_limit(tmp_path: Path):
    files = {"sys/fs/cgroup/cpu.max": "max 100000\n", "sys/fs/cgroup/memory.max": "max\n"}
    assert limits(machine(tmp_path, "0::/\n", V2, files)) == Limits(None, None)


def test_version_1_has_a_tree_for_each_controller(tmp_path: Path):
    files = {
        "sys/fs/cgroup/cpu,cpuacct/slurm/job_7/cpu.cfs_quota_us": "300000\n",
        "sys/fs/cgroup/cpu,cpuacct/slurm/job_7/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/memory/slurm/job_7/memory.limit_in_bytes": f"{5 * GIB}\n",
        "sys/fs/cgroup/memory/slurm/memory.limit_in_bytes": "9223372036854771712\n",
    }
    groups = "5:memory:/slurm/job_7/step_0\n4:cpu,cpuacct:/slurm/job_7/step_0\n0::/\n"
    assert limits(machine(tmp_path, groups, V1.format(top="/"), files)) == Limits(3.0, 5 * GIB)


def test_a_container_of_version_1_mounts_its_group_under_the_path_that_the_host_sees(tmp_path: Path):
    files = {
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GIB}\n",
    }
    groups = "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n"
    assert limits(machine(tmp_path, groups, V1.format(top="/docker/abc"), files)) == Limits(0.5, 2 * GIB)
    elsewhere = machine(tmp_path / "other", groups, V1.format(top="/kubepods/x"), files)
    assert limits(elsewhere) == Limits(0.5, 2 * GIB)


def test_version_1_without_limits_has_a_huge_number_and_minus_one(tmp_path: Path):
    files = {
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    groups = "5:memory:/\n4:cpu,cpuacct:/\n"
    assert limits(machine(tmp_path, groups, V1.format(top="/"), files)) == Limits(None, None)


def test_a_machine_without_groups_has_no_limits(tmp_path: Path):
    assert limits(tmp_path) == Limits(None, None)
    assert limits(machine(tmp_path, "0::/\nno group\n".replace("no group\n", ""), "", {})) == Limits(None, None)


@pytest.mark.parametrize(("quota", "cores"), [(None, 8), (1.5, 1), (0.5, 1), (4.0, 4), (3.9, 3), (64.0, 8)])
def test_threads_follow_the_quota(monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int):
    monkeypatch.setattr(hardware, "installed_cores", lambda: 8)
    monkeypatch.setattr(hardware, "limits", lambda: Limits(quota, None))
    assert hardware.usable_cores() == cores


def test_memory_is_the_smaller_of_the_machines_and_the_groups(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hardware, "installed_memory_gib", lambda: 16.0)
    for limit, usable in ((None, 16.0), (3 * GIB, 3.0), (64 * GIB, 16.0)):
        monkeypatch.setattr(hardware, "limits", lambda limit=limit: Limits(None, limit))
        assert hardware.usable_memory_gib() == usable


@pytest.mark.skipif(os.name != "posix", reason="control groups are of Linux")
def test_the_limits_of_a_group_that_this_process_joins():
    """The kernel's own files, where groups can be made."""
    place = Path("/sys/fs/cgroup/cpu")
    group = place / f"hardray-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip(f"no group can be made in {place}")
    try:
        (group / "cpu.cfs_period_us").write_text("100000")
        (group / "cpu.cfs_quota_us").write_text("150000")
        (group / "tasks").write_text(str(os.getpid()))
        assert limits().cores == 1.5
        assert hardware.usable_cores() == 1
    except OSError as error:
        pytest.skip(f"a group cannot be joined here: {error}")
    finally:
        (place / "tasks").write_text(str(os.getpid()))
        group.rmdir()
