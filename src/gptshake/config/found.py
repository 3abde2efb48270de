"""``optimizer.lr=from:<run or study>``: the rate that ``task=find_lr`` or a sweep found, written out as the number that it is.

So every run, trial and resume has the number, and goes on without the record that it came from; where it came from is kept beside it.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gptshake.config.again import locate, typed
from gptshake.errors import RecordError
from gptshake.files import expanded
from gptshake.record.catalogue import flat, read_entry
from gptshake.record.run import read_run
from gptshake.record.studies import ROWS, read_rows_of
from gptshake.report.study_stats import best

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
            name = value.strip("'\"").removeprefix(WORD)
            rate, path = _of_study(folder) if (folder := _study(name, overrides)) else _of_run(locate(name, overrides))
            info = read_run(path)
            length = {key: (info.get("budget") or {}).get(key) for key in ("tokens", "warmup_tokens")}
            text, origin = f"{key}={rate:g}", {"lr_from": {"run": info["id"], "path": str(path), **length}}
        written.append(text)
    return written, origin


def _study(name: str, overrides: list[str]) -> Path | None:
    """The folder of a study, by path or by its name below the folder of sweeps; None if it is no study's."""
    places = (expanded(name), expanded(typed(overrides, "paths.multirun") or "multirun") / name)
    return next((place for place in places if name and (place / ROWS).exists()), None)


def _of_study(folder: Path) -> tuple[float, Path]:
    """Rate of its best trial, and the directory of that trial's first run."""
    study = read_rows_of(folder)
    winner = best(study)
    if winner is None:
        raise RecordError(f"{KEY}={WORD}{folder.name}: no trial of that study has ended yet.")
    if KEY not in winner.trial["params"]:
        raise RecordError(f"{KEY}={WORD}{folder.name}: that study did not vary {KEY}.")
    return float(winner.trial["params"][KEY]), folder / winner.trial["runs"][0]["path"]


def _of_run(path: Path) -> tuple[float, Path]:
    """Rate that a finder's run recommends for runs of its own length, and its directory."""
    info = read_run(path)
    found = info.get("find_lr") or {}
    if found.get("lr") is None:
        why = "is no run of task=find_lr" if not found else f"has not found a rate ({info['status']})"
        raise RecordError(f"{KEY}={WORD}{info['id']}: {path.name} {why}. Find one with: gptshake task=find_lr model=... data=...")
    return float(found["lr"]), path


def other_terms(origin: dict[str, Any], cfg: DictConfig) -> str | None:
    """A sentence if the rate was found for another model, data or optimizer than what is to be trained; None if for the same."""
    if not origin:
        return None
    path = Path(origin["lr_from"]["path"])
    then, now = read_entry(path).config, flat(OmegaConf.to_container(cfg, resolve=True))
    keys = [key for key in sorted({*then, *now}) if key.startswith(ABOUT) and key not in (KEY, "data.documents.cache")]
    differing = [key for key in keys if not _is_same(key, then.get(key), now.get(key)) and now.get(key) != "auto"]
    if not differing:
        return None
    shown = ", ".join(f"{key} {then.get(key)}, here {now.get(key)}" for key in differing[:3])
    more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
    return f"note: {KEY}={now[KEY]:g} was found by {origin['lr_from']['run']} for other terms: {shown}{more}."


def _is_same(key: str, then: Any, now: Any) -> bool:
    """Whether two values mean the same: a study keeps a path as an absolute one."""
    if key.endswith(".path") and isinstance(then, str) and isinstance(now, str):
        return expanded(then).absolute() == expanded(now).absolute()
    return bool(then == now)
