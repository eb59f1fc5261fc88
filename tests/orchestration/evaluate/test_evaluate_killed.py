"""`hardray evaluate` killed with SIGKILL between two suites, and started again."""

from __future__ import annotations

from pathlib import Path

import pytest

from hard_ray.files import read_json
from tests.orchestration.commands import kill_everything, start, succeed, wait_until, write_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SUITES = ("--suite", "clean", "--suite", "shifts", "--suite", "corruptions")


def test_a_killed_evaluation_does_not_repeat_what_it_finished(tmp_path: Path):
    write_config(tmp_path, "tracking.enabled=false")
    succeed("distill", "-c", "config.yaml", "--output", "run", cwd=tmp_path)
    succeed("evaluate", "run", *SUITES, "--output", "straight", cwd=tmp_path)
    process = start("evaluate", "run", *SUITES, "--output", "killed", cwd=tmp_path)
    file = tmp_path / "killed" / "evaluation.json"
    wait_until(lambda: "shifts" in read_json(file, {}).get("suites", {}), "shifts was not measured", process)
    kill_everything(process)
    before = read_json(tmp_path / "killed" / "evaluation.json")
    assert list(before["suites"]) == ["clean", "shifts"]
    out = succeed("evaluate", "run", *SUITES, "--output", "killed", cwd=tmp_path)
    after, straight = (read_json(tmp_path / name / "evaluation.json") for name in ("killed", "straight"))
    for name in ("clean", "shifts"):
        assert f"{name}: measured before, with the same settings" in " ".join(out.split())
        assert after["measured"][name] == before["measured"][name]  # seconds and all
    assert "corruptions: measured before" not in out
    assert after["suites"] == straight["suites"]
    assert after["teacher"] == straight["teacher"]
