"""What the journal says of each experiment (a plain run, or all runs of a sweep), as Markdown that people can also read as it is.

A section uses only what began before its run and had ended when that did, so a run that begins or goes on later never changes it. Foreign text (notes, names,
overrides, reasons, what a model wrote) cannot become HTML, a heading, a link, a cell of a table, or one of the journal's own markers.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any
from urllib.parse import quote

from gptshake.errors import RecordError
from gptshake.estimate.formatting import counted, short_count
from gptshake.estimate.significance import Spread, difference
from gptshake.markdown import cell, code, fenced, prose, table
from gptshake.record.git import commits_between
from gptshake.record.index import BROKEN, STUDY_FILE, Entry, is_number, read_study
from gptshake.record.run import debug_option
from gptshake.record.texts import read_notes
from gptshake.report.changes import AUTOMATIC, changed_keys, counting, key_text, value_text
from gptshake.report.runs_table import FIGURES
from gptshake.report.study_stats import Json, best, is_cut_off, run_values
from gptshake.report.study_text import trial_table, verdict

MARKER = r" {0,3}<!--[ \t]*gptshake[ \t]*:"  # begins whatever could be taken for one of the journal's own markers
LOSSES = ("val/bpb", "val/loss", "test/bpb")
RESULTS = {name: FIGURES[name] for name in (*LOSSES, "tokens", "time", "tokens/s", "MFU")}  # -> figure, and how it is written
_AGAINST = {"parent": "the run it began from", "original": "the run it repeats", "previous": "the entry before"}
_LONGEST_TITLE, _MOST_COMMITS = 100, 12


@dataclass(frozen=True)
class Experiment:
    """A plain run, or all runs of a sweep."""

    id: str  # as a marker, an anchor and a file can hold it
    started: float
    main: Entry  # the only run, or a sweep's best
    runs: tuple[Entry, ...]  # all of them, the oldest first
    folder: Path  # of the run, or of the sweep
    study: Json | None = None  # study.json, where it is our sweeper's

    @property
    def ended(self) -> float:
        """When the last of its runs ended, in seconds since 1970; when that began, where it has no end."""
        ends = [float(run.info["finished"]) for run in self.runs if is_number(run.info.get("finished"))]
        return max(ends, default=self.started)

    @property
    def is_sweep(self) -> bool:
        return self.folder != self.main.path or self.study is not None

    @property
    def varied(self) -> list[str]:
        return [str(axis["key"]).lstrip("+") for axis in self.study["axes"]] if self.study else []

    @cached_property
    def results(self) -> Mapping[str, float | None]:
        """Of the main run, None for what is unknown; of a study the mean over the winner's seeds."""
        winner = best(self.study) if self.study and self.study["objective"] == "val/bpb" else None
        found = {name: self.main.figures.get(figure) for name, (figure, _) in RESULTS.items()}
        return found | ({"val/bpb": winner.value} if winner else {})


@dataclass(frozen=True)
class Section:
    """One entry of the journal, all texts as they were written."""

    experiment: Experiment
    verdict: str
    commits: list[str]  # subjects since the section before
    changes: dict[str, tuple[Any, Any]]
    against: tuple[str, Experiment] | None  # what the changes are changes of: the parent, the original or the previous one
    compared: dict[str, Experiment]  # what it is -> an earlier one
    spread: Spread | None

    @property
    def title(self) -> str:
        """``tiny · wiki_char · excerpt106``, and what was swept, or what is new if that is little."""
        one, new = self.experiment, [f"{key_text(key)} {value_text(value)}" for key, (_, value) in self.changes.items()]
        if one.is_sweep:
            new = [f"sweep of {', '.join(map(key_text, one.varied))}" if one.study else counted(len(one.runs), "run")]
        return " · ".join([one.main.source or one.id, *(new if len(new) <= 3 else [])])[:_LONGEST_TITLE]


def find_experiments(entries: Sequence[Entry], multirun: Path) -> tuple[list[Experiment], list[tuple[Path, str]], int]:
    """The experiments, the oldest first; records that cannot be listed, with the reason; and the number of ``debug=`` runs, which are left out.

    ``entries`` are of the run index, the newest first.
    """
    problems: list[tuple[Path, str]] = [(entry.path, entry.problem) for entry in entries if entry.status == BROKEN]
    whole = [entry for entry in reversed(entries) if entry.status != BROKEN]
    meant = [entry for entry in whole if not debug_option(entry.info)]
    found, sweeps = list[Experiment](), dict[Path, list[Entry]]({file.parent: [] for file in sorted(multirun.glob(f"*/{STUDY_FILE}"))})
    for entry in meant:
        parts = entry.path.relative_to(multirun).parts if entry.path.is_relative_to(multirun) else ()
        if len(parts) > 1:
            sweeps.setdefault(multirun / parts[0], []).append(entry)
        else:
            found.append(Experiment(entry.id, entry.started, entry, (entry,), entry.path))
    for folder, runs in sweeps.items():
        study = None
        try:
            study = read_study(folder) if (folder / STUDY_FILE).exists() else None
        except RecordError as error:
            problems.append((folder, str(error)))
        found += [_sweep(folder, runs, study)] if runs or study else []
    once = dict[str, Experiment]()
    for one in sorted(found, key=lambda one: (one.started, str(one.folder))):
        if (first := once.setdefault(one.id, one)) is not one:
            problems.append((one.folder, f"this has the id of {first.folder}: a copy, which is listed once."))
    return list(once.values()), problems, len(whole) - len(meant)


def _sweep(folder: Path, runs: Sequence[Entry], study: Json | None) -> Experiment:
    """All runs of a sweep as one experiment, whose main run is the winner's, else the one of the least bits per byte, else the last."""
    winner = best(study) if study else None
    won = [folder / run["path"] for run in winner.trial["runs"] if run["state"] == "ok"] if winner else []
    ended = [run for run in runs if run.status == "ok" and is_number(run.summary.get("val/bpb"))]
    chosen = [*(run for run in runs if run.path in won), *sorted(ended, key=lambda run: run.summary["val/bpb"]), *runs[-1:]]
    main = chosen[0] if chosen else Entry(folder, "failed", {"name": folder.name})  # no run of the study began
    started = float((study or {}).get("started") or min((run.started for run in runs), default=0.0))
    return Experiment(re.sub(r"[^A-Za-z0-9_.-]+", "_", folder.name), started, main, tuple(runs), folder, study)


class History:
    """What was known before each experiment; sections must be asked for in the order of time."""

    def __init__(self) -> None:
        self._runs: dict[str, tuple[Experiment, Entry]] = {}  # by the run's id
        self._last: dict[Any, Experiment] = {}  # by task
        self._ended: list[tuple[set[Any], float, Section]] = []  # names of the text, val/bpb
        self._seeds: dict[str, dict[Any, Any]] = {}  # val/bpb by seed of the runs that have all other settings in common
        self._commit = ""

    def section(self, experiment: Experiment) -> Section:
        main, bpb, config, data = experiment.main, experiment.results["val/bpb"], experiment.main.config, experiment.main.part("data")
        # What names the text that a run is validated on, and the rule of its bits per byte: runs that share a name compare. One is the
        # hash of the text itself, which earlier versions did not record, the other that of its tokens.
        rule = (*(str(config.get(f"data.{key}")) for key in ("split", "val_fraction", "test_fraction")), main.old_rule)
        texts = {
            (kind, str(data[kind]), rule) for kind in ("fingerprint", "text") if data.get("fingerprint") and data.get(kind) is not None
        }
        against = self._against(main)
        before = against[1].main.config if against else {}
        changes = changed_keys(before, config) if before and config else {}
        changes = {key: pair for key, pair in changes.items() if key not in (*experiment.varied, *AUTOMATIC)}
        known = [one for one in self._ended if one[0] & texts and one[2].experiment.ended <= experiment.ended]
        rival = min(known, key=lambda one: one[1])[2] if known else None
        spread = self._spread(experiment)
        compared = dict([against]) if against and against[0] != "previous" else {}
        if rival and rival.experiment.id not in [one.id for one in compared.values()]:
            compared["best before"] = rival.experiment
        here, new = main.commit, main.commit and self._commit and main.commit != self._commit
        commits = commits_between(self._commit, here, "%s", ()) or [] if new else []
        section = Section(experiment, _verdict(experiment, rival, spread), commits, changes, against, compared, spread)
        self._commit = here or self._commit
        self._last[main.info.get("task")] = experiment
        self._runs |= {run.id: (experiment, run) for run in experiment.runs}
        study = experiment.study
        if bpb is not None and (study["state"] == "done" or is_cut_off(study) if study else main.status == "ok"):
            self._ended.append((texts, bpb, section))
        return section

    def _against(self, main: Entry) -> tuple[str, Experiment] | None:
        """What a run's changes are changes of: the run that it began from or repeats, else that of the section before of its task."""
        for what, id in (("parent", main.info.get("parent")), ("original", main.info.get("reproduces"))):
            if id in self._runs:
                experiment, run = self._runs[id]
                return what, replace(experiment, main=run, study=None)  # of a sweep this run alone
        last = self._last.get(main.info.get("task"))
        return ("previous", last) if last else None

    def _spread(self, experiment: Experiment) -> Spread | None:
        """Over the seeds of a sweep's winner, of a sweep of seeds, or of all runs so far that differ in their seed alone."""
        study, main, values = experiment.study, experiment.main, list[Any]()
        if study is not None and [axis["key"] for axis in study["axes"]] == [study.get("seed_key")]:
            values = [trial["value"] for trial in study["trials"]]
        elif study is not None:
            values = run_values(winner.trial) if (winner := best(study)) else []
        elif main.config and main.status == "ok":
            settings = {key: value for key, value in counting(main.config).items() if key not in ("seed", *AUTOMATIC)}
            by_seed = self._seeds.setdefault(repr(sorted(settings.items())), {})
            by_seed[main.config.get("seed")] = main.summary.get("val/bpb")
            values = list(by_seed.values())
        values = [value for value in values if is_number(value)]
        return Spread(fmean(values), stdev(values), len(values)) if len(values) > 1 else None


def _verdict(experiment: Experiment, rival: Section | None, spread: Spread | None) -> str:
    """One sentence that says how it ended and how it compares; a difference that seeds may have made is called none."""
    main, bpb, tokens = experiment.main, experiment.results["val/bpb"], experiment.results["tokens"]
    if experiment.study is None and main.status != "ok":
        place = f" after {short_count(tokens)} tokens" if tokens else " before the first step"
        return f"{main.status}{place}{f': {main.reason}' if main.reason else ''}".rstrip(".") + "."
    if bpb is None:
        return "no run of it came to an end." if experiment.is_sweep else "no validation, so nothing to compare."
    if rival is None or not (best_bpb := rival.experiment.results["val/bpb"]):
        return f"the first on this text: {bpb:.4f} bits per byte."
    gap, noise = difference(bpb, best_bpb, spread, rival.spread)
    theirs = rival.experiment.results["tokens"]
    ratio = tokens / theirs if tokens and theirs else 1.0
    more = ("" if 0.95 < ratio < 1.05 else f", with {ratio:.2g} times the tokens") + (f"; {noise}" if noise else "")
    how = "is indistinguishable from" if noise else "better than" if gap < 0 else "worse than"
    return f"{how} the best before it, {gap:+.4f} bits per byte ({100 * gap / best_bpb:+.1f} %){more}."


def entry(section: Section, pictures: Sequence[tuple[str, Path]], home: Path) -> str:
    """The Markdown between the markers of one entry, with pictures (what each shows, where it lies), seen from the journal's folder."""
    one, run = section.experiment, section.experiment.main
    # Day and time on the clock of the machine that ran it, as the run's name has them; else UTC.
    named = [found.groups() for each in one.runs if (found := re.match(r"(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)-", each.name))]
    date = "{}-{}-{} {}:{}".format(*min(named)) if named else f"{datetime.fromtimestamp(one.started, UTC):%Y-%m-%d %H:%M} UTC"
    notes = sorted(note for folder in dict.fromkeys([one.folder, *(run.path for run in one.runs)]) for note in read_notes(folder))
    commits = [f"- {prose(subject)}" for subject in section.commits]
    more = [f"- and {len(commits) - _MOST_COMMITS} more"] if len(commits) > _MOST_COMMITS else []
    findings = run.part(str(run.info.get("task")))  # what another task than training found, under its own name
    cells = {prose(str(key)): cell(value_text(value)) for key, value in findings.items() if is_number(value) or isinstance(value, str)}
    parts = [
        f'<a id="{one.id}"></a>',
        f"## {prose(date)} · {prose(section.title)}",
        f"**Verdict:** {prose(section.verdict)}",
        f"**Why:** {prose(run.note)}" if run.note else "",
        "\n".join(f"- {datetime.fromtimestamp(note.time, UTC):%Y-%m-%d}: {prose(note.text)}" for note in notes),
        _provenance(section, home),
        "\n".join(["Commits since the entry before:", "", *commits[:_MOST_COMMITS], *more]) if commits else "",
        _changes(section),
        _results(section),
        *(f"![{prose(what)}]({quote(os.path.relpath(path, home))})" for what, path in pictures),
        _settings(run),
        table(list(cells), [list(cells.values())]) if cells else "",
        *_runs(one, home),
        *_samples(run),
    ]
    return "\n\n".join(filter(None, parts))


def _provenance(section: Section, home: Path) -> str:
    """Version, commit, where the record lies, what it began from, and W&B's page."""
    run = section.experiment.main
    info, git, commit, url = run.info, run.part("git"), run.commit, str(run.part("wandb").get("url") or "")
    branch = f" on {code(str(git['branch']))}" if git.get("branch") and commit else ""
    orphan = info.get("parent") and (section.against or ("", run))[0] != "parent"
    offline = "W&B: offline, `gptshake task=sync` uploads it" if run.part("wandb").get("mode") == "offline" else ""
    parts = [
        f"version {prose(str(info.get('version', 'unknown')))}",
        (f"commit {code(commit[:8])}{branch}" if commit else "unversioned") + (", with uncommitted changes" if git.get("dirty") else ""),
        f"record {code(os.path.relpath(section.experiment.folder, home))}",
        f"[W&B](<{quote(url, safe=':/?=&%.~-_')}>)" if url.startswith(("https://", "http://")) else offline,
        f"begun from {code(str(info['parent']))}, which is not among these runs" if orphan else "",
        f"reproduces {code(str(info['reproduces']))}" if info.get("reproduces") else "",
    ]
    return " · ".join(filter(None, parts))


def _changes(section: Section) -> str:
    if section.against is None:
        return ""
    what, before = section.against
    name = f"{_AGAINST[what]}, [{before.id}](#{before.id})"
    rows = [[cell(key), cell(value_text(old)), cell(value_text(new))] for key, (old, new) in section.changes.items()]
    none = f"{'But for what is swept, nothing' if section.experiment.study else 'Nothing'} that counts was changed against {name}."
    return f"Changed against {name}:\n\n{table(('key', 'was', 'is'), rows, 20)}" if rows else none


def _results(section: Section) -> str:
    """This run's results and how they compare with earlier ones: losses by their difference, the rest by its ratio."""
    ours = section.experiment.results
    if not ours["tokens"]:
        return ""

    def against(name: str, value: float | None, theirs: float | None) -> str:
        if name in LOSSES:
            return f"{value - theirs:+.4f}" if value is not None and theirs is not None else ""
        return f"{value / theirs:.2f}×" if value and theirs else ""

    own = ["" if value is None or (name in ("tokens/s", "MFU") and not value) else RESULTS[name][1](value) for name, value in ours.items()]
    rows = [[f"**{'best run' if section.experiment.is_sweep else 'this'}**", *own]]
    for what, one in section.compared.items():
        rows.append([f"to the {what}, [{one.id}](#{one.id})", *(against(name, value, one.results[name]) for name, value in ours.items())])
    if section.spread:
        mean, deviation, seeds = section.spread
        rows.append([f"{seeds} seeds", f"{mean:.4f} ± {deviation:.4f}", *[""] * (len(ours) - 1)])
    return table(["", *ours], rows)


def _settings(run: Entry) -> str:
    """The hyperparameters that people look for, in two rows one below the other, so that the table is no wider than a page."""
    config, choices, data, budget, model = run.config, *map(run.part, ("choices", "data", "budget", "model"))
    shape = [config.get(f"model.{key}") for key in ("n_layer", "n_head", "n_embd")]
    known = {
        "parameters": short_count(model["parameters"]) if model.get("parameters") else None,
        "layers × heads × width": " × ".join(map(str, shape)) if None not in shape else None,
        "context": config.get("model.block_size"),
        "tokenizer": f"{choices['tokenizer']} {data['vocab_size']}" if choices.get("tokenizer") and data.get("vocab_size") else None,
        "batch × steps": f"{config.get('data.batch_size')} × {budget['steps']:,}" if budget.get("steps") else None,
        "peak lr": value_text(config["optimizer.lr"]) if "optimizer.lr" in config else None,
        "schedule": choices.get("scheduler"),
        "optimizer": choices.get("optimizer"),
        "weight decay": config.get("optimizer.weight_decay"),
        "dropout": config.get("model.dropout"),
        "precision": config.get("trainer.precision"),
        "seed": config.get("seed"),
    }
    pairs = [(name, prose(str(value))) for name, value in known.items() if value is not None]
    half = (len(pairs) + 1) // 2
    above, below = pairs[:half], [*((f"**{name}**", value) for name, value in pairs[half:]), *[("", "")] * (len(pairs) % 2)]
    return table([name for name, _ in above], [[value for _, value in above], *map(list, zip(*below, strict=True))]) if pairs else ""


def _runs(one: Experiment, home: Path) -> list[str]:
    """What a study found, as the terminal says it, and its trials; of Hydra's basic sweeper the runs."""
    if one.study is not None:
        sentences = []
        for text in verdict(one.study, Path(os.path.relpath(one.folder, home))):
            words, gap, command = text.partition(":  ")
            sentences.append(f"- {prose(words)}: {code(command)}" if gap else f"- {prose(text)}")
        head, found = trial_table(one.study)
        rows = [[f"**{prose(text)}**" if row[0] and text else prose(text) for text in row[1:]] for row in found]
        return ["\n".join(sentences), _folded("trial", list(map(prose, head)), rows)]
    rows = []
    for run in one.runs if one.is_sweep else ():
        bpb, mark = run.summary.get("val/bpb"), "**" if run is one.main else ""
        overrides = " ".join(text for text in run.info.get("overrides") or [] if "=" in text)
        rows.append([cell(run.id), f"{mark}{run.status}{mark}", f"{bpb:.4f}" if is_number(bpb) else "", cell(overrides[-160:])])
    return [_folded("run", ("run", "status", "val/bpb", "overrides"), rows)]


def _folded(noun: str, head: Sequence[str], rows: list[list[str]]) -> str:
    return f"<details><summary>{counted(len(rows), noun)}</summary>\n\n{table(head, rows)}\n\n</details>" if rows else ""


def _samples(run: Entry) -> list[str]:
    """The first, the middle and the last text: of several prompts the last one's, and of that the first lines."""
    texts, prompts = [sample for sample in run.samples if sample.title == "sample"], run.config.get("callbacks.samples.prompts")
    shown = []
    for sample in dict.fromkeys([texts[0], texts[len(texts) // 2], texts[-1]]) if texts else ():
        parts = sample.text.split("\n---\n")
        known = isinstance(prompts, list) and len(prompts) == len(parts)
        text = re.sub(r"\n(?:[ \t]*\n)+", "\n\n", parts[-1] if known else sample.text).strip("\n")
        begin = "\n".join(text[:300].split("\n")[:8])
        wrapped = re.sub(r"([^\n]{100})(?=[^\n])", r"\1\n", begin + (" …" if begin != text else ""))
        harmless = re.sub(f"^(?={MARKER})", "    ", wrapped, flags=re.MULTILINE)
        prompt = f" from {code(repr(prompts[-1]))}" if known and prompts else ""
        shown.append(f"Written{prompt} after {short_count(sample.tokens)} tokens:\n\n{fenced(harmless)}")
    return shown
