"""Records that an earlier version wrote can be resumed, reported, compared, listed, reproduced, sampled and told of.

``tests/old_records/records.tar.xz`` holds them, ``make.py`` beside it says how they were made. They are never made anew: a test here
that fails means that somebody's old runs cannot be read any more. Only commands and files are used, nothing inside gptshake.
"""

import csv
import json
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ARCHIVE = ROOT / "tests/old_records/records.tar.xz"
AS_MADE = Path("/tmp/gptshake-old-records")  # the folder in which the set was made
TEXTS = (".json", ".yaml", ".jsonl", ".log", "")  # files that may hold it; not the journal, whose blocks would count as edited
WALL = ("perf/", "time")  # columns about the time that something took
ELSEWHERE = 1e-4  # relative: another processor rounds in another order, and a few steps carry that on
BLOCK = re.compile(r"<!-- gptshake:begin .*?<!-- gptshake:end [^\n]*-->\n|<!-- gptshake:known.*?-->\n?", re.DOTALL)
STOPPED = ("stopped", "killed", "old_names", "without_samples")
FINISHED = ("char", "byte", "bpe", "hf_bpe", "sentencepiece", "gpt2")
FEW = ("trainer.max_steps=2", "trainer.val_check_interval=2")


def rows(file: Path) -> list[dict[str, float]]:
    """A table without what is about time: a row maps each of its columns that has a value to it."""
    with file.open(newline="", encoding="utf-8") as lines:
        return [{key: float(text) for key, text in row.items() if text and not key.startswith(WALL)} for row in csv.DictReader(lines)]


class Old:
    """The set in a folder of its own.

    Args:
        folder: a new one.
        place: where the paths in the records lead; None: here. ``AS_MADE`` leaves every byte as it was.
    """

    def __init__(self, folder: Path, place: Path | None = None) -> None:
        self.folder = folder
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(folder, filter="data")
        self.index: dict[str, Any] = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        for file in folder.rglob("*") if place != AS_MADE else ():
            if file.is_file() and file.suffix in TEXTS and bytes(AS_MADE) in (data := file.read_bytes()):
                file.write_bytes(data.replace(bytes(AS_MADE), bytes(place or folder)))

    def run(self, name: str) -> Path:
        return self.folder / self.index["runs"][name]

    def info(self, name: str) -> dict[str, Any]:
        return dict(json.loads((self.run(name) / "run.json").read_text(encoding="utf-8")))

    def study(self, name: str) -> dict[str, Any]:
        return dict(json.loads((self.folder / "multirun" / name / "study.json").read_text(encoding="utf-8")))

    def new_run(self) -> dict[str, Any]:
        """run.json of the only run that the set does not have."""
        known = {Path(path).name for path in self.index["runs"].values()}
        (file,) = [file for file in (self.folder / "runs").glob("*/run.json") if file.parent.name not in known]
        return dict(json.loads(file.read_text(encoding="utf-8")))

    def snapshot(self) -> dict[Path, bytes]:
        """Every file below the runs and studies, for what should change nothing."""
        return {file: file.read_bytes() for name in ("runs", "multirun") for file in (self.folder / name).rglob("*") if file.is_file()}


@pytest.fixture
def old(tmp_path: Path) -> Old:
    return Old(tmp_path / "old")


def is_equal(now: Path, then: Path, old: Old, machine_kind: dict[str, str]) -> bool:
    """Whether two tables hold the same numbers: all digits on the kind of machine that made the set, nearly elsewhere."""
    if old.index["made_with"] == machine_kind:
        return rows(now) == rows(then)
    return len(rows(now)) == len(rows(then)) and all(
        one == pytest.approx(other, rel=ELSEWHERE) for one, other in zip(rows(now), rows(then), strict=True)
    )


@pytest.mark.parametrize("name", STOPPED)
def test_a_run_that_was_stopped_is_resumed_and_equals_the_one_that_was_left_alone(
    name: str, old: Old, commands: Any, machine_kind: dict[str, str]
) -> None:
    file = old.run(name) / "metrics.csv"
    header, n_rows = file.read_text().splitlines()[0], len(rows(file))
    done = commands(old.folder, f"resume={old.info(name)['id']}")
    assert done.code == 0, done.out + done.err
    assert n_rows < 8 and is_equal(file, old.folder / f"expected/{name}.csv", old, machine_kind)
    assert file.read_text().startswith(header) and old.info(name)["status"] == "ok"
    assert old.info(name)["summary"]["val/loss"] == rows(file)[-1]["val/loss"]


def test_a_record_that_was_moved_is_resumed_from_anywhere_with_its_text_named_anew(
    commands: Any, tmp_path: Path, machine_kind: dict[str, str]
) -> None:
    old, away = Old(tmp_path / "old", tmp_path / "gone"), tmp_path / "away"
    away.mkdir()
    assert "data.path" in commands(away, f"resume={old.run('stopped')}").error
    done = commands(away, f"resume={old.run('stopped')}", f"data.path={old.folder / 'book.txt'}")
    assert done.code == 0, done.out + done.err
    assert is_equal(old.run("stopped") / "metrics.csv", old.folder / "expected/stopped.csv", old, machine_kind)


def test_a_finished_run_is_resumed_without_a_change(old: Old, commands: Any) -> None:
    before, info = (old.run("char") / "metrics.csv").read_bytes(), old.info("char")
    figures = {key: value for key, value in info["summary"].items() if not key.startswith(WALL)}
    done = commands(old.folder, f"resume={info['id']}")
    assert done.code == 0, done.out + done.err
    assert (old.run("char") / "metrics.csv").read_bytes() == before
    assert figures.items() <= old.info("char")["summary"].items()


def test_runs_of_every_model_and_tokenizer_write_the_text_that_they_wrote_then(old: Old, commands: Any) -> None:
    before = old.snapshot()
    for name in FINISHED:
        run = old.info(name)["id"] if name == "char" else old.run(name)
        words = ("task=sample", "task.n_tokens=30", "task.prompt=the ", "trainer=cpu", "trainer.threads=1", f"task.run={run}")
        done = commands(old.folder, *words)
        assert done.code == 0, f"{name}: {done.err}"
        assert done.out == old.index["samples"][name], name
    assert old.snapshot() == before


@pytest.mark.parametrize(("name", "says"), [("rates", "optimizer.lr"), ("changes", "one_cycle"), ("search", "lr")])
def test_a_study_has_a_report(name: str, says: str, old: Old, commands: Any) -> None:
    before = old.study(name)
    done = commands(old.folder, "task=report", f"study={name}", "task.csv=trials.csv")
    assert done.code == 0, done.out + done.err
    assert says in done.out and (old.folder / f"multirun/{name}/report.html").exists() and old.study(name) == before
    with (old.folder / "trials.csv").open(newline="") as lines:
        assert len(list(csv.DictReader(lines))) >= len(before["trials"])


def test_a_run_has_a_page(old: Old, commands: Any) -> None:
    done = commands(old.folder, "task=report", f"task.run={old.info('hf_bpe')['id']}")
    assert done.code == 0 and (old.run("hf_bpe") / "report.html").exists(), done.err


def trials_of(study: dict[str, Any]) -> list[Any]:
    """As they were then: without the fields that came later."""
    later = ("place", "spent")
    return [trial | {"runs": [{key: run[key] for key in run if key not in later} for run in trial["runs"]]} for trial in study["trials"]]


def test_the_command_of_a_finished_study_runs_nothing_and_that_of_a_stopped_one_ends_as_if_it_had_not_been_stopped(
    old: Old, commands: Any, machine_kind: dict[str, str]
) -> None:
    whole, stopped = old.study("search"), old.study("search-stopped")
    again = commands(old.folder, *old.index["search"], "study=search")
    assert again.code == 0 and "begins" not in again.out, again.out + again.err
    assert trials_of(old.study("search")) == trials_of(whole)
    done = commands(old.folder, *old.index["search"], "study=search-stopped")
    assert done.code == 0, done.out + done.err
    assert "trial 0 begins" not in done.out and trials_of(old.study("search-stopped"))[0] == trials_of(stopped)[0]
    found, expected = ([(trial["params"], trial["value"]) for trial in study["trials"]] for study in (old.study("search-stopped"), whole))
    assert len(found) == len(expected) and {trial["state"] for trial in old.study("search-stopped")["trials"]} == {"ok"}
    if old.index["made_with"] == machine_kind:
        assert found == expected


def test_a_study_that_began_under_other_defaults_is_not_continued_under_those_of_today(old: Old, commands: Any) -> None:
    config = old.folder / "multirun/search/0/config.yaml"
    config.write_text(re.sub("^  eps: .*", "  eps: 1.0e-06", config.read_text(encoding="utf-8"), flags=re.MULTILINE), encoding="utf-8")
    before = old.study("search")
    done = commands(old.folder, *old.index["search"], "study=search")
    assert old.study("search") == before
    assert done.code == 2 and "optimizer.eps: was 1e-06, would be 1e-08" in done.error and "task=report study=search" in done.error


def test_two_runs_are_compared(old: Old, commands: Any) -> None:
    done = commands(old.folder, "task=diff", f"task.runs=[{old.info('char')['id']},{old.info('child')['id']},{old.info('bpe')['id']}]")
    assert done.code == 0, done.out + done.err
    assert all(key in done.out for key in ("model.dropout", "optimizer.lr", "tokenizer", "val/bpb")) and list(
        (old.folder / "diff").iterdir()
    )


def test_runs_and_trials_are_listed_with_their_figures(old: Old, commands: Any) -> None:
    words = ("task=runs", "task.limit=null", "task.trials=true", "task.json=all.json", "task.csv=all.csv", "task.html=all.html")
    done = commands(old.folder, *words)
    assert done.code == 0, done.out + done.err
    listed = {run["id"]: run for run in json.loads((old.folder / "all.json").read_text(encoding="utf-8"))}
    for name in old.index["runs"]:
        info = old.info(name)
        assert info["id"] in listed, name
        assert listed[info["id"]]["status"] == ("killed" if name == "killed" else info["status"]), name
        if (bpb := (info.get("summary") or {}).get("val/bpb")) is not None:
            assert listed[info["id"]]["figures"]["val/bpb"] == bpb, name
    assert sum(run["study"] == "rates" for run in listed.values()) == 6 and (old.folder / "all.html").exists()
    chosen = commands(old.folder, "task=runs", "task.filter='model=baby status=interrupted'", "task.json=few.json")
    assert chosen.code == 0, chosen.err
    assert [run["id"] for run in json.loads((old.folder / "few.json").read_text())] == [old.info("without_samples")["id"]]


def test_a_run_is_reproduced_with_its_own_code_and_known_as_made_here_by_its_seal(
    commands: Any, tmp_path: Path, machine_kind: dict[str, str]
) -> None:
    old = Old(tmp_path / "old", AS_MADE)
    commit = old.info("char")["git"]["commit"]
    if subprocess.run(["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=ROOT, capture_output=True, check=False).returncode:
        pytest.skip(f"commit {commit[:10]}, which made the records, is not in this clone (shallow, or no git)")
    if old.index["made_with"] != machine_kind:  # two processors may have one name: a tolerance must hold, not every bit
        (old.run("char") / "run.json").write_text(json.dumps(old.info("char") | {"hardware": {"cpu": "another"}}))
    words = ("task.steps=3", f"task.data_path={old.folder / 'book.txt'}")
    done = commands(old.folder, "task=reproduce", f"task.run={old.run('char')}", *words, GPTSHAKE_CACHE=str(old.folder / "cache"))
    assert done.code == 0, done.out + done.err
    assert old.new_run()["reproduces"] == old.info("char")["id"] and old.new_run()["reproduction"]["holds"]


def test_a_rate_is_taken_from_a_study_and_from_finders(old: Old, commands: Any) -> None:
    best = min(old.study("rates")["trials"], key=lambda trial: trial["value"])["params"]["optimizer.lr"]
    rates = {"rates": best} | {old.info(name)["id"]: old.info(name)["find_lr"]["lr"] for name in ("range_test", "find_lr")}
    for name, rate in rates.items():
        run = old.folder / f"trained-{name}"
        done = commands(old.folder, *old.index["words"], *FEW, f"optimizer.lr=from:{name}", f"paths.run_dir={run}")
        assert done.code == 0, done.out + done.err
        info = json.loads((run / "run.json").read_text())
        assert f"optimizer.lr={rate:g}" in info["overrides"] and info["lr_from"]["run"]


def test_the_journal_tells_of_new_runs_and_keeps_the_prose(old: Old, commands: Any) -> None:
    file = old.folder / "JOURNAL.md"
    before = file.read_text(encoding="utf-8")
    later = old.info("later")["id"]
    assert later not in before
    done = commands(old.folder, "task=journal")
    assert done.code == 0, done.out + done.err
    after = file.read_text(encoding="utf-8")
    told = re.findall(r"<!-- gptshake:begin ([\w.-]+)", after)
    assert later in told and len(told) == len(set(told)) and set(re.findall(r"<!-- gptshake:begin ([\w.-]+)", before)) < set(told)
    to_do = re.findall(r"<!-- gptshake:begin ~todo -->\s*(.*?)\s*<!-- gptshake:end ~todo -->", before, re.DOTALL)[
        0
    ]  # a block then, text now
    prose, kept = (re.sub(r"\n{2,}", "\n\n", BLOCK.sub("", text).replace(to_do, "")).strip("\n") for text in (before, after))
    assert kept == prose and "Prose between: 日本, `code` and a trailing blank \n" in after and "Prose below, without a line end" in after
    assert all((old.folder / picture).exists() for picture in re.findall(r"\]\((docs/journal/[^)]+)\)", after))
    again = commands(old.folder, "task=journal")
    assert again.code == 0 and file.read_text(encoding="utf-8") == after, again.err


def test_weights_and_tokenizer_of_an_old_run_begin_a_new_one_typed_with_old_names(old: Old, commands: Any) -> None:
    parent, words = old.info("bpe"), ("callbacks.progress.every_s=5", "~callbacks.samples", "~callbacks.advice", *FEW)
    assert "data=text_bpe" in parent["overrides"] and "~callbacks.plots" in parent["overrides"]
    typed = [word for word in parent["overrides"] if "callbacks.samples" not in word]
    given = (f"init_from={parent['id']}", f"tokenizer.path={old.run('bpe')}", "paths.run_dir=next")
    done = commands(old.folder, *typed, *words, *given)
    assert done.code == 0, done.out + done.err
    info = json.loads((old.folder / "next/run.json").read_text())
    assert info["parent"] == parent["id"] and info["data"]["tokenizer"] == parent["data"]["tokenizer"]


@pytest.mark.parametrize(
    "names",
    [("hf_bpe", "hf_byte"), ("shakespeare_byte", "shakespeare_gpt2"), ("text_gpt2", "text_bpe"), ("wiki_sentencepiece", "wiki_bpe")],
)
def test_old_names_of_data_are_understood(names: tuple[str, str], light_commands: Any, tmp_path: Path) -> None:
    for name in names:
        done = light_commands(tmp_path, "model=tiny", f"data={name}", "--cfg", "job")
        kind = {"bpe": "BPE", "byte": "Byte", "gpt2": "GPT2", "sentencepiece": "SentencePiece"}[name.split("_")[1]]
        assert done.code == 0 and f"{kind}Trainer" in done.out, done.err
