"""What MLflow has of a run, part by part, as `tracking.json` in the run's folder keeps it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from hard_ray.files import read_json, write_json


@dataclass(slots=True)
class Sent:
    """A mark for each part of a run; a part without its mark is sent again, which changes nothing that is there."""

    run_id: str | None = None
    key: str = field(default_factory=lambda: secrets.token_hex(16))
    """The value of the tag `hardray.id`, by which a run is found whose making was interrupted."""
    address: str | None = None
    """Where the run is, without passwords."""
    params: str | None = None
    """Digest of the configuration whose parameters were sent."""
    tags: dict[str, str] = field(default_factory=dict)
    """Tags that were sent."""
    data: str | None = None
    """Digest of the data set that was named as the run's input."""
    steps: dict[str, int] = field(default_factory=dict)
    """Last step that was sent, by log file."""
    files: dict[str, float] = field(default_factory=dict)
    """Modification time of each file that was sent."""
    pictures: dict[str, list[float]] = field(default_factory=dict)
    """For each picture that was sent as one of a series by step, its time there and its modification time."""
    measured: float | None = None
    """Modification time of the later evaluation whose numbers were sent."""
    later: str | None = None
    """The folder of a later evaluation of the finished student, whose numbers and files are the run's too."""
    model_id: str | None = None
    """The logged model, which may not be complete."""
    model: bool = False
    """Whether the logged model is complete."""
    ended: str | None = None
    """The status that the run is to be closed with."""
    last_tags: dict[str, str] = field(default_factory=dict)
    """Tags that the run is to have in the end."""
    last_metrics: dict[str, float] = field(default_factory=dict)
    """Metrics that the run is to have in the end, measured at `last_time`."""
    last_time: float = 0.0
    status: str | None = None
    """The status that the run was closed with."""
    whole: bool = False
    """Whether nothing was missing when the run was closed."""
    elsewhere: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What other addresses have, from runs that were sent there before."""

    @classmethod
    def read(cls, path: Path) -> Sent:
        """Read a file of `remember`; one that is damaged counts as none: the run is then sent anew."""
        try:
            found = read_json(path, {})
        except (ValueError, OSError):
            found = {}
        return cls.of(found) if isinstance(found, dict) else cls()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Sent:
        """The known values of a mapping."""
        known = {item.name for item in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    def remember(self, path: Path) -> None:
        """Replace the file."""
        write_json(path, asdict(self))

    def at(self, address: str) -> Sent:
        """What another address has; what this one has is kept in it."""
        if self.address in (None, address):
            self.address = address
            return self
        others = dict(self.elsewhere)
        own = {name: value for name, value in asdict(self).items() if name != "elsewhere"}
        others[str(self.address)] = own
        chosen = Sent.of(others.pop(address, {}))
        chosen.address, chosen.elsewhere = address, others
        chosen.wants(self)
        return chosen

    def wants(self, other: Sent) -> None:
        """Take over what is to be sent in the end."""
        self.ended, self.later = other.ended, other.later
        self.last_tags, self.last_metrics, self.last_time = other.last_tags, other.last_metrics, other.last_time
