"""``optimizer.lr=from:<run>``: the rate that a run of ``task=find_lr`` found, written out as the number that it is.

So every run, trial and resume has the number, and goes on without the record that it came from; where it came from is kept beside it.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gptshake.config.again import locate
from gptshake.errors import RecordError
from gptshake.record.catalogue import flat, read_entry
from gptshake.record.run import read_run

KEY, WORD = "optimizer.lr", "from:"
# What a rate depends on; lengths do, too, but little from some hundred steps on.
ABOUT = (
    "model",
    "tokenizer",
    "scheduler",
    "optimizer",
    "data.batch_size",
    "data.batch_tokens",
    "data.documents",
    "data.path",
    "trainer.gradient_clip_val",
)


def found_rates(overrides: list[str]) -> tuple[list[str], dict[str, Any]]:
    """The overrides with the number in the place of ``from:<run>``, and for the record where it is from: nothing, or ``lr_from``.

    Raises:
        RecordError: there is no such run, or it found no rate.
    """
    written, origin = [], dict[str, Any]()
    for text in overrides:
        key, _, value = text.partition("=")
        if key.lstrip("+") == KEY and value.strip("'\"").startswith(WORD):
            path = locate(value.strip("'\"").removeprefix(WORD), overrides)
            rate = _rate(path)
            text, origin = f"{key}={rate:g}", {"lr_from": {"run": read_run(path)["id"], "path": str(path)}}
        written.append(text)
    return written, origin


def _rate(path: Path) -> float:
    info = read_run(path)
    found = info.get("find_lr") or {}
    if found.get("lr") is None:
        why = "is no run of task=find_lr" if not found else f"has not found a rate ({info['status']})"
        raise RecordError(f"{KEY}={WORD}{info['id']}: {path.name} {why}. Find one with: gptshake task=find_lr model=... data=...")
    return float(found["lr"])


def other_terms(origin: dict[str, Any], cfg: DictConfig) -> str | None:
    """A sentence if the rate was found for another model, data or optimizer than what is to be trained; None if for the same."""
    if not origin:
        return None
    path = Path(origin["lr_from"]["path"])
    then, now = read_entry(path).config, flat(OmegaConf.to_container(cfg, resolve=True))
    keys = [key for key in sorted({*then, *now}) if key.startswith(ABOUT) and key not in (KEY, "data.documents.cache")]
    differing = [key for key in keys if then.get(key) != now.get(key) and now.get(key) != "auto"]
    if not differing:
        return None
    shown = ", ".join(f"{key} {then.get(key)}, here {now.get(key)}" for key in differing[:3])
    more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
    return f"note: {KEY}={now[KEY]:g} was found by {origin['lr_from']['run']} for other terms: {shown}{more}."
