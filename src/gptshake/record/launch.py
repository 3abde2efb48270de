"""What the command line knows of a run before it begins, handed to its task as one plain value."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Launch:
    """One run as it was asked for."""

    id: str
    name: str
    path: Path  # run directory
    overrides: list[str]  # as typed, so that the run becomes a config again
    choices: dict[str, str]  # group -> option
    provenance: dict[str, Any] = field(default_factory=dict)
    resumes: bool = False  # ``path`` holds a run already
    trial: dict[str, Any] | None = None  # of a sweep: study, number, repeat, params
    patch: Path | None = None  # folder that keeps the uncommitted changes of the moment when the sweep began
