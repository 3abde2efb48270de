from pathlib import Path

import pytest

from gptshake.record.catalogue import catalogue, flat, read_entry
from gptshake.record.lease import Lease
from gptshake.record.run import Run


def made(path: Path, id: str, **fields: object) -> Run:
    name = f"20261124-0031-tiny-wiki_char-excerpt106-lr3e-4-{id}"
    run = Run.create(path, id=id, name=name, task="train", config_yaml="seed: 1\noptimizer: {lr: 0.0003}\n", overrides=[], provenance={})
    run.append_row({"step": 1, "train/tokens": 64, "train/loss": 4.0})
    run.sample(1, 64, "Text.")
    run.update(**fields)
    return run


def test_runs_and_trials_come_newest_first(tmp_path: Path) -> None:
    made(tmp_path / "runs/old", "old00000", started=1.0).finish("ok", None, {"val/bpb": 2.5})
    made(tmp_path / "multirun/study/3/0", "trial000", started=3.0, trial={"study": "study", "number": 3}).finish("failed", "reason")
    made(tmp_path / "runs/new", "new00000", started=2.0)
    found = catalogue([tmp_path / "runs", tmp_path / "multirun", tmp_path / "nowhere"])
    assert [(entry.id, entry.status, entry.study) for entry in found] == [
        ("trial000", "failed", "study"),
        ("new00000", "killed", None),  # nobody is at work in it
        ("old00000", "ok", None),
    ]
    assert found[2].summary["val/bpb"] == 2.5 and found[2].title == "tiny · wiki_char · excerpt106 · lr3e-4"


def test_an_entry_reads_what_the_run_wrote(tmp_path: Path) -> None:
    lease = Lease(tmp_path)
    made(tmp_path, "x3k9a2pq")
    entry = read_entry(tmp_path)
    assert entry.status == "running"
    assert entry.config == {"seed": 1, "optimizer.lr": 0.0003}
    assert entry.rows == [{"step": 1, "train/tokens": 64, "train/loss": 4.0}]
    assert [sample.text for sample in entry.samples] == ["Text."]
    lease.release()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"id": "a"}', b"\xff\xfe\x00", b"null"])
def test_a_broken_record_is_listed_as_such(tmp_path: Path, content: bytes) -> None:
    made(tmp_path / "whole", "whole000")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn/run.json").write_bytes(content)
    torn = next(entry for entry in catalogue([tmp_path]) if entry.path.name == "torn")
    assert torn.status == "broken" and "run.json" in torn.problem
    assert (torn.id, torn.summary, torn.config, torn.rows, torn.samples) == ("torn", {}, {}, [], [])


def test_damaged_files_beside_a_whole_record_are_empty_not_fatal(tmp_path: Path) -> None:
    made(tmp_path, "x3k9a2pq")
    (tmp_path / "config.yaml").write_text("a: [")
    (tmp_path / "metrics.csv").write_text("step,train/loss\nno,number\n")
    (tmp_path / "samples.md").unlink()
    entry = read_entry(tmp_path)
    assert (entry.config, entry.rows, entry.samples) == ({}, [], [])


def test_nested_keys_become_dotted() -> None:
    assert flat({"a": {"b": 1, "c": {}}, "d": [1, {"e": 2}], "f": None}) == {"a.b": 1, "a.c": {}, "d": [1, {"e": 2}], "f": None}
