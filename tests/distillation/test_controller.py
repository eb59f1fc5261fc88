import json

import pytest

from hard_ray.config.controller import FixedController, Phase, ThresholdsController
from hard_ray.distillation.controller import Controller, ControllerState, PhaseSignals


def phases(controller: Controller, measurements: list[PhaseSignals | None]) -> str:
    """Phases as letters, S or A for each update from the second one on."""
    letters = []
    for measured in measurements:
        controller.decide(measured)
        letters.append("S" if controller.phase is Phase.STUDENT else "A")
    return "".join(letters)


def flat(disagreement: float, clean: float | None, count: int) -> list[PhaseSignals | None]:
    return [PhaseSignals(disagreement, clean)] * count


def test_the_first_phase_is_the_students():
    assert Controller(FixedController(), learned=True).phase is Phase.STUDENT


def test_a_fixed_rhythm_is_five_to_one():
    controller = Controller(FixedController(student_steps=5, augmentor_steps=1), learned=True)
    assert "S" + phases(controller, [None, *flat(1.0, 1.0, 16)]) == "SSSSSASSSSSASSSSSA"


def test_without_anything_to_learn_every_turn_is_the_students():
    controller = Controller(FixedController(student_steps=1), learned=False)
    assert set(phases(controller, flat(0.0, 1.0, 20))) == {"S"}


def test_absolute_thresholds_switch_where_they_say():
    config = ThresholdsController(
        thresholds="absolute", l_min=1.0, l_max=2.0, ema=0.0, min_student_steps=1, min_augmentor_steps=1
    )
    controller = Controller(config, learned=True)
    values = [1.5, 1.5, 1.5, 0.9, 1.9, 1.9, 1.9, 2.1, 1.5, 1.5]
    measured = [None, *(PhaseSignals(value, 0.1) for value in values)]
    assert phases(controller, measured) == "SSSSAAAASSS"
    assert controller.state.switches == 2


def test_relative_thresholds_compare_with_the_clean_loss_and_with_the_switch():
    config = ThresholdsController(l_min=1.1, l_max=2.0, ema=0.0, min_student_steps=1)
    controller = Controller(config, learned=True)
    assert controller.decide(PhaseSignals(1.2, 1.0)) is None  # 1.2 >= 1.1 x 1.0
    to_augmentor = controller.decide(PhaseSignals(1.0, 1.0))
    assert to_augmentor is not None
    assert to_augmentor.to is Phase.AUGMENTOR
    assert to_augmentor.reason == "disagreement 1 < l_min 1.1"
    assert controller.decide(PhaseSignals(1.9, None)) is None  # 1.9 <= 2 x 1.0
    to_student = controller.decide(PhaseSignals(2.1, None))
    assert to_student is not None
    assert to_student.reason == "disagreement 2.1 > l_max 2"


def test_guards_end_a_phase_that_is_stuck_and_hold_one_that_is_young():
    config = ThresholdsController(
        thresholds="absolute", l_min=1.0, l_max=2.0, min_student_steps=3, max_student_steps=4, max_augmentor_steps=2
    )
    stuck = Controller(config, learned=True)
    assert "S" + phases(stuck, [None, *flat(1.5, 1.0, 10)]) == "SSSSAASSSSAA"
    young = Controller(config, learned=True)
    assert "S" + phases(young, [None, *flat(0.1, 1.0, 3)]) == "SSSAA"


def test_the_average_is_exponential():
    controller = Controller(ThresholdsController(ema=0.9), learned=True)
    for value in (1.0, 2.0, 3.0):
        controller.decide(PhaseSignals(value, 10 * value))
    assert controller.state.disagreement == pytest.approx(0.9 * (0.9 * 1 + 0.1 * 2) + 0.1 * 3)
    assert controller.state.clean_loss == pytest.approx(10 * (0.9 * (0.9 * 1 + 0.1 * 2) + 0.1 * 3))


def test_an_augmentor_phase_measures_no_clean_loss_and_keeps_the_last():
    controller = Controller(ThresholdsController(ema=0.5), learned=True)
    controller.decide(PhaseSignals(1.0, 4.0))
    controller.decide(PhaseSignals(1.0, None))
    assert controller.state.clean_loss == 4.0


def test_a_switch_names_the_first_update_of_the_new_phase():
    controller = Controller(FixedController(student_steps=2, augmentor_steps=1), learned=True)
    switches = [controller.decide(None) for _ in range(6)]
    assert [(switch.step, str(switch.to)) for switch in switches if switch] == [
        (2, "augmentor"),
        (3, "student"),
        (5, "augmentor"),
        (6, "student"),
    ]


def test_the_state_survives_json_and_continues_alike():
    config = ThresholdsController(min_student_steps=2, max_student_steps=6, max_augmentor_steps=3)
    measurements = [PhaseSignals(1 + 0.3 * (i % 5), 1.0) for i in range(40)]
    straight = Controller(config, learned=True)
    expected = phases(straight, list(measurements))
    first = Controller(config, learned=True)
    start = phases(first, list(measurements[:17]))
    state = ControllerState.from_json(json.loads(json.dumps(first.state.to_json())))
    assert state == first.state
    resumed = Controller(config, learned=True, state=state)
    assert start + phases(resumed, list(measurements[17:])) == expected
    assert "A" in expected


CONTROLLERS = (FixedController(student_steps=3), ThresholdsController(min_student_steps=2, max_student_steps=4))


@pytest.mark.parametrize("config", CONTROLLERS, ids=lambda config: config.policy)
def test_the_augmentor_learns_from_the_end_of_the_warm_up_on(config: FixedController | ThresholdsController):
    measurements = [None, *flat(0.1, 1.0, 60)]
    without = "S" + phases(Controller(config, learned=True), measurements)
    warmed = "S" + phases(Controller(config, learned=True, warmup=20), measurements)
    assert "A" in without[:5]
    assert warmed[:21] == "S" * 20 + "A"
    assert warmed[20:] == without[without.index("A") :][: len(warmed) - 20]  # one phase after the other as ever


def test_a_run_that_is_resumed_in_the_warm_up_ends_it_at_the_same_update():
    straight = phases(Controller(FixedController(), learned=True, warmup=20), flat(1.0, 1.0, 40))
    first = Controller(FixedController(), learned=True, warmup=20)
    start = phases(first, flat(1.0, 1.0, 11))
    state = ControllerState.from_json(json.loads(json.dumps(first.state.to_json())))
    resumed = Controller(FixedController(), learned=True, warmup=20, state=state)
    assert start + phases(resumed, flat(1.0, 1.0, 29)) == straight
    assert straight.index("A") == 19


def test_only_a_policy_has_a_warm_up_by_default_of_15_percent_and_at_most_300_updates():
    for config in (FixedController(), ThresholdsController()):
        assert config.warmup(2_000, has_prior=False) == 0
        assert [config.warmup(total, has_prior=True) for total in (20, 1_000, 2_000, 100_000)] == [3, 150, 300, 300]
    assert FixedController(warmup_steps=7).warmup(2_000, has_prior=False) == 7
    assert FixedController(warmup_steps=0).warmup(2_000, has_prior=True) == 0
