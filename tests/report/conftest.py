"""Studies written by hand: a line of learning rates, a map of two axes, a comparison with a base."""

import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gptshake.record.index import Entry, read_entry
from gptshake.record.run import Run

BEGIN = 1_800_000_000.0
Make = Callable[..., dict[str, Any]]


def axis(key: str, **fields: Any) -> dict[str, Any]:
    return (
        {"low": None, "high": None, "log": False, "integer": False, "powers": False, "choices": [], "declared": None}
        | {"key": key}
        | fields
    )


def run(path: str, value: float | None, **fields: Any) -> dict[str, Any]:
    row = {"path": path, "repeat": 0, "seed": None, "slot": 0, "state": "ok", "value": value, "reason": None}
    return row | {"started": BEGIN, "ended": BEGIN + 45, "tokens_per_s": 20_000.0, "tokens": 1_200_000} | fields


def trial(number: int, params: dict[str, Any], values: Sequence[float | None], state: str = "ok", **fields: Any) -> dict[str, Any]:
    """A trial with a run for each value; ``fields`` named ``run_...`` go to its runs."""
    common = {key.removeprefix("run_"): fields.pop(key) for key in list(fields) if key.startswith("run_")}
    common |= {} if state == "ok" else {"state": state}
    paths = [f"{number}/{r}" if len(values) > 1 else str(number) for r in range(len(values))]
    runs = [run(path, value, **({"repeat": r} | common)) for r, (path, value) in enumerate(zip(paths, values, strict=True))]
    known = [value for value in values if value is not None]
    mean = sum(known) / len(known) if known and state == "ok" else None
    overrides = [f"{key}={value}" for key, value in params.items()]
    row = {
        "number": number,
        "state": state,
        "params": params,
        "overrides": overrides,
        "value": mean,
        "reason": None,
        "at": None,
        "runs": runs,
    }
    return row | fields


def study(axes: list[dict[str, Any]], trials: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    rows = {
        "name": "tiny-wiki_char-ab12",
        "state": "done",
        "started": BEGIN,
        "updated": BEGIN + 400,
        "objective": "val/bpb",
        "direction": "minimize",
        "label": "tiny · wiki_char · excerpt106",
        "program": "gptshake",
        "fixed": ["model=tiny", "data=wiki_char"],
        "axes": axes,
        "search": "line",
        "n_trials": len(trials),
        "repeats": 1,
        "tokens": 1_200_000,
        "slots": 2,
        "device": "2 CPU slots of 1 thread",
        "seconds": 45.0,
        "trials": trials,
        "confirm": [],
        "ablate": None,
    }
    return rows | fields


def bowl(rate: float, vertex: float = 2e-3) -> float:
    """A loss with its minimum of 2.25 at ``vertex``."""
    return 2.25 + 0.05 * math.log2(rate / vertex) ** 2


RATES = (1.25e-4, 2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
LR = axis("optimizer.lr", low=1e-5, high=1e-1, log=True, declared=1e-3)


@pytest.fixture
def rows() -> SimpleNamespace:
    """The parts of a study, to be put together by hand."""
    return SimpleNamespace(axis=axis, run=run, trial=trial, study=study, LR=LR, BEGIN=BEGIN)


@pytest.fixture
def line() -> Make:
    """A study of learning rates, ``values`` their losses; further fields replace those of study.json."""

    def make(rates: Sequence[float] = RATES, loss: Callable[[float], float] = bowl, **fields: Any) -> dict[str, Any]:
        trials = [trial(n, {"optimizer.lr": rate}, [loss(rate)], run_slot=n % 2) for n, rate in enumerate(rates)]
        for row in trials:
            for one in row["runs"]:
                one["started"], one["ended"] = BEGIN + 50 * (row["number"] // 2), BEGIN + 50 * (row["number"] // 2) + 45
        return study([LR], trials + fields.pop("more", []), **fields)

    return make


@pytest.fixture
def grid() -> Make:
    """Learning rate x batch size; larger batches want higher rates and are faster."""

    def make(**fields: Any) -> dict[str, Any]:
        points = [(rate, batch) for rate in (5e-4, 1e-3, 2e-3, 4e-3) for batch in (16, 32, 64)]
        trials = [
            trial(
                n,
                {"optimizer.lr": rate, "data.batch_size": batch},
                [bowl(rate, 1e-3 * (batch / 16) ** 0.5) + 0.02 * math.log2(batch / 16)],
                run_tokens_per_s=1000.0 * batch**0.5,
            )
            for n, (rate, batch) in enumerate(points)
        ]
        axes = [
            axis("optimizer.lr", choices=[5e-4, 1e-3, 2e-3, 4e-3]),
            axis("data.batch_size", low=8, high=64, log=True, integer=True, powers=True),
        ]
        return study(axes, trials, search="grid", **fields)

    return make


@pytest.fixture
def compared() -> Make:
    """Three changes against a base, three seeds each."""

    def make(**fields: Any) -> dict[str, Any]:
        labels = ["base", "data.batch_size=64", "optimizer.lr=1e-5", "all together"]
        values = {"base": (2.30, 2.34, 2.32), labels[1]: (2.31, 2.33, 2.325), labels[2]: (2.50, 2.56, 2.53), labels[3]: (2.20, 2.23, 2.215)}
        overrides: dict[str, list[str]] = {"base": [], "all together": labels[1:3]}
        trials = [
            trial(n, {"ablate": label}, values[label], overrides=overrides.get(label, [label]), run_tokens_per_s=1000.0 * (1 + n))
            for n, label in enumerate(labels)
        ]
        return study([axis("ablate", choices=labels)], trials, ablate={"labels": labels}, repeats=3, **fields)

    return make


@pytest.fixture
def lay() -> Callable[[Path, dict[str, Any]], Path]:
    """Write a study's folder: study.json, and metrics.csv for every run that has begun."""

    def write(folder: Path, study: dict[str, Any]) -> Path:
        folder.mkdir(parents=True)
        (folder / "study.json").write_text(json.dumps(study), encoding="utf-8")
        for row in study["trials"]:
            for one in row["runs"]:
                _metrics(folder / one["path"], one["value"] if one["value"] is not None else 3.5, row.get("at") or 1_200_000)
        return folder

    return write


def _metrics(run_dir: Path, final: float, tokens: int) -> None:
    run_dir.mkdir(parents=True)
    lines = ["step,train/tokens,val/bpb"]
    for n in range(1, 11):
        share = n / 10 * tokens / 1_200_000
        lines.append(f"{n * 100},{int(tokens * n / 10)},{final + 2.5 * (math.exp(-4 * share) - math.exp(-4 * tokens / 1_200_000))}")
    (run_dir / "metrics.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Entry]:
    """Makes a run of a few rows, one validation in two steps of 100 tokens; ``fields`` go to run.json, ``config`` to config.yaml."""

    monkeypatch.setattr(os, "fsync", lambda handle: None)  # nothing here must survive a power cut

    def make(
        id: str, *, status: str = "ok", losses: Sequence[float] = (4.0, 3.0, 2.5, 2.25), config: str = "seed: 1\n", **fields: Any
    ) -> Entry:
        trial = fields.get("trial")
        path = tmp_path / (
            f"multirun/{trial['study']}/{trial['number']}" if trial else f"runs/20261124-0031-tiny-wiki_char-excerpt106-{id}"
        )
        overrides = fields.pop("overrides", ["model=tiny", "data=wiki_char"])
        run = Run.create(path, id=id, name=path.name, task="train", config_yaml=config, overrides=overrides)
        for step, loss in enumerate(losses, start=1):
            val = {"val/loss": loss + 0.1, "val/bpb": (loss + 0.1) / math.log(2)} if step % 2 == 0 else {}
            run.append_row(
                {"step": step, "train/tokens": 100 * step, "train/loss": loss, "time": BEGIN + step, "perf/tokens_per_s": 1000.0, **val}
            )
        run.flush()
        run.update(**{"started": BEGIN, "choices": {"model": "tiny", "data": "wiki_char"}, "data": {"label": "excerpt106"}} | fields)
        if status not in ("running", "killed"):
            summary = {key: value for key, value in run.rows()[-1].items() if key not in ("time", "step")} if losses else {}
            run.finish(status, fields.get("reason"), summary)
            run.update(finished=run.info["started"] + 60)
        return read_entry(path)

    return make
