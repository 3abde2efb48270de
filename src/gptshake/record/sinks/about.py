"""What W&B is told of a run, read from its record: name, group, tags, notes, config with the numbers derived from it.

From the record alone, not from the live config: what is mirrored is what was kept, secrets already taken out, and a run can
be mirrored long after it ended.
"""

from typing import Any

import yaml

from gptshake.files import yaml_text
from gptshake.record.run import Run

TAG_LETTERS = 64  # W&B refuses longer ones
_TAGGED = ("data", "tokenizer", "model", "debug")
_DERIVED = ("budget", "model", "data", "hardware")  # parts of run.json that follow from the config, the text and the machine


def about(run: Run) -> dict[str, Any]:
    """Arguments of ``wandb.init`` that describe a run: name, group, job_type, tags, notes, config."""
    info, config = run.info, config_of(run)
    trial, choices, note = info.get("trial"), info.get("choices") or {}, info.get("note") or config.get("note")
    return {
        "name": run.name,
        "group": trial["study"] if trial else choices.get("experiment"),
        "job_type": info.get("task"),
        "tags": _tags(info, choices),
        "notes": note or None,
        "config": config | _derived(info),
    }


def config_of(run: Run) -> dict[str, Any]:
    """config.yaml; empty if there is none in it."""
    return yaml.safe_load(yaml_text(run.path / "config.yaml")) or {}


def _tags(info: dict[str, Any], choices: dict[str, str]) -> list[str]:
    label = (info.get("data") or {}).get("label")
    named = [f"{group}:{choices[group]}" for group in _TAGGED if choices.get(group)]
    dirty = ["dirty"] if (info.get("git") or {}).get("dirty") else []
    return [tag[:TAG_LETTERS] for tag in dict.fromkeys([*([label] if label else []), *named, *dirty])]


def _derived(info: dict[str, Any]) -> dict[str, Any]:
    kept = {key: info[key] for key in _DERIVED if info.get(key)}
    code = {"version": info.get("version"), "commit": (info.get("git") or {}).get("commit")}
    return {"derived": kept | code} | ({"trial": info["trial"]} if info.get("trial") else {})
