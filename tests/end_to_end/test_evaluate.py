"""``task=evaluate`` as it is typed, against the run's own validation and a computation of its own in fp64."""

import csv
import io
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gptshake

WHOLE = ("trainer.limit_val_batches=null", "data.test_fraction=0.1", "data.val_fraction=0.1")


@pytest.fixture(scope="module")
def runs(commands: Any, small: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs on one text: one with characters, one with bytes."""
    folder = tmp_path_factory.mktemp("evaluate")
    for name, more in {"characters": (), "bytes": ("tokenizer=byte",)}.items():
        done = commands(folder, *small, *WHOLE, *more, f"paths.run_dir=runs/{name}")
        assert done.code == 0, done.err
    pages = folder / "pages"
    pages.mkdir()
    for number in range(4):
        (pages / f"{number}.txt").write_text(
            f"the words of page {number}: " + "that was not but what " * (1 + number) + "Würde\n", encoding="utf-8"
        )
    return folder


def evaluated(commands: Any, folder: Path, *argv: str) -> list[dict[str, Any]]:
    done = commands(folder, "task=evaluate", "trainer=cpu", "task.json=out.json", *argv)
    assert done.code == 0 and done.err == "", done.err
    found: list[dict[str, Any]] = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    return found


def losses(run: Any, ids: list[int], stride: int) -> list[float]:
    """Nats of all ids but the first, each from its own window, in fp64."""
    import torch

    model, size = run.model().double(), 16
    found = []
    for target in range(1, len(ids)):
        window = max(0, -(-(target - size) // stride))  # the first window that reaches it
        with torch.no_grad():
            logits = model(torch.tensor([ids[window * stride : target]]))[0, -1]
        found.append(-logits.log_softmax(-1)[ids[target]].item())
    return found


def test_a_run_s_own_validation_split_has_the_loss_that_the_run_recorded(commands: Any, runs: Path) -> None:
    (row,) = evaluated(commands, runs, "task.run=characters")
    best = gptshake.load_run("characters", folders=[runs / "runs"]).summary
    assert row["split"] == "val" and row["step"] == best["best/step"]
    assert row["loss"] == pytest.approx(best["best/val/loss"], rel=1e-6) and row["bpb"] == pytest.approx(best["best/val/bpb"], rel=1e-6)
    (test,) = evaluated(commands, runs, "task.run=characters", "task.split=test")
    assert test["bpb"] == pytest.approx(best["test/bpb"], rel=1e-6)


@pytest.mark.parametrize("stride", [16, 5])
def test_figures_on_another_text_are_those_of_an_independent_computation(commands: Any, runs: Path, stride: int) -> None:
    found = evaluated(commands, runs, "task.run=[characters,bytes]", "data=text", "data.path=pages", f"task.stride={stride}")
    texts = [file.read_text(encoding="utf-8") for file in sorted((runs / "pages").iterdir())]
    for row in found:
        run = gptshake.load_run(row["run"], folders=[runs / "runs"])
        tokenizer = run.tokenizer()
        ids = [tokenizer.encode(text).tolist() for text in texts]
        stream = [token for one in ids for token in [*one, tokenizer.eot_id]][:-1]
        nats = losses(run, stream, stride)
        n_bytes = len("".join(texts).encode()) - 1
        unknown = sum(one.count(tokenizer.unk_id) for one in ids)  # no character of theirs is in the training text
        charged = sum(nats) + unknown * math.log(1_114_112)
        assert row["split"] == "all" and row["documents"] == 4 and row["tokens"] == len(nats) and row["bytes"] == n_bytes
        assert row["loss"] == pytest.approx(np.mean(nats), rel=1e-6)
        assert row["bpb"] == pytest.approx(charged / math.log(2) / n_bytes, rel=1e-6)
        assert unknown == row["unknown"] and (unknown > 0) == (row["run"] == found[0]["run"])
        lengths = [len(one) + 1 for one in ids]
        lengths[0], lengths[-1] = lengths[0] - 1, lengths[-1] - 1
        parts = np.split(np.array(nats), np.cumsum(lengths)[:-1])
        assert [part.sum() for part in parts] == pytest.approx(row["each"]["nats"], rel=1e-6)
        residuals = [part.sum() - row["loss"] * len(part) for part in parts]
        assert row["loss_error"] == pytest.approx(math.sqrt(4 / 3 * sum(one**2 for one in residuals)) / len(nats), rel=1e-6)


def test_runs_and_checkpoints_are_in_one_table_and_one_picture_and_the_worst_documents_are_named(commands: Any, runs: Path) -> None:
    argv = ("task=evaluate", "trainer=cpu", "task.run=[characters,bytes]", "task.checkpoints=all", "data=text", "data.path=pages")
    done = commands(runs, *argv, "task.worst=2", "task.csv=out.csv")
    assert done.code == 0 and done.err == "", done.err
    table = list(csv.DictReader(io.StringIO((runs / "out.csv").read_text(encoding="utf-8"))))
    steps = {
        name: [int(folder.name[5:]) for folder in sorted((runs / "runs" / name / "checkpoints").iterdir())]
        for name in ("characters", "bytes")
    }
    assert [int(row["step"]) for row in table] == [*steps["characters"], *steps["bytes"]] and len(table) >= 4
    assert len({row["bytes"] for row in table}) == 1
    for row in table:
        assert f"{float(row['bpb']):.4f}" in done.out and f"{float(row['loss_error']):.4f}" in done.out
    assert "pages, all documents" in done.out and "0.txt" in done.out
    lines = "-".join(f"{row['run']}-{row['step']}" for row in table)
    (picture,) = (runs / "evaluations").glob(f"pages-all-{lines}.png")
    assert picture.name in done.out and "\x1b" not in done.out
    only = commands(runs, *argv[:3], "task.csv=-")
    assert only.out.startswith("run,step,") and len(only.out.splitlines()) == 3


def test_the_text_of_a_run_is_known_when_it_is_named_and_training_text_is_pointed_out(commands: Any, runs: Path, book: Path) -> None:
    own = ("data=text", f"data.path={book}", *WHOLE[1:])
    assert evaluated(commands, runs, "task.run=characters", *own) == evaluated(commands, runs, "task.run=characters")
    for argv in (["task.split=train"], [*own[:2], "data.val_fraction=0.3"]):
        done = commands(runs, "task=evaluate", "task.run=characters", *argv)
        assert done.code == 0 and re.search("holds text that .* was trained on", done.out)
    assert "note" not in commands(runs, "task=evaluate", "task.run=characters", *own).out


def test_a_text_that_utf_8_cannot_say_is_evaluated_and_written(commands: Any, runs: Path) -> None:
    (runs / "torn.jsonl").write_text('{"text": "a torn \\ud800 text"}\n{"text": "\\udfff\\u001b[31m"}\n')
    (row,) = evaluated(commands, runs, "task.run=bytes", "data=text", "data.path=torn.jsonl")
    assert row["bytes"] == len("a torn ??? text???\x1b[31m") - 1 and row["each"]["document"] == ["torn.jsonl:1", "torn.jsonl:2"]


def test_the_python_api_gives_the_same_table(commands: Any, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = evaluated(commands, runs, "task.run=[characters,bytes]", "task.rolling=true")
    monkeypatch.chdir(runs)
    table = gptshake.evaluate(["task.run=[characters,bytes]", "task.rolling=true", "trainer=cpu"])
    assert table["bpb"].tolist() == [row["bpb"] for row in rows]
    assert [one.rsplit(" · ", 1)[1].split()[0] for one in table["model"]] == ["char", "byte"]  # rows differ in their tokenizers
    (runs / "one.txt").write_text("the only document")
    alone = gptshake.evaluate(["task.run=characters", "data=text", "data.path=one.txt", "trainer=cpu"])
    assert alone["loss_error"].dtype == float and alone["loss_error"].isna().all() and alone["stride"].dtype == "Int64"


def test_a_model_of_a_folder_is_beside_runs_in_the_table_and_writes_without_one(
    commands: Any, runs: Path, book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export has the figures and the text of its run, whatever its tokenizer."""
    for name in ("characters", "bytes"):
        done = commands(runs, "task=export", f"task.run={name}", f"task.folder=exported-{name}")
        assert done.code == 0, done.err
    names = "task.run=[hf:exported-characters,characters,hf:exported-bytes,bytes]"
    done = commands(runs, "task=evaluate", names, "data=text", f"data.path={book}", "task.split=val", "trainer=cpu", "task.json=out.json")
    assert done.code == 0, done.err
    rows = json.loads((runs / "out.json").read_text(encoding="utf-8"))
    for model, run in (rows[:2], rows[2:]):
        assert model["run"].startswith("hf:exported-") and model["step"] is None and model["model"].endswith("parameters")
        assert model["bpb"] == run["bpb"] and model["by_context"] == run["by_context"] and model["model"] in done.out
    monkeypatch.chdir(runs)
    table = gptshake.evaluate([names, "data=text", f"data.path={book}", "task.split=val", "trainer=cpu"])
    assert table["step"].isna().tolist() == [True, False, True, False] and table["bpb"].tolist() == [row["bpb"] for row in rows]
    texts = [commands(runs, "task=sample", f"task.run={name}", "task.n_tokens=40").out for name in ("hf:exported-bytes", "bytes")]
    assert texts[0] == texts[1] and len(texts[0]) > 20
    sentences = {
        ("task.run=hf:exported-bytes",): (2, "choose the text with data="),
        ("task.run=[bytes,hf:nosuch]",): (1, "hf:nosuch is no folder"),
        ("task.run=[bytes,characters,runs/bytes]",): (2, "task.run names one run twice: runs/bytes is runs/bytes, which was named before"),
        ("task=export", "task.run=hf:exported-bytes"): (2, "task=evaluate, task=sample and init_from= take it"),
    }
    for argv, expected in sentences.items():
        done = commands(runs, "task=evaluate", *argv)
        assert (done.code, expected[1] in done.error) == (expected[0], True) and done.out == "", done.error


MISTAKES = {
    (): "Choose a run",
    ("task.run=hf:runs", "data=text", "data.path=pages"): "hf:runs: its config.json cannot be read",
    ("task.run=nosuch",): "no run 'nosuch'",
    ("task.run=characters", "task.checkpoints=7"): "has no checkpoint 7",
    ("task.run=characters", "task.stride=17"): "longer than the context",
    ("task.run=characters", "task.stride=0"): "task.stride=0 cannot work",
    ("task.run=characters", "task.stride=4", "task.rolling=true"): "leave task.stride out",
    ("task.run=characters", "task.split=dev"): "task.split=dev is not known",
    ("task.run=characters", "data=text", "data.path=nowhere.txt"): "does not exist",
    ("task.run=characters", "data=text", "data.path=empty.txt"): "There is no text in empty",
    ("task.run=characters", "data=text", "data.path=one.txt"): "no tokens to evaluate",
    ("task.run=characters", "data=text", "data.path=pages", "data.test_fraction=0", "task.split=test"): "has no such split",
    ("task.run=characters", "task.csv=-", "task.json=-"): "both go to the standard output",
}


@pytest.mark.parametrize("argv", MISTAKES)
def test_a_mistake_is_one_sentence(commands: Any, runs: Path, argv: tuple[str, ...]) -> None:
    (runs / "empty.txt").write_text("")
    (runs / "one.txt").write_text("x")
    done = commands(runs, "task=evaluate", "trainer=cpu", *argv)
    assert done.code == 2 and MISTAKES[argv] in done.error and len(done.error.splitlines()) == 1


def test_runs_without_a_text_in_common_are_not_compared_on_one_of_theirs(commands: Any, runs: Path, small: tuple[str, ...]) -> None:
    done = commands(
        runs, *small, "data.path=pages", "paths.run_dir=runs/pages", "trainer.max_steps=1", "data.val_fraction=0.4", "data.split=position"
    )
    assert done.code == 0, done.err
    done = commands(runs, "task=evaluate", "task.run=[characters,pages]")
    assert done.code == 2 and "choose the text to compare them on with data=" in done.error


def test_a_training_text_that_is_gone_matters_only_where_unknown_characters_have_a_price(
    commands: Any, runs: Path, small: tuple[str, ...], the_run: Callable[[Path], Any], tmp_path: Path
) -> None:
    (tmp_path / "old.txt").write_text("of the and to in a is that " * 200 + "q水", encoding="utf-8")
    options = [text for text in small if not text.startswith("data.path")]
    done = commands(tmp_path, *options, "data.path=old.txt", "tokenizer.vocab_size=12", GPTSHAKE_CACHE=str(tmp_path / "cache"))
    assert done.code == 0, done.err
    (tmp_path / "old.txt").unlink()
    (tmp_path / "new.txt").write_text("that " * 80, encoding="utf-8")
    argv = ("task=evaluate", "task.run=latest", "data=text", "data.path=new.txt")
    assert commands(tmp_path, *argv, GPTSHAKE_CACHE=str(tmp_path / "other")).code == 0
    (tmp_path / "new.txt").write_text("that 水" * 20, encoding="utf-8")
    done = commands(tmp_path, *argv, GPTSHAKE_CACHE=str(tmp_path / "other"))
    assert done.code == 2 and "decided by its training text" in done.err and "old.txt does not exist" in done.err
