"""What differs between runs, as text: how they were asked for, their code, their data, their machine, what came out.

Takes entries, the first being the one that the others are compared with; gives sections of lines. A record that is broken or at work
is compared as far as it can be read, and a sentence says so.
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gptshake.console import aligned, one_line, visible
from gptshake.estimate.formatting import counted, short_count
from gptshake.files import sha256
from gptshake.record.git import commits_between, stat_between
from gptshake.record.index import BROKEN, SECONDS, SPEED, TOKENS, Entry
from gptshake.record.metrics import Row
from gptshake.report.changes import changed_keys, machine_facts, value_text
from gptshake.report.runs_table import FIGURES, lines

MOST_COMMITS, MOST_LINES = 20, 12  # shown of a list of commits, of a file's changes
LARGEST_KEPT = 1 << 24  # bytes of a patch or a copied file that are compared line by line
_HEAD = ("id", "started", "status", "trained", "note")
_RESULTS: dict[str, Callable[[float], str]] = dict(FIGURES.values()) | {"perf/mfu": "{:.3f}".format}
_RATIOS = (TOKENS, SECONDS, SPEED, "perf/mfu")  # their difference is in percent
_DATA = {"label": "source", "fingerprint": "content", "store": "token store", "vocab_size": "vocabulary", "tokenizer": "tokenizer"}


def names(entries: Sequence[Entry]) -> list[str]:
    """What each run is called here: its id, or its path if two broken ones have the same."""
    ids = [one_line(entry.id) for entry in entries]
    return [name if ids.count(name) == 1 else one_line(str(entry.path)) for name, entry in zip(ids, entries, strict=True)]


def head(entries: Sequence[Entry]) -> list[str]:
    """The runs, one a line, and what has to be known about their state."""
    found, states = list[list[str]](), list[str]()
    for line, name, entry in zip(lines(entries, trials=True), names(entries), entries, strict=True):
        found.append([(line | {"note": entry.note})[column] for column in _HEAD])
        if entry.status == BROKEN:
            states.append(f"{name} is broken, and compared as far as it can be read: {entry.reason}")
        elif entry.status == "running":
            states.append(f"{name} is still running: its figures are not final.")
        elif entry.status != "ok":
            states.append(f"{name} did not run to its end ({entry.status}{f': {entry.reason}' if entry.reason else ''}).")
    return [*aligned([list(_HEAD), *found], left=range(len(_HEAD))).splitlines(), *states]


def config_differences(entries: Sequence[Entry]) -> list[str]:
    """A table of the config keys that differ, as far as they can change a result."""
    readable = [entry for entry in entries if entry.config]
    unread = [f"config.yaml of {name} cannot be read." for name, entry in zip(names(entries), entries, strict=True) if not entry.config]
    rows = {key.removesuffix("._target_"): [setting(entry, key) for entry in entries] for key in varying(readable)}
    return _table(entries, rows) + unread or ["no difference"]


def varying(entries: Sequence[Entry]) -> list[str]:
    """Config keys in which one of the runs differs from the first; other options first."""
    keys = dict.fromkeys(key for entry in entries[1:] for key in changed_keys(entries[0].config, entry.config))
    return sorted(keys, key=lambda key: not key.endswith("._target_"))


def setting(entry: Entry, key: str) -> str:
    """What a run had for a key: for a group the name of its option; blank if config.yaml cannot be read."""
    option = entry.part("choices").get(key.removesuffix("._target_")) if key.endswith("._target_") else None
    return str(option or value_text(entry.config.get(key))) if entry.config else ""


def data_differences(entries: Sequence[Entry]) -> list[str]:
    """Source, content (of the tokens) and tokenizer by fingerprint where they differ, and what that means for a comparison."""
    facts: list[dict[str, Any]] = []
    for data in (entry.part("data") for entry in entries):
        values = {name: data.get(key) for key, name in _DATA.items()} if data else {}
        facts.append({name: value[:12] if isinstance(value, str) and len(value) == 64 else value for name, value in values.items()})
    known = [fact for fact in facts if fact]
    if len(known) < 2:
        return ["There are not two records that say what they were trained on."]
    differ = {name for name in known[0] if any(fact[name] != known[0][name] for fact in known)}
    chosen = any(key.startswith("tokenizer.") for key in varying([entry for entry in entries if entry.config]))
    meaning = ["Their tokenizers differ: compare bits per byte, not losses."] if "tokenizer" in differ else []
    # The content is of tokens: only with one tokenizer does it identify a text. A tokenizer that nobody changed learned from another text.
    if "source" in differ or ("content" in differ and not chosen):
        meaning = ["Their texts differ, so neither losses nor bits per byte compare exactly."]
    same = one_line("the same: {source}, content {content}, tokenizer {tokenizer} of {vocabulary} tokens".format(**known[0]))
    return _facts_table(entries, facts) + meaning or [same]


def machine_differences(entries: Sequence[Entry]) -> list[str]:
    """Version, interpreter, packages, hardware and what ``auto`` became, where they differ."""
    return _facts_table(entries, [machine_facts(entry.info) for entry in entries]) or ["no difference"]


def result_differences(entries: Sequence[Entry]) -> list[str]:
    """Figures at the end and at equal tokens, each with its difference to the first run's; whether the losses are the same bits."""
    tokens = equal_tokens(entries)
    rows = {name: _against([entry.figures.get(name) for entry in entries], text, ratio=name in _RATIOS) for name, text in _RESULTS.items()}
    for name in ("val/bpb", "val/loss") if tokens else ():
        values = [value_at(entry.rows, name, tokens) for entry in entries]
        if values != [entry.figures.get(name) for entry in entries]:
            rows[f"{name} at {short_count(tokens)} tokens"] = _against(values, "{:.4f}".format, ratio=False)
    found = _table(entries, {name: cells for name, cells in rows.items() if any(cells)}) or ["No run has a figure yet."]
    marked = [name for name, entry in zip(names(entries), entries, strict=True) if entry.old_rule and "val/bpb" in entry.figures]
    if marked:
        found.append(f"Bits per byte of {', '.join(marked)} by the old rule: what unknown tokens hide is left out.")
    for other in entries[1:]:  # how long two runs had the same losses, to the last bit
        pairs = list(zip(entries[0].rows, other.rows, strict=False))
        same = [all(a.get(name) == b.get(name) for name in ("step", "train/loss", "val/loss")) for a, b in pairs]
        if equal := same.index(False) if False in same else len(same):
            where = f", in all {equal} common steps" if equal == len(pairs) else f", up to step {int(pairs[equal - 1][0]['step'])}"
            found.append(f"The losses of {one_line(entries[0].id)} and {one_line(other.id)} are the same, bit for bit{where}.")
    return found


def equal_tokens(entries: Sequence[Entry]) -> float:
    """The last number of training tokens that lies within all curves of validation; 0 if there are not two of them."""
    curves = [tokens for entry in entries if (tokens := [row[TOKENS] for row in entry.rows if "val/loss" in row])]
    last = min((tokens[-1] for tokens in curves), default=0)
    return float(last) if len(curves) > 1 and all(tokens[0] <= last for tokens in curves) else 0.0


def value_at(rows: Sequence[Row], name: str, tokens: float) -> float | None:
    """A curve's value at a number of training tokens, on the straight line between its neighbours; None outside of the curve."""
    points = [(row[TOKENS], row[name]) for row in rows if name in row]
    for (left, low), (right, high) in itertools.pairwise([*points[:1], *points]):
        if left <= tokens <= right:
            return low + (high - low) * (tokens - left) / (right - left) if right > left else low
    return None


def _against(values: Sequence[float | None], text: Callable[[float], str], *, ratio: bool) -> list[str]:
    """The first as it is, the others with the difference to it."""
    first, cells = values[0], list[str]()
    for n, value in enumerate(values):
        gap = ""
        if n and value is not None and first is not None:
            gap = f"  ({value - first:+.4f})" if not ratio else f"  ({100 * (value / first - 1):+.1f} %)" if first else ""
        cells.append("" if value is None else f"{text(value)}{gap}")
    return cells


def _facts_table(entries: Sequence[Entry], facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """The facts that differ; runs without any, for their records are broken, stay blank."""
    rows = {key: [value_text(fact.get(key)) if fact else "" for fact in facts] for key in dict.fromkeys(itertools.chain(*facts))}
    return _table(
        entries, {key: row for key, row in rows.items() if len({text for text, fact in zip(row, facts, strict=True) if fact}) > 1}
    )


def _table(entries: Sequence[Entry], rows: Mapping[str, Sequence[str]]) -> list[str]:
    cells = [[key, *map(one_line, values)] for key, values in rows.items()]
    return aligned([["", *names(entries)], *cells], left=range(len(entries) + 1)).splitlines() if cells else []


def code_differences(a: Entry, b: Entry) -> list[str]:
    """Lines that lead from the code of ``a`` to that of ``b``: the commits between, the files they touch, the uncommitted changes of each."""
    return [*_committed(a, b), *_uncommitted(a, b)]


def _committed(a: Entry, b: Entry) -> list[str]:
    old, new = a.commit, b.commit
    if not a.info or not b.info:
        return ["unknown: the record cannot be read"]
    if not old or not new:  # the version, and the hash of the package's files if it was kept
        texts, hashes = [], [entry.part("git").get("code_sha256") for entry in (a, b)]
        for entry in (a, b):
            git = entry.part("git")
            code, why = git.get("commit") or git.get("code_sha256"), git.get("unversioned")
            texts.append(
                f"version {entry.info.get('version', 'unknown')}{f', {str(code)[:8]}' if code else ''}{f' ({why})' if why else ''}"
            )
        same = "the same files: " if hashes[0] and hashes[0] == hashes[1] else ""
        return [one_line(same + " → ".join(dict.fromkeys(texts)))]
    if old == new:
        return [f"the same commit {old[:8]}"]
    there, back, stat = commits_between(old, new), commits_between(new, old), stat_between(old, new)
    if there is None or back is None or stat is None:
        return [f"{old[:8]} and {new[:8]}; this checkout does not know both, so the commits between cannot be listed."]
    found = [f"{old[:8]} → {new[:8]}" + ("" if there or back or stat else "; no commit between them touches source or config")]
    for commits, title in ((there, f"{counted(len(there), 'commit')} more"), (back, f"and without {len(back)}")):
        found += [f"  {title}:", *(f"    {one_line(commit)}" for commit in commits[:MOST_COMMITS])] if commits else []
        found += [f"    … and {len(commits) - MOST_COMMITS} more"] if len(commits) > MOST_COMMITS else []
    return [*found, *(f"  {one_line(line)}" for line in stat)]


def _uncommitted(a: Entry, b: Entry) -> list[str]:
    """The files whose uncommitted changes are not the same, with the lines that only one of the runs has."""
    one, two = _changes_kept(a), _changes_kept(b)
    if one == two:
        return [f"the same uncommitted changes in {', '.join(map(one_line, one))}" if one else "nothing uncommitted"]
    found = []
    for file in sorted(file for file in {*one, *two} if one.get(file) != two.get(file)):
        found.append(f"uncommitted in {one_line(file)}:")
        for entry, own, other in ((a, one.get(file), two.get(file)), (b, two.get(file), one.get(file))):
            only = [visible(line.expandtabs(1)) for line in own if line not in set(other or ())] if own is not None else ["unchanged"]
            more = [f"… and {len(only) - MOST_LINES} more lines"] if len(only) > MOST_LINES else []
            found += [f"  {one_line(entry.id)}: {line}" for line in [*only[:MOST_LINES], *more]]
    return found


def _changes_kept(entry: Entry) -> dict[str, list[str]]:
    """What a run directory keeps of uncommitted changes: of diff.patch the lines, of untracked files the lines or, if binary, the hash."""
    found: dict[str, list[str]] = {}
    patch, folder = entry.path / "diff.patch", entry.path / "untracked"
    if patch.is_file() and patch.stat().st_size <= LARGEST_KEPT:
        text = patch.read_text(encoding="utf-8", errors="replace")
        for part in re.split(r"^diff --git (?=.* b/.*$)", text, flags=re.MULTILINE)[1:]:
            line, _, body = part.partition("\n")
            changes = re.findall(r"^(?:[+-](?!\+\+ |-- ).*|Binary files .*|GIT binary patch)$", body, re.MULTILINE)
            found[line.rpartition(" b/")[2]] = changes
    for file in filter(lambda file: file.is_file(), sorted(folder.rglob("*"))):
        try:
            content = file.read_text(encoding="utf-8").splitlines() if file.stat().st_size <= LARGEST_KEPT else None
        except ValueError:
            content = None
        found[file.relative_to(folder).as_posix()] = [f"+{line}" for line in content] if content is not None else [_hashed(sha256(file))]
    for name, digest in (entry.part("git").get("untracked") or {}).items():  # too large to be copied
        found.setdefault(str(name), [_hashed(digest)])
    return found


def _hashed(digest: Any) -> str:
    return f"+ a file of SHA-256 {str(digest)[:12]}"
