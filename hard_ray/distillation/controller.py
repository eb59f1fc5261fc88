"""The controller: decides which phase each update belongs to, the student's or the augmentor's.

The rule is pure and holds no tensors: ranks that pass the same numbers take the same decision. The phase of update
n+1 is decided from the signals up to update n-1, so that no rank waits for update n.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, assert_never

from hard_ray.config.controller import ControllerConfig, FixedController, Phase, ThresholdsController


@dataclass(frozen=True, slots=True)
class PhaseSignals:
    """Losses of one update that the controller follows, as means over all ranks; None if the update had none."""

    disagreement: float | None
    """L_st on augmented images."""
    clean_loss: float | None
    """KD loss on clean images."""


@dataclass(frozen=True, slots=True)
class Switch:
    """One change of phase."""

    step: int
    """The first update of the new phase."""
    to: Phase
    reason: str
    disagreement: float | None
    """m, the moving average, at the switch."""


@dataclass(frozen=True, slots=True)
class ControllerState:
    """Everything that a resume needs of the controller."""

    phase: Phase = Phase.STUDENT
    """Phase of the last update that was decided on."""
    decided: int = 1
    """Number of updates whose phase is decided: two more than updates whose signals are known."""
    steps_in_phase: int = 1
    disagreement: float | None = None
    """Moving average m of L_st."""
    clean_loss: float | None = None
    """Moving average of the KD loss on clean images."""
    at_switch: float | None = None
    """m when the last augmentor phase began."""
    switches: int = 0
    """Number of changes of phase."""

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers and texts."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ControllerState:
        """The inverse of `to_json`."""
        return cls(**{**values, "phase": Phase(values["phase"])})


class Controller:
    """Decides the phase of each update from the signals of earlier ones."""

    def __init__(
        self, config: ControllerConfig, *, learned: bool, warmup: int = 0, state: ControllerState | None = None
    ) -> None:
        """`learned` says whether the augmentor has anything to learn; if not, every update is the student's.

        `warmup` is the least number of student updates before the first augmentor phase.
        """
        self.config = config
        self.learned = learned
        self.warmup = warmup
        self.state = state or ControllerState()

    @property
    def phase(self) -> Phase:
        """Phase of the last update that was decided on."""
        return self.state.phase

    def decide(self, signals: PhaseSignals | None) -> Switch | None:
        """Decide the next phase; `signals` are of the update before the last decided one (None at the start)."""
        # 1. m <- decay m + (1 - decay) L_st, and likewise the clean loss.
        state = self._averaged(signals) if signals else self.state
        # 2. Compare m with l_min or l_max, within the shortest and longest phase. Without an augmentor that learns,
        #    every update is the student's.
        reason = self._reason_to_switch(state) if self.learned else None
        # 3. Count one more update of this phase, or begin the other one.
        if reason is None:
            self.state = replace(state, decided=state.decided + 1, steps_in_phase=state.steps_in_phase + 1)
            return None
        self.state, switch = self._switch(state, reason)
        return switch

    def _averaged(self, signals: PhaseSignals) -> ControllerState:
        decay = self.config.ema if isinstance(self.config, ThresholdsController) else 0.9
        return replace(
            self.state,
            disagreement=_ema(self.state.disagreement, signals.disagreement, decay),
            clean_loss=_ema(self.state.clean_loss, signals.clean_loss, decay),
        )

    def _reason_to_switch(self, state: ControllerState) -> str | None:
        if state.switches == 0 and state.steps_in_phase < self.warmup:
            return None
        match self.config:
            case FixedController() as fixed:
                length = fixed.student_steps if state.phase is Phase.STUDENT else fixed.augmentor_steps
                return f"{length} {state.phase} updates" if state.steps_in_phase >= length else None
            case ThresholdsController():
                return self._threshold_reason(self.config, state)
            case _:
                assert_never(self.config)

    @staticmethod
    def _threshold_reason(config: ThresholdsController, state: ControllerState) -> str | None:
        student = state.phase is Phase.STUDENT
        shortest = config.min_student_steps if student else config.min_augmentor_steps
        longest = config.max_student_steps if student else config.max_augmentor_steps
        # The bounds on a phase's length come before m: neither a noisy m nor a stuck one decides alone.
        if state.steps_in_phase < shortest:
            return None
        if state.steps_in_phase >= longest:
            return f"max_{state.phase}_steps {longest}"
        # Student -> augmentor when m < l_min; augmentor -> student when m > l_max.
        bound = (_lower if student else _upper)(config, state)
        m = state.disagreement
        if m is None or bound is None:
            return None
        if student:
            return f"disagreement {m:.4g} < l_min {bound:.4g}" if m < bound else None
        return f"disagreement {m:.4g} > l_max {bound:.4g}" if m > bound else None

    @staticmethod
    def _switch(state: ControllerState, reason: str) -> tuple[ControllerState, Switch]:
        to = Phase.AUGMENTOR if state.phase is Phase.STUDENT else Phase.STUDENT
        switched = replace(
            state,
            phase=to,
            decided=state.decided + 1,
            steps_in_phase=1,
            at_switch=state.disagreement if to is Phase.AUGMENTOR else state.at_switch,
            switches=state.switches + 1,
        )
        return switched, Switch(step=state.decided, to=to, reason=reason, disagreement=state.disagreement)


def _lower(config: ThresholdsController, state: ControllerState) -> float | None:
    """l_min: absolute, or relative to the moving average of the KD loss on clean images."""
    if config.thresholds == "absolute":
        return config.l_min
    return None if state.clean_loss is None else config.l_min * state.clean_loss


def _upper(config: ThresholdsController, state: ControllerState) -> float | None:
    """l_max: absolute, or relative to m at the switch to the augmentor."""
    if config.thresholds == "absolute":
        return config.l_max
    return None if state.at_switch is None else config.l_max * state.at_switch


def _ema(average: float | None, value: float | None, decay: float) -> float | None:
    if value is None:
        return average
    return value if average is None else decay * average + (1.0 - decay) * value
