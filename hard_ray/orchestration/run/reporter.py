"""Reporters of a run: the protocol, and one that prints nothing."""

from __future__ import annotations

from typing import Protocol

from typing_extensions import override

from hard_ray.orchestration.run.plan import RunPlan


class Reporter(Protocol):
    """Callbacks for the events of a run."""

    def say(self, text: str) -> None:
        """Show a sentence to the user."""

    def watch(self, plans: tuple[RunPlan, ...]) -> None:
        """Show the state of the trainings' folders; called about twice a second."""

    def close(self) -> None:
        """Finish: the trainings are over."""


class Silent(Reporter):
    """Reporter that prints nothing."""

    @override
    def say(self, text: str) -> None:
        pass

    @override
    def watch(self, plans: tuple[RunPlan, ...]) -> None:
        pass

    @override
    def close(self) -> None:
        pass
