"""What differs between runs, as text: how they were asked for, their data, their machine, what came out.

Takes entries, the first being the one that the others are held against; gives sections of lines. A record that is broken or at
work is compared as far as it can be read, and a sentence says so.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gptshake.estimate.words import duration, short_count
from gptshake.record.catalogue import BROKEN, Entry, flat
from gptshake.record.figures import SECONDS, SPEED, TOKENS
from gptshake.record.metrics import Row
from gptshake.report.changes import changed_keys, value_text
from gptshake.report.listing import lines
from gptshake.report.outcome import note, one_line, reason
from gptshake.report.tables import aligned

_HEAD = ("id", "started", "status", "trained", "note")
_RESULTS: tuple[tuple[str, Callable[[float], str]], ...] = (
    ("val/bpb", "{:.4f}".format),
    ("val/loss", "{:.4f}".format),
    ("test/bpb", "{:.4f}".format),
    ("train/loss", "{:.4f}".format),
    (TOKENS, short_count),
    (SECONDS, duration),
    (SPEED, short_count),
    ("perf/mfu", "{:.3f}".format),
)
_SHARES = (TOKENS, SECONDS, SPEED, "perf/mfu")  # their difference is told in percent
_AT_EQUAL_TOKENS = ("val/bpb", "val/loss")
_MACHINE = (
    "trainer.accelerator",
    "trainer.precision",
    "trainer.threads",
    "data.micro_batch_size",
    "data.workers",
)  # change rounding at most
_DATA = {"label": "source", "fingerprint": "content", "store": "token store", "vocab_size": "vocabulary", "tokenizer": "tokenizer"}


def names(entries: Sequence[Entry]) -> list[str]:
    """What each run is called here: its id, or its path if two broken ones have the same."""
    ids = [one_line(entry.id) for entry in entries]
    return [name if ids.count(name) == 1 else one_line(str(entry.path)) for name, entry in zip(ids, entries, strict=True)]


def head(entries: Sequence[Entry]) -> list[str]:
    """The runs, one a line, and what has to be known about their state."""
    rows = [
        [(line | {"note": note(entry)})[column] for column in _HEAD]
        for line, entry in zip(lines(entries, trials=True), entries, strict=True)
    ]
    table = aligned([list(_HEAD), *rows], left=range(len(_HEAD))).splitlines()
    return table + [_state(name, entry) for name, entry in zip(names(entries), entries, strict=True) if entry.status != "ok"]


def config_differences(entries: Sequence[Entry]) -> list[str]:
    """A table of the config keys that differ, as far as they can change a result."""
    readable = [entry for entry in entries if entry.config]
    blind = [f"config.yaml of {name} cannot be read." for name, entry in zip(names(entries), entries, strict=True) if not entry.config]
    if len(readable) < 2:
        return blind
    rows = {key.removesuffix("._target_"): [setting(entry, key) for entry in entries] for key in varying(readable)}
    return _table(entries, rows) + blind or ["no difference"]


def varying(entries: Sequence[Entry]) -> list[str]:
    """Config keys in which one of the runs differs from the first; other options first."""
    keys = dict.fromkeys(key for entry in entries[1:] for key in changed_keys(entries[0].config, entry.config))
    return sorted(keys, key=lambda key: not key.endswith("._target_"))


def setting(entry: Entry, key: str) -> str:
    """What a run had for a key: for a group the name of its option; blank if config.yaml cannot be read."""
    option = _part(entry, "choices").get(key.removesuffix("._target_")) if key.endswith("._target_") else None
    return str(option or value_text(entry.config.get(key))) if entry.config else ""


def data_differences(entries: Sequence[Entry]) -> list[str]:
    """Source, content (of the tokens) and tokenizer by fingerprint where they differ, and what that means for a comparison."""
    facts = [{said: _brief(data.get(key)) for key, said in _DATA.items()} if (data := _part(entry, "data")) else {} for entry in entries]
    known = [fact for fact in facts if fact]
    if len(known) < 2:
        return ["There are not two records that say what they were trained on."]
    retokenized = _differ(fact["tokenizer"] for fact in known)
    chosen = any(key.startswith("tokenizer.") for key in varying([entry for entry in entries if entry.config]))
    meaning = ["Their tokenizers differ: compare bits per byte, not losses."] if retokenized else []
    # The content is of tokens: only of one tokenizer does it tell texts apart. A tokenizer that nobody changed learned from another text.
    if _differ(fact["source"] for fact in known) or (_differ(fact["content"] for fact in known) and not chosen):
        meaning = ["Their texts differ, so neither losses nor bits per byte compare exactly."]
    return _facts_table(entries, facts) + meaning or [
        one_line("the same: {source}, content {content}, tokenizer {tokenizer} of {vocabulary} tokens".format(**known[0]))
    ]


def machine_differences(entries: Sequence[Entry]) -> list[str]:
    """Version, interpreter, packages, hardware and what ``auto`` became, where they differ."""
    return _facts_table(entries, list(map(_machine, entries))) or ["no difference"]


def result_differences(entries: Sequence[Entry]) -> list[str]:
    """Figures at the end and at equal tokens, each with its difference to the first run's; whether the losses are the same bits."""
    found = [entry.figures for entry in entries]
    rows = {name: _against([node.get(name) for node in found], say, share=name in _SHARES) for name, say in _RESULTS}
    tokens = equal_tokens(entries)
    for name in _AT_EQUAL_TOKENS if tokens else ():
        values = [value_at(entry.rows, name, tokens) for entry in entries]
        if values != [node.get(name) for node in found]:
            rows[f"{name} at {short_count(tokens)} tokens"] = _against(values, "{:.4f}".format)
    kept = {name: cells for name, cells in rows.items() if any(cells)}
    texts = [["", *names(entries)], *([name, *cells] for name, cells in kept.items())]
    table = aligned(texts, left=range(len(texts[0]))).splitlines() if kept else ["No run has a figure yet."]
    marked = [name for name, entry in zip(names(entries), entries, strict=True) if entry.old_rule and "val/bpb" in entry.figures]
    old = [f"Bits per byte of {', '.join(marked)} by the old rule: what unknown tokens hide is left out."] if marked else []
    return table + old + [same for entry in entries[1:] if (same := _sameness(entries[0], entry))]


def equal_tokens(entries: Sequence[Entry]) -> float:
    """The last number of training tokens that lies within all curves of validation; 0 if there are not two of them."""
    curves = [[row[TOKENS] for row in entry.rows if "val/loss" in row] for entry in entries]
    known = [tokens for tokens in curves if tokens]
    last = min((tokens[-1] for tokens in known), default=0)
    return float(last) if len(known) > 1 and all(tokens[0] <= last for tokens in known) else 0.0


def value_at(rows: Sequence[Row], name: str, tokens: float) -> float | None:
    """A curve's value at a number of training tokens, on the straight line between its neighbours; None outside of the curve."""
    points = [(row[TOKENS], row[name]) for row in rows if name in row]
    for (left, low), (right, high) in itertools.pairwise([*points[:1], *points]):
        if left <= tokens <= right:
            return low + (high - low) * (tokens - left) / (right - left) if right > left else low
    return None


def _machine(entry: Entry) -> dict[str, Any]:
    """Facts by their names; empty for a record that cannot be read."""
    resolved = {key: value for key, value in _part(entry, "resolved").items() if key in _MACHINE}
    facts = flat(_part(entry, "environment")) | flat(_part(entry, "hardware")) | resolved
    return (
        {"gptshake": entry.info.get("version")} | {key.removeprefix("packages."): value for key, value in facts.items()}
        if entry.info
        else {}
    )


def _state(name: str, entry: Entry) -> str:
    if entry.status == BROKEN:
        return f"{name} is broken, and compared as far as it can be read: {reason(entry)}"
    if entry.status == "running":
        return f"{name} is still running: its figures are not final."
    why = f": {reason(entry)}" if reason(entry) else ""
    return f"{name} did not run to its end ({entry.status}{why})."


def _sameness(first: Entry, other: Entry) -> str:
    """How long two runs had the same losses, to the last bit; empty if they never had."""
    equal = steps = 0
    for a, b in zip(first.rows, other.rows, strict=False):
        steps += 1
        equal += steps == equal + 1 and all(a.get(name) == b.get(name) for name in ("step", "train/loss", "val/loss"))
    ids = f"{one_line(first.id)} and {one_line(other.id)}"
    if not equal:
        return ""
    if equal == steps:
        return f"The losses of {ids} are the same, bit for bit, in all {steps} common steps."
    return f"The losses of {ids} are the same, bit for bit, up to step {int(first.rows[equal - 1]['step'])}."


def _against(values: Sequence[float | None], say: Callable[[float], str], *, share: bool = False) -> list[str]:
    """The first as it is, the others with the difference to it."""
    first = values[0]
    cells = []
    for place, value in enumerate(values):
        text = "" if value is None else say(value)
        if place and value is not None and first is not None:
            text += f"  ({100 * (value / first - 1):+.1f} %)" if share and first else f"  ({value - first:+.4f})" if not share else ""
        cells.append(text)
    return cells


def _table(entries: Sequence[Entry], rows: Mapping[str, Sequence[str]]) -> list[str]:
    cells = [[key, *map(one_line, values)] for key, values in rows.items()]
    return aligned([["", *names(entries)], *cells], left=range(len(entries) + 1)).splitlines() if cells else []


def _facts_table(entries: Sequence[Entry], facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """The facts that differ; runs without any, for their records are broken, stay blank."""
    keys = [key for key in dict.fromkeys(itertools.chain.from_iterable(facts)) if _differ(fact.get(key) for fact in facts if fact)]
    return _table(entries, {key: [value_text(fact.get(key)) if fact else "" for fact in facts] for key in keys})


def _differ(values: Iterable[Any]) -> bool:
    """Whether there are different ones among the values."""
    said = list(values)
    return any(value != said[0] for value in said)


def _brief(value: Any) -> Any:
    """A hash by its beginning."""
    return value[:12] if isinstance(value, str) and len(value) == 64 else value


def _part(entry: Entry, name: str) -> dict[str, Any]:
    node = entry.info.get(name)
    return node if isinstance(node, dict) else {}
