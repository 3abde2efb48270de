"""What the command line knows of a run before it begins, handed to its task as one plain value."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptshake.record.git import Code


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
    code: Code = field(default_factory=Code)  # with the uncommitted changes of the moment when the command began
    local_conf: dict[str, bytes] = field(default_factory=dict)  # the user's own ./conf, and Python files that it names
