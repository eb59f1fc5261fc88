"""Who follows a run: the protocol, and one that stays silent."""

from __future__ import annotations

from typing import Protocol

from hard_ray.orchestration.run.plan import RunPlan


class Reporter(Protocol):
    """Hears what happens, while it happens."""

    def say(self, text: str) -> None:
        """A sentence for the user."""
        ...

    def watch(self, plans: tuple[RunPlan, ...]) -> None:
        """Look at the trainings' folders; called about twice a second."""
        ...

    def close(self) -> None:
        """The trainings are over."""
        ...


class Silent:
    """Says nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def watch(self, plans: tuple[RunPlan, ...]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
