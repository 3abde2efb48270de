"""A section of the journal as Markdown that a forge shows well and that people can read as it is.

Foreign text (notes, names, overrides, reasons, what a model wrote) cannot become HTML, a heading, a link, a cell of a table, or one of
the journal's own markers, and characters that have no shape of their own are written out.
"""

import os
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from gptshake.console import visible
from gptshake.estimate.formatting import counted, duration, short_count
from gptshake.record.index import Entry, is_number
from gptshake.record.texts import read_notes
from gptshake.report.changes import value_text
from gptshake.report.journal.experiments import LOSSES, Experiment, Problem, Section, commit_of
from gptshake.report.study_text import trial_table, verdict

MARKER = r" {0,3}<!--[ \t]*gptshake[ \t]*:"  # begins whatever could be taken for one of the journal's own markers
_SPECIAL = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|!(?=\[)")
_STARTS = re.compile(r"^([-+#=]|\d+(?=[.)]))")  # a list, a heading, a rule
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_LONGEST = 4000  # letters of a note
_SHOWN: dict[str, Callable[[float], str]] = {
    **dict.fromkeys(LOSSES, "{:.4f}".format),
    **{"tokens": short_count, "time": duration, "tokens/s": short_count, "MFU": lambda share: f"{100 * share:.1f} %"},
}
_AGAINST = {"parent": "the run it began from", "original": "the run it repeats", "previous": "the entry before"}


def entry(section: Section, pictures: Sequence[tuple[str, Path]], home: Path) -> str:
    """The Markdown between the markers of one entry, with pictures (what each shows, where it lies), seen from the journal's folder."""
    one, run = section.experiment, section.experiment.main
    notes = sorted(note for folder in dict.fromkeys([one.folder, *(run.path for run in one.runs)]) for note in read_notes(folder))
    commits = [f"- {item(subject)}" for subject in section.commits]
    more = [f"- and {len(commits) - 12} more"] if len(commits) > 12 else []
    parts = [
        f'<a id="{one.id}"></a>',
        f"## {prose(_date(one))} · {prose(section.title)}",
        f"**Verdict:** {prose(section.verdict)}",
        f"**Why:** {prose(run.note)}" if run.note else "",
        "\n".join(f"- {datetime.fromtimestamp(note.time, UTC):%Y-%m-%d}: {prose(note.text)}" for note in notes),
        _provenance(section, home),
        "\n".join(["Commits since the entry before:", "", *commits[:12], *more]) if commits else "",
        _changes(section),
        _results(section),
        *(f"![{prose(what)}]({quote(os.path.relpath(path, home))})" for what, path in pictures),
        _settings(run),
        _findings(run),
        *(_study(one, home) if one.study is not None else [_runs(one)]),
        *_samples(run),
    ]
    return "\n\n".join(filter(None, parts))


def unreadable(problems: Sequence[Problem], home: Path) -> str:
    """The list of records that cannot be read; empty if all can."""
    lines = [f"- {code(os.path.relpath(path, home))}: {prose(why)}" for path, why in problems]
    return "\n".join(["## Records that cannot be read", "", *lines]) if lines else ""


def _date(experiment: Experiment) -> str:
    """Day and time on the clock of the machine that ran it, as the run's name has them; else UTC."""
    named = [found.groups() for run in experiment.runs if (found := re.match(r"(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)-", run.name))]
    return "{}-{}-{} {}:{}".format(*min(named)) if named else f"{datetime.fromtimestamp(experiment.started, UTC):%Y-%m-%d %H:%M} UTC"


def _provenance(section: Section, home: Path) -> str:
    """Version, commit, where the record lies, what it began from, and W&B's page."""
    run = section.experiment.main
    info, git, commit, wandb = run.info, run.part("git"), commit_of(run), run.part("wandb")
    branch = f" on {code(str(git['branch']))}" if git.get("branch") and commit else ""
    where = f"commit {code(commit[:8])}{branch}" if commit else "unversioned"
    dirty = ", with uncommitted changes" if git.get("dirty") else ""
    record = f"record {code(os.path.relpath(section.experiment.folder, home))}"
    parts = [f"version {prose(str(info.get('version', 'unknown')))}", f"{where}{dirty}", record]
    url = str(wandb.get("url") or "")
    if url.startswith(("https://", "http://")):
        parts.append(f"[W&B](<{quote(url, safe=':/?=&%.~-_')}>)")
    elif wandb.get("mode") == "offline":
        parts.append("W&B: offline, `gptshake task=sync` uploads it")
    if info.get("parent") and (section.against is None or section.against.what != "parent"):
        parts.append(f"begun from {code(str(info['parent']))}, which is not among these runs")
    if info.get("reproduces"):
        parts.append(f"reproduces {code(str(info['reproduces']))}")
    return " · ".join(parts)


def _changes(section: Section) -> str:
    if section.against is None:
        return ""
    name = f"{_AGAINST[section.against.what]}, [{section.against.id}](#{section.against.id})"
    if not section.changes:
        return f"{'But for what is swept, nothing' if section.experiment.study else 'Nothing'} that counts was changed against {name}."
    rows = [[cell(key), cell(value_text(old)), cell(value_text(new))] for key, (old, new) in section.changes.items()]
    return f"Changed against {name}:\n\n{_table(('key', 'was', 'is'), rows, 20)}"


def _results(section: Section) -> str:
    """This run's results and how they compare with earlier ones: losses by their difference, the rest by its ratio."""
    ours = section.experiment.results
    if not ours["tokens"]:
        return ""
    own = ["" if value is None or (name in ("tokens/s", "MFU") and not value) else _SHOWN[name](value) for name, value in ours.items()]
    rows = [[f"**{'best run' if section.experiment.is_sweep else 'this'}**", *own]]
    for other in section.compared:
        cells = []
        for name, value in ours.items():
            theirs = other.results[name]
            if value is None or theirs is None:
                cells.append("")
            else:
                cells.append(f"{value - theirs:+.4f}" if name in LOSSES else f"{value / theirs:.2f}×" if value and theirs else "")
        rows.append([f"to the {other.what}, [{other.id}](#{other.id})", *cells])
    if section.spread:
        mean, deviation, seeds = section.spread
        rows.append([f"{seeds} seeds", f"{mean:.4f} ± {deviation:.4f}", *[""] * (len(ours) - 1)])
    return _table(["", *ours], rows)


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
    return _table([name for name, _ in above], [[value for _, value in above], *map(list, zip(*below, strict=True))]) if pairs else ""


def _findings(run: Entry) -> str:
    """What another task than training found: the plain values that it keeps under its own name."""
    found = run.part(str(run.info.get("task")))
    cells = {prose(str(key)): cell(value_text(value)) for key, value in found.items() if is_number(value) or isinstance(value, str)}
    return _table(list(cells), [list(cells.values())]) if cells else ""


def _study(experiment: Experiment, home: Path) -> list[str]:
    """What the study found, as the terminal says it, and its trials."""
    study, sentences = experiment.study or {}, []
    for text in verdict(study, Path(os.path.relpath(experiment.folder, home))):
        words, gap, command = text.partition(":  ")
        sentences.append(f"- {item(words)}: {code(command)}" if gap else f"- {item(text)}")
    head, rows = trial_table(study)
    cells = [[f"**{prose(text)}**" if row[0] and text else prose(text) for text in row[1:]] for row in rows]
    return ["\n".join(sentences), _folded("trial", list(map(prose, head)), cells)]


def _runs(experiment: Experiment) -> str:
    """The runs of Hydra's basic sweeper."""
    rows = []
    for run in experiment.runs if experiment.is_sweep else ():
        bpb, mark = run.summary.get("val/bpb"), "**" if run is experiment.main else ""
        overrides = " ".join(text for text in run.info.get("overrides") or [] if "=" in text)
        rows.append([cell(run.id), f"{mark}{run.status}{mark}", f"{bpb:.4f}" if is_number(bpb) else "", cell(overrides[-160:])])
    return _folded("run", ("run", "status", "val/bpb", "overrides"), rows)


def _folded(noun: str, head: Sequence[str], rows: list[list[str]]) -> str:
    return f"<details><summary>{counted(len(rows), noun)}</summary>\n\n{_table(head, rows)}\n\n</details>" if rows else ""


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
        prompt = f" from {code(repr(prompts[-1]))}" if known and prompts else ""
        shown.append(f"Written{prompt} after {short_count(sample.tokens)} tokens:\n\n{fenced(wrapped)}")
    return shown


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], most: int = 24) -> str:
    """A table of cells that are Markdown already; columns without any cell are left out."""
    used = [column for column in range(len(head)) if any(row[column] for row in rows[:most])]
    lines = [[head[column] for column in used], ["---"] * len(used), *([row[column] for column in used] for row in rows[:most])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + (f"\n\n… and {len(rows) - most} more." if len(rows) > most else "")


def prose(text: str) -> str:
    """A text as one line of Markdown that reads as it is."""
    line = _SPECIAL.sub(lambda found: f"\\{found[0]}", _line(text))
    return re.sub("[&<>]", lambda found: _HTML[found[0]], line)


def item(text: str) -> str:
    """The same where a line begins with the text, as in a list."""
    return _STARTS.sub(lambda found: f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}", prose(text))


def code(text: str) -> str:
    """A text as a code span of one line."""
    line = _line(text) or " "
    ticks, pad = "`" * (_longest_run(line) + 1), " " if "`" in line else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def cell(text: str) -> str:
    """A code span in a table, whose rows even code may not divide."""
    return code(text).replace("|", "\\|")


def fenced(text: str) -> str:
    """A text of several lines as a block in a fence that is longer than any run of backticks in it."""
    fence = "`" * max(3, _longest_run(text) + 1)
    lines = [f"    {line}" if re.match(MARKER, line) else line for line in visible(text, "\n\t").split("\n")]
    return "\n".join([f"{fence}text", *lines, fence])


def _line(text: str) -> str:
    return visible(" ".join(text[: _LONGEST + 1].split()) + (" …" if len(text) > _LONGEST else ""))


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
