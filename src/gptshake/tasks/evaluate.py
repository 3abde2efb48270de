"""``task=evaluate``: loss, bits per byte and per character of runs, their checkpoints, and models in GPT-2's layout, all on one text.

Draws no random numbers.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from omegaconf import DictConfig

from gptshake import hardware
from gptshake.config.overrides import recomposed
from gptshake.console import printable
from gptshake.context import Context
from gptshake.data.corpus import Corpus, Say, open_corpus, progress
from gptshake.data.split import Spans, SplitRule, whole
from gptshake.data.store import spans_of
from gptshake.data.stream import Stream, encode_documents
from gptshake.errors import ConfigError, DataError, Unreachable
from gptshake.estimate.evaluation import figures
from gptshake.estimate.formatting import short_count
from gptshake.export.hub import pinned, read_shape
from gptshake.files import expanded, sha256_text, written
from gptshake.record.index import Entry, read_entry
from gptshake.report.tables import as_json, check_targets, evaluation_csv, write_tables
from gptshake.report.tasks_text import evaluated_name, evaluation_text
from gptshake.setup.initial import pretrained_network, pretrained_tokenizer
from gptshake.setup.instantiate import chosen_runs, source_of, tokenizer_of, trained
from gptshake.tokenizer.protocol import Tokenizer, boundary
from gptshake.tokenizer.unknown import hidden_characters


class Candidate(NamedTuple):
    """What is evaluated: a run, or a model in GPT-2's layout (``hf:``)."""

    name: str
    title: str
    tokenizer: Tokenizer
    training: Callable[[], Counter[str]]  # the characters that unknown tokens hide in its training text
    networks: Sequence[tuple[int | None, Callable[[], Any]]]  # each with its step, loaded when it is asked for


class Text(NamedTuple):
    """The documents to evaluate on."""

    label: str
    split: str
    corpus: Corpus
    spans: Spans


def run(context: Context) -> None:
    """Print a table of the runs of ``task.run``, write it as CSV and JSON where asked for, and draw the loss by context.

    Raises:
        ConfigError: a stride that no run can have, a checkpoint or a split that is not there, runs without a text in common.
        DataError: there is nothing to evaluate.
        RecordError: there is no such run.
    """
    from gptshake.report.plots_tasks import draw_evaluation

    task = context.config.task
    targets = {"task.csv": task.csv, "task.json": task.json}
    aloud = check_targets(targets)
    rows = evaluate(context.config, lambda line: print(printable(line), file=sys.stdout if aloud else sys.stderr, flush=True))
    if aloud:
        print(printable(evaluation_text(rows, task.worst)))
        print(written(lambda: draw_evaluation(rows, expanded(task.folder))))
    write_tables(rows, targets, (evaluation_csv, as_json))


def evaluate(cfg: DictConfig, say: Say) -> list[dict[str, Any]]:
    """The figures of every run and checkpoint; errors as of ``run``."""
    from gptshake.training.checkpoint import checkpoints_chosen

    task, rows = cfg.task, list[dict[str, Any]]()
    chosen = [one if isinstance(one, str) else read_entry(one) for one in chosen_runs(cfg)]
    entries = [one for one in chosen if isinstance(one, Entry)]
    if task.rolling and task.stride:
        raise ConfigError("task.rolling=true has windows of its own: leave task.stride out.")
    words = [task.checkpoints] if isinstance(task.checkpoints, str | int) else task.checkpoints
    folders = {entry.path: [folder for word in words for folder in checkpoints_chosen(entry.path, str(word))] for entry in entries}
    candidates = [of_run(cfg, one, folders[one.path], say) if isinstance(one, Entry) else of_model(one) for one in chosen]
    text = chosen_text(cfg, entries, say)
    names = text.corpus.ids(text.spans)
    about = {"text": text.label, "split": text.split, "stride": task.stride, "rolling": task.rolling, "documents": len(text.spans)}
    for candidate in candidates:
        stream = encode_documents(text.corpus, text.spans, candidate.tokenizer, candidate.training, alone=task.rolling)
        for step, load in candidate.networks:
            row: dict[str, Any] = {"run": candidate.name, "step": step, "model": candidate.title}
            model = load().to(hardware.pick_device(cfg.trainer.accelerator)).eval()
            if (task.stride or 1) > (context := model.config.block_size):
                raise ConfigError(
                    f"task.stride={task.stride} is longer than the context of {candidate.name}: give it 1 to {context} tokens."
                )
            with progress(say, f"evaluating {evaluated_name(row)}", float(stream.counts["bytes"].sum())) as show:
                found = scored(model, stream, stream.windows(context, task.stride or context), show)
            found["each"] |= {"document": names, "begins": stream.beginnings}
            rows.append({**row, "context": context, **about, **found})
    return rows


def of_run(cfg: DictConfig, entry: Entry, folders: Sequence[Path], say: Say) -> Candidate:
    """A run, with these of its checkpoints."""
    from gptshake.training.checkpoint import our_state

    recompose = partial(recomposed, entry.path, [])
    tokenizer = tokenizer_of(entry.path, recompose)
    training = partial(hidden_in_training, cfg, entry, tokenizer, say)
    networks = [(our_state(folder)["steps"], lambda folder=folder: trained(entry.path, recompose, folder)[0]) for folder in folders]
    title = f"{entry.source} · {tokenizer.name} {tokenizer.vocab_size:,}"
    return Candidate(entry.id, title, tokenizer, training, networks)


def of_model(source: str) -> Candidate:
    """A model in GPT-2's layout, of a folder or the hub; of its training text nothing is known."""
    size, commit = short_count(read_shape(source).num_params()), re.findall("@([0-9a-f]{40})$", pinned(source))
    title = ", ".join([f"{size} parameters", *commit])
    return Candidate(source, title, pretrained_tokenizer(source), Counter, [(None, partial(pretrained_network, source))])


def chosen_text(cfg: DictConfig, entries: Sequence[Entry], say: Say) -> Text:
    """The documents of ``task.split`` of ``data=``, or of the text that all runs were trained on."""
    if cfg.data is None and not entries:
        raise ConfigError("A model has no text of its own here: choose the text with data=, such as data=text data.path=book.txt.")
    rule = ("split", "val_fraction", "test_fraction")
    texts = [str(entry.part("data").get("text") or entry.path) for entry in entries]  # older records lack it
    splits = {str([text, *(entry.config.get(f"data.{key}") for key in rule)]) for text, entry in zip(texts, entries, strict=True)}
    if cfg.data is None and len(splits) > 1:
        raise ConfigError("These runs were trained on different texts or splits: choose the text to compare them on with data=.")
    data = cfg.data or recomposed(entries[0].path, []).data
    named = sha256_text(json.dumps(source_of(data).fingerprint(), sort_keys=True))  # as in a record
    own = cfg.data is None or named in texts
    split = cfg.task.split if cfg.task.split != "auto" else "val" if own else "all"
    for text, entry in zip(texts, entries, strict=True):
        if text == named and (split in ("all", "train") or any(entry.config.get(f"data.{key}") != data.get(key) for key in rule)):
            say(f"note: task.split={split} holds text that {entry.id} was trained on.")
    return text_of(cfg, data, split, say)


def text_of(cfg: DictConfig, data: DictConfig, split: str, say: Say) -> Text:
    """The documents of a split, or all of them; ConfigError if there is no such split."""
    source = source_of(data)
    corpus = open_corpus(source, expanded(cfg.paths.cache), say)
    if split == "all":
        return Text(source.label, split, corpus, whole(np.arange(corpus.n_documents), corpus.characters))
    spans = spans_of(corpus, SplitRule(data.split, data.val_fraction, data.test_fraction), say)
    if split not in spans:
        raise ConfigError(f"task.split={split}: {source.label} has no such split, as its data.test_fraction is 0.")
    return Text(source.label, split, corpus, spans[split])


def hidden_in_training(cfg: DictConfig, entry: Entry, tokenizer: Tokenizer, say: Say) -> Counter[str]:
    """The characters that unknown tokens hide in a run's training text, which is read unless the record says that there are none."""
    found, known = Counter[str](), (entry.part("data").get("unknown") or {}).get("train") or {}
    if known.get("share") == 0:
        return found
    try:
        text = text_of(cfg, recomposed(entry.path, []).data, "train", say)
    except (DataError, Unreachable) as error:
        raise DataError(f"What characters that {entry.id} does not know cost is decided by its training text. {error}") from error
    for _, part in text.corpus.texts(text.spans, boundary(tokenizer)):
        found.update(hidden_characters(tokenizer, tokenizer.encode(part), part))
    return found


def scored(model: Any, stream: Stream, windows: Any, show: Callable[[int], None]) -> dict[str, Any]:
    """The figures of one network on a stream, and sums by document and by context (index 0: one token); DataError if nothing is scored."""
    from gptshake.training.evaluation import token_losses

    if not len(windows):
        raise DataError("There are no tokens to evaluate: the first one of a text has no context. Give more text, or task.rolling=true.")
    by_document, by_context = np.zeros((2, len(stream.starts))), np.zeros((2, model.config.block_size))
    for places, context, nats in token_losses(model, stream.ids, windows):
        for sums, index in ((by_document, np.searchsorted(stream.starts, places, "right") - 1), (by_context, context - 1)):
            np.add.at(sums[0], index, nats)
            np.add.at(sums[1], index, 1)
        show(int(stream.counts["bytes"].sum() * by_context[1].sum() / len(stream.ids)))
    each = {"nats": by_document[0], "tokens": by_document[1].astype(int), **stream.counts}
    sizes = {name: int(each[name].sum()) for name in ("tokens", "bytes", "characters", "words", "unknown")}
    table = {"nats": by_context[0].tolist(), "tokens": by_context[1].astype(int).tolist()}
    return sizes | figures(each) | {"by_context": table, "each": {name: values.tolist() for name, values in each.items()}}
