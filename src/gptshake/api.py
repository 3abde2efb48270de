"""The Python API, for notebooks and scripts: runs, studies and trainings as objects and DataFrames, by the code of the command line.

A training runs in a process of its own, as it would from the shell, so nothing of it stays in the caller: no signal handler, no GPU memory.
What ends it is raised as the exception that it was there. ``import gptshake`` gives all of this, and imports it when it is used.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from gptshake.config.arguments import override_value, parse
from gptshake.console import protect
from gptshake.errors import ConfigError, GptshakeError
from gptshake.estimate.formatting import counted
from gptshake.files import expanded, refuse_links
from gptshake.hardware import pick_device
from gptshake.outcome import raised, read_outcome, write_task
from gptshake.processes import Command, live_here
from gptshake.record.index import Entry, find_study, read_entry, read_index, read_study, runs_frame
from gptshake.record.metrics import COLUMNS, other_columns, read_columns
from gptshake.record.run import find_run
from gptshake.report.changes import changed_keys

if TYPE_CHECKING:
    import pandas as pd

    from gptshake.model.gpt import GPT
    from gptshake.tokenizer.protocol import Tokenizer

FOLDERS = ("runs", "multirun")  # where runs and studies lie, as in ``paths.runs`` and ``paths.multirun``
_WHOLE = ("step", "train/tokens")  # columns of whole numbers, which every row has unless the file was damaged
_COUNTS = ("train/tokens", "steps", "best/step")  # the same among the figures of runs, which some lack
_GENERATION = ("temperature", "top_k", "top_p", "repetition_penalty", "seed")


@dataclass(frozen=True)
class Run:
    """One run as it lies on the disk, at work or ended; its directory is ``path``.

    What run.json holds (``id``, ``name``, ``status``, ``summary``, ``info``) and ``config`` are read when they are first asked for, and
    again by another ``load_run``; ``metrics`` are read each time.
    """

    path: Path

    @cached_property
    def _entry(self) -> Entry:
        return read_entry(self.path)

    @property
    def id(self) -> str:
        """Eight characters, by which every task and ``load_run`` know the run."""
        return self._entry.id

    @property
    def name(self) -> str:
        """The name of its directory: when it began, what was chosen, and the id."""
        return self._entry.name

    @property
    def status(self) -> str:
        """``running``, ``ok``, ``interrupted``, ``failed`` (one that diverged, too: ``info["reason"]`` says why), ``pruned``, ``killed`` (its
        process ended without a word), or ``broken`` (run.json cannot be read)."""
        return self._entry.status

    @property
    def summary(self) -> dict[str, float]:
        """Final figures, a dict of floats: ``val/loss`` in nats per token, ``val/bpb`` in bits per byte, ``train/tokens``, ``time`` in
        seconds; of a run at work those so far."""
        return self._entry.figures

    @property
    def info(self) -> Mapping[str, Any]:
        """run.json as a mapping: ``overrides``, ``git`` (commit), ``hardware``, ``data``, ``environment``; empty if it cannot be read."""
        return self._entry.info

    @cached_property
    def config(self) -> DictConfig:
        """The whole config, as resolved: ``run.config.optimizer.lr``.

        Raises:
            RecordError: config.yaml is missing or damaged.
        """
        from gptshake.config.overrides import stored_groups

        return OmegaConf.create(stored_groups(self.path))

    @property
    def metrics(self) -> pd.DataFrame:
        """A DataFrame with a row for each step, its columns as in metrics.csv, NaN where a row has no value; empty before the first step.

            run.metrics.interpolate().plot(x="train/tokens", y=["train/loss", "val/loss"])  # joins the validations, of which most rows have none

        ``step``, ``train/tokens``, ``train/loss`` and ``val/loss`` (nats per token), ``val/bpb`` (bits per byte), ``train/lr``,
        ``train/grad_norm``, ``perf/tokens_per_s``, ``time`` (seconds since 1970), and what callbacks log.
        """
        import pandas as pd

        file = self.path / "metrics.csv"
        table = pd.DataFrame(read_columns(file, [*COLUMNS, *other_columns(file)]))
        return table.astype({name: int for name in _WHOLE if table[name].notna().all()})

    def model(self, device: str = "cpu") -> GPT:
        """The network with its best weights, in evaluation mode: token ids (B, T), int64, to logits (B, T, vocab_size), T at most the context.

            ids = torch.from_numpy(run.tokenizer().encode("The ").astype("int64"))[None]
            logits = run.model()(ids)

        Args:
            device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        Raises:
            ConfigError: there is no such device.
            CheckpointError: the run has no checkpoint yet, or only damaged ones.
            GptshakeError: the run has a network of the user's own that is not here.
        """
        return self._trained[0].to(pick_device(device, "device")).eval()

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the run: ``encode(text)`` gives a NumPy array of ids, ``decode(ids)`` the text; ``vocab_size``, ``eot_id``."""
        from gptshake.setup.instantiate import tokenizer_of

        return tokenizer_of(self.path, self._recomposed)

    def generate(self, prompt: str = "", n_tokens: int = 200, *, stop: str | Sequence[str] = (), echo: bool = True, **options: Any) -> str:
        """The prompt and its continuation, drawn on the device that ``model`` chose last.

        Args:
            prompt: text to continue, of any length; empty: a new text begins.
            n_tokens: most tokens that are generated; beyond the context the text goes on with the last half of it.
            stop: text, or texts, at which the continuation ends; they are left out.
            echo: whether the prompt comes first.
            options: ``temperature`` (1.0; 0 takes the likeliest token), ``top_k`` (None: all tokens), ``top_p`` (None; else above 0 and at
                most 1), ``repetition_penalty`` (1.0: none), ``seed`` (0; the same seed gives the same text).
        Raises:
            ConfigError: an unknown option, or one out of its range.
            CheckpointError: the run has no checkpoint yet.
        """
        from gptshake.training.sampling import continuation

        if unknown := [name for name in options if name not in _GENERATION]:
            raise ConfigError(f"generate() has no option {unknown[0]}: it has n_tokens, stop, echo, {', '.join(_GENERATION)}.")

        model, tokenizer = self._trained
        texts = [stop] if isinstance(stop, str) else stop or ()
        return "".join(continuation(model, tokenizer, prompt or "", n_tokens=n_tokens, stop=texts, echo=echo, **options))

    def export(self, to: str = "hf", folder: str | Path | None = None) -> Path:
        """Write the best weights and the tokenizer for another program, as ``task=export`` does, and check what was written where it is installed.

        Args:
            to: ``hf`` (transformers), ``gguf`` (llama.cpp), ``onnx`` or ``torch_export``.
            folder: is made; None: ``export/<to>`` in the run directory.
        Returns:
            The folder.
        Raises:
            ConfigError: the folder is there already, or the format cannot express the network or the tokenizer.
        """
        from gptshake.tasks.export import export

        compose(["task=export", f"task.to={override_value(to)}"])  # refuses a format that there is not
        return export(self.path, to, expanded(folder) if folder else None, self._recomposed)[0]

    @cached_property
    def _trained(self) -> tuple[GPT, Tokenizer]:
        from gptshake.setup.instantiate import trained

        return trained(self.path, self._recomposed)

    def _recomposed(self) -> DictConfig:
        from gptshake.config.overrides import recomposed

        return recomposed(self.path, [])


@dataclass(frozen=True)
class Study:
    """A sweep as it lies on the disk; properties are read when they are first asked for."""

    path: Path

    @property
    def name(self) -> str:
        """The name of its directory, by which ``load_study`` knows it."""
        return self.path.name

    @cached_property
    def info(self) -> dict[str, Any]:
        """study.json: axes, trials with their runs, confirmation."""
        return read_study(self.path)

    @property
    def trials(self) -> pd.DataFrame:
        """A DataFrame with a row for each trial, those at work included, NaN where one has no value yet; of an ablation one for each change.

        ``trial`` (its number), ``state``, its parameters by their keys, the objective by its name such as ``val/bpb`` (mean over seeds),
        ``tokens_per_s``, ``seconds``, ``reason`` and ``best``; of an ablation ``change``, the objective, its mean ``difference`` to the base
        with the standard ``error``, ``percent``, ``speed`` (times that of the base), ``seeds`` and ``verdict``.
        """
        import pandas as pd

        from gptshake.report.tables import study_table

        head, rows = study_table(self.info)
        texts = {"trial", "state", "reason", "best", "change", "seeds", "verdict", *(axis["key"].lstrip("+") for axis in self.info["axes"])}
        return pd.DataFrame(rows, columns=head).astype(dict.fromkeys(set(head) - texts, float))

    @property
    def best(self) -> dict[str, Any]:
        """Parameters of the best trial by their keys, its objective (``value``, in the unit of ``trials``), and its ``number``, as a dict.

        Raises:
            GptshakeError: no trial has finished.
        """
        from gptshake.report.study_stats import best

        if (found := best(self.info)) is None:
            raise GptshakeError(f"No trial of {self.name} has finished with a value.")
        params = {key.lstrip("+"): value for key, value in found.trial["params"].items()}
        return {**params, "value": found.value, "number": found.trial["number"]}

    @property
    def interval(self) -> tuple[float, float] | None:
        """Ends of the near-optimal interval on the first axis of numbers, the learning rate if it was swept; None: too few points."""
        from gptshake.report.study_stats import interval_ends, near_optimal, scales

        for scale in scales(self.info)[:1]:
            if found := near_optimal(self.info, scale):
                return interval_ends(self.info, scale, found)
        return None

    def run(self, number: int | None = None) -> Run:
        """The first run of a trial, by default of the best one.

        Raises:
            ConfigError: there is no such trial, or it has not begun.
            GptshakeError: no trial has finished, and no number was given.
        """
        wanted = self.best["number"] if number is None else number
        paths = [run["path"] for trial in self.info["trials"] if trial["number"] == wanted for run in trial["runs"]]
        if not paths:
            raise ConfigError(f"{self.name} has no trial {wanted} that has begun; it has {counted(len(self.info['trials']), 'trial')}.")
        return Run(self.path / paths[0])


def load_run(name: str | Path | Run, *, folders: str | Path | Sequence[str | Path] = FOLDERS) -> Run:
    """A run by its id, name, path or ``latest`` (the one begun last), at work or ended.

    Args:
        name: of the run; its path is enough without ``folders``. A ``Run`` is read again.
        folders: of runs and of studies, one or several.
    Raises:
        RecordError: there is no such run; names the nearest.
    """
    path = find_run(name.path if isinstance(name, Run) else name, _roots(folders)).absolute()  # the caller may go to another directory
    refuse_links(path)
    return Run(path)


def runs(filter: str = "", *, folders: str | Path | Sequence[str | Path] = FOLDERS) -> pd.DataFrame:
    """All runs, the newest first, a row for each: what the record says, options, figures, and the config by dotted keys.

    ``id``, ``name``, ``status``, ``started`` (a time in UTC), ``task``, ``study``, ``note``, ``reason``, ``path``; the option of each group, such
    as ``model``; the figures of ``Run.summary``, such as ``val/bpb`` and ``time`` (seconds); ``optimizer.lr`` and the other keys.

    Args:
        filter: as of ``task=runs``: words, and comparisons such as ``"wiki status=ok optimizer.lr>1e-3"``.
        folders: of runs and of studies, one or several.
    Raises:
        ConfigError: a comparison with a key that no run has.
    """
    import pandas as pd

    from gptshake.report.runs_table import select

    table = runs_frame(select(read_index([root.absolute() for root in _roots(folders)]), filter)).infer_objects()
    table["started"] = pd.to_datetime(table["started"], utc=True)
    counts = {name: table[name].convert_dtypes() for name in _COUNTS if name in table}  # Int64 unless a damaged record has half a step
    return table.assign(**counts)


def load_study(name: str | Path, *, folder: str | Path = FOLDERS[1]) -> Study:
    """A study by its name, path or ``latest`` (the one begun last); the column ``study`` of ``runs()`` has the names.

    Raises:
        RecordError: there is no such study; names the nearest.
    """
    path = find_study(str(name), expanded(folder)).absolute()
    refuse_links(path)
    return Study(path)


def compare(names: Sequence[str | Path | Run], *, folders: str | Path | Sequence[str | Path] = FOLDERS) -> pd.DataFrame:
    """What differs between runs, a column for each: config keys that can change a result, then figures.

    Args:
        names: ids, names, paths or ``Run`` objects: ``compare([run, "latest"])``.
        folders: of runs and of studies, one or several.
    Raises:
        RecordError: there is no such run; names the nearest.
    """
    if isinstance(names, str | Path | Run):
        raise ConfigError("compare() takes a list of runs, as in compare([run, 'latest']).")
    found = [one if isinstance(one, Run) else load_run(one, folders=folders) for one in names]
    entries = [read_entry(run.path) for run in found]
    keys = dict.fromkeys(key for entry in entries[1:] for key in changed_keys(entries[0].config, entry.config))
    keys |= dict.fromkeys(name for entry in entries for name in entry.figures)
    table = runs_frame(entries).set_axis([entry.id for entry in entries]).T
    return table.loc[[key for key in keys if key in table.index]]


def evaluate(overrides: Sequence[str]) -> pd.DataFrame:
    """The table of ``task=evaluate`` with these overrides: ``evaluate(["task.run=[<run>,hf:gpt2]", "data=text", "data.path=book.txt"])``.

    A row for each run and checkpoint: ``run``, ``step``, ``loss`` (nats per token), ``perplexity``, ``bpb`` and ``bpc`` (bits per byte and per
    character), their standard errors over documents (``loss_error``, ...; NaN with one document), and the text with its sizes. Other keys:
    ``task.checkpoints=all``, ``task.split=val``, ``task.stride=64``, ``task.rolling=true``. Without ``data=`` the text is that of the runs.

    Raises:
        ConfigError: no run was named, or an option cannot be.
        DataError: there are no tokens to evaluate.
        RecordError: there is no such run; names the nearest.
    """
    import pandas as pd

    from gptshake.tasks.evaluate import evaluate

    table = pd.DataFrame(evaluate(compose(["task=evaluate", *_listed(overrides)]), lambda line: None))
    errors = [name for name in table if name.endswith("_error")]
    return table.astype({"step": "Int64", "stride": "Int64", **dict.fromkeys(errors, float)}).drop(columns=["by_context", "each"])


def compose(overrides: Sequence[str]) -> DictConfig:
    """The config that these overrides give, checked as the command line checks it: ``compose(["model=tiny", "data=wiki_char"])``.

    Its values may be changed before it is given to ``train``; a key or a type that does not fit raises OmegaConf's error there and then. What
    was typed is under ``hydra.overrides.task``.

    Raises:
        ConfigError: an unknown option or key, or a value that does not fit; names the nearest.
    """
    from gptshake.cli import checked_config

    cfg = checked_config(parse(_listed(overrides)))
    OmegaConf.set_struct(cfg, None)
    cfg.hydra = {"overrides": {"task": list(overrides)}}
    OmegaConf.set_struct(cfg, True)
    return cfg


def train(config: DictConfig | Sequence[str], *, quiet: bool = False) -> Run:
    """Train as ``python -m gptshake`` does, record included, and give the finished run.

    In a git repository uncommitted changes of source or config are refused, unless ``"--dirty"`` is among the overrides. An
    interruption of the notebook's cell stops it in order: the last step is saved, and ``train(["resume=<id>"])`` continues.

    Args:
        config: from ``compose``, or overrides.
        quiet: print nothing of the run.
    Raises:
        GptshakeError: what ended it, by its class: ``ConfigError``, ``DataError``, ``TrainingError``, ...
    """
    overrides = _changed(config) if isinstance(config, DictConfig) else _listed(config)
    with TemporaryDirectory(prefix="gptshake-") as folder:
        write_task(Path(folder), overrides)
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        pipes |= {"encoding": "utf-8", "errors": "replace"}
        process = Command([sys.executable, "-m", "gptshake.api", folder], {"PYTHONIOENCODING": "utf-8"}, **pipes).process
        try:
            for line in process.stdout or ():
                print(line if not quiet else "", end="")
            process.wait()
        except BaseException:
            print(process.communicate()[0], end="")  # it closes the child's standard input, which stops it in order
            raise
        outcome = read_outcome(Path(folder))
    if outcome is None or outcome.status == "stopped":
        raise GptshakeError(f"The training was ended from outside ({outcome.reason if outcome else 'killed'}); resume= continues it.")
    if outcome.status != "ok":
        raise raised(outcome)
    return Run(Path(outcome.value))


def _roots(folders: str | Path | Sequence[str | Path]) -> list[Path]:
    return [expanded(folder) for folder in ([folders] if isinstance(folders, str | Path) else folders)]


def _listed(overrides: Sequence[str]) -> list[str]:
    if isinstance(overrides, str) or not all(isinstance(text, str) for text in overrides):
        raise ConfigError('Overrides are a list of texts, as in ["model=tiny", "data=wiki_char"].')
    return list(overrides)


def _changed(config: DictConfig) -> list[str]:
    """The overrides of a config from ``compose``, and those that say what was changed in it since."""
    typed: Any = OmegaConf.select(config, "hydra.overrides.task")
    if typed is None:
        raise ConfigError("This config does not say which overrides it was made of: take one from gptshake.compose([...]).")
    overrides = [str(text) for text in typed]
    before, now = (OmegaConf.to_container(one, resolve=False) for one in (compose(overrides), config))
    return overrides + _differences(before, now)


def _differences(before: Any, now: Any, prefix: str = "") -> list[str]:
    """What was changed in a config, as overrides."""
    found = list[str]()
    for key in {**before, **now}:
        name, old, new = f"{prefix}{key}", before.get(key), now.get(key)
        if key not in now:
            found.append(f"~{name}")
        elif isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{name}.")
        elif isinstance(new, dict):
            raise ConfigError(f"{name} was replaced by a mapping: choose its option in compose([...]) and change single values.")
        elif old != new:
            found.append(f"{'' if key in before else '+'}{name}={override_value(new)}")
    return found


def _train(overrides: list[str]) -> str:
    """In the process of a training."""
    from gptshake.cli import checked_config, run
    from gptshake.config.overrides import typed_value
    from gptshake.config.validate import trains

    protect()
    threading.Thread(target=_stop_with_caller, daemon=True).start()
    arguments = parse(overrides)
    if arguments.multirun or arguments.shows_only or arguments.help or arguments.version:
        raise ConfigError(
            "train() makes one run and takes no flag but --dirty: sweeps run from the shell (-m), and load_study() reads what they found."
        )
    not_here = ConfigError("train() trains: leave task= out.")
    if typed_value(overrides, "task") and not trains(checked_config(parse(overrides))):  # before it does anything
        raise not_here
    if (path := run(arguments)) is None:
        raise not_here
    return str(path.absolute())


def _stop_with_caller() -> None:
    """The caller writes nothing: the end of the standard input is its own, or its request to stop."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    live_here(_train, Path(sys.argv[1]))
