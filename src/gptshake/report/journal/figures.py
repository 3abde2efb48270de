"""The numbers of one experiment: what came out, how fast, and the hyperparameters that people look for.

Takes what the record says; where an older or a killed run says less, its rows are asked.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from gptshake.estimate.cost import n_parameters
from gptshake.estimate.words import short_count
from gptshake.model.config import GPTConfig
from gptshake.record.catalogue import Entry
from gptshake.record.figures import is_number
from gptshake.report.changes import value_text
from gptshake.report.study_stats import Rows, best

_SHAPE = ("n_layer", "n_head", "n_embd", "block_size", "bias")


@dataclass(frozen=True)
class Figures:
    """The numbers of one experiment; None is unknown."""

    bpb: float | None = None
    loss: float | None = None
    test_bpb: float | None = None
    tokens: float | None = None
    seconds: float | None = None
    rate: float | None = None  # tokens per second
    mfu: float | None = None


def figures_of(main: Entry, study: Rows | None) -> Figures:
    """Of one run; with its study, of the winner's mean."""
    summary = {str(key): float(value) for key, value in main.summary.items() if is_number(value)}
    last = {} if summary.get("train/tokens") else _last_row(main)
    bpb, tokens = summary.get("val/bpb", last.get("val/bpb")), summary.get("train/tokens", last.get("train/tokens"))
    winner = best(study) if study and study["objective"] == "val/bpb" else None
    seconds = main.info.get("wall_s") or (main.info.get("finished") or last.get("time") or main.started) - main.started
    rate, mfu = _speed(main, summary)
    return Figures(
        winner.value if winner else bpb,
        summary.get("val/loss", last.get("val/loss")),
        summary.get("test/bpb"),
        tokens,
        float(seconds) if tokens else None,
        rate if tokens else None,
        mfu if tokens else None,
    )


def _last_row(entry: Entry) -> dict[str, float]:
    """The last value of every column, of a run that has no summary."""
    return {key: value for row in entry.rows for key, value in row.items() if math.isfinite(value)}


def _speed(entry: Entry, summary: Mapping[str, float]) -> tuple[float | None, float | None]:
    """Tokens per second and MFU of the whole run; where the summary does not say them, of the middle step."""
    if "perf/tokens_per_s" in summary:
        return summary["perf/tokens_per_s"], summary.get("perf/mfu")
    found = [[row[key] for row in entry.rows if is_number(row.get(key))] for key in ("perf/tokens_per_s", "perf/mfu")]
    rate, mfu = (median(values) if values else None for values in found)
    return rate, mfu


def settings_of(entry: Entry) -> dict[str, str]:
    """The hyperparameters that people look for, by name; those that are not known are left out."""
    config, choices = entry.config, entry.info.get("choices") or {}
    data, budget = entry.info.get("data") or {}, entry.info.get("budget") or {}
    shape = {key: config[f"model.{key}"] for key in _SHAPE if f"model.{key}" in config}
    vocabulary = data.get("vocab_size")
    found = {
        "parameters": short_count(n_parameters(GPTConfig(**shape), int(vocabulary))) if vocabulary and len(shape) == len(_SHAPE) else None,
        "layers × heads × width": " × ".join(str(shape[key]) for key in _SHAPE[:3]) if len(shape) == len(_SHAPE) else None,
        "context": shape.get("block_size"),
        "tokenizer": f"{choices.get('tokenizer')} {vocabulary}" if choices.get("tokenizer") and vocabulary else None,
        "batch × steps": f"{config.get('data.batch_size')} × {budget['steps']:,}" if budget.get("steps") else None,
        "peak lr": value_text(config.get("optimizer.lr")) if "optimizer.lr" in config else None,
        "schedule": choices.get("scheduler"),
        "optimizer": choices.get("optimizer"),
        "weight decay": config.get("optimizer.weight_decay"),
        "dropout": config.get("model.dropout"),
        "precision": config.get("trainer.precision"),
        "seed": config.get("seed"),
    }
    return {name: str(value) for name, value in found.items() if value is not None}
