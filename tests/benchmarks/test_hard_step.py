"""HARD's step against its random control."""

import pytest

from benchmarks.hard_passes import flops
from benchmarks.hard_step import CONTROLS, STUDENT_STEPS, Step


def test_the_random_control_of_affine_maps_does_as_much_for_the_student_and_nothing_else():
    learned, control = (Step(config, batch_size=8) for config in CONTROLS["affine"])
    assert flops(learned.student_updates) == pytest.approx(flops(control.student_updates), rel=0.03)
    assert control.updater.learner.augmentor_optimizer is None


def test_an_augmentor_update_on_a_quarter_of_the_batch_saves_three_quarters_of_both_gradients():
    whole, part = (Step(part=part, batch_size=8) for part in (1.0, 0.25))
    student = flops(whole.student_updates) / STUDENT_STEPS
    phases = [flops(step.round) - flops(step.student_updates) for step in (whole, part)]
    clean = phases[0] - (phases[0] - phases[1]) / 0.75  # the teacher's answers on clean images stay
    assert 0.2 * student < clean < 0.35 * student  # of two answers and a student update on two views
