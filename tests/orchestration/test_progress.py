"""Progress lines of long jobs."""

import time

import pytest

from hard_ray.orchestration.progress import ProgressLine


def test_speed_counts_from_the_first_result_and_a_line_is_due_after_five_seconds(monkeypatch: pytest.MonkeyPatch):
    clock, said = [100.0], []
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    line = ProgressLine(said.append)
    seen = []
    for seconds, images in ((4.0, 50), (0.5, 10), (1.5, 30)):
        clock[0] += seconds
        line.add(images)
        seen.append((line.images_per_s, line.is_due))
    assert seen == [(None, False), (None, False), (20.0, True)]
    line.say("half of it")
    assert (said, line.is_due, line.done) == (["half of it"], False, 90)


def test_two_results_that_come_together_have_no_speed(monkeypatch: pytest.MonkeyPatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    line = ProgressLine(print)
    for seconds in (4.0, 0.01):
        clock[0] += seconds
        line.add(500)
    assert line.images_per_s is None
