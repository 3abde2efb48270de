import json
from pathlib import Path

import pytest

from gptshake.console import one_line
from gptshake.errors import RecordError
from gptshake.record.index import flat, read_entry, read_index
from gptshake.record.lock import RunLock
from gptshake.record.run import Run, find_run
from gptshake.record.shape import SCHEMA
from gptshake.report.runs_page import runs_page
from gptshake.report.runs_table import lines, table, tally


def made(path: Path, id: str, **fields: object) -> Run:
    name = f"20261124-0031-tiny-wiki_char-excerpt106-lr3e-4-{id}"
    run = Run.create(path, id=id, name=name, task="train", config_yaml="seed: 1\noptimizer: {lr: 0.0003}\n", overrides=[])
    run.append_row({"step": 1, "train/tokens": 64, "train/loss": 4.0})
    run.sample(1, 64, "Text.")
    run.update(**fields)
    return run


def test_runs_and_trials_come_newest_first(tmp_path: Path) -> None:
    made(tmp_path / "runs/old", "old00000", started=1.0).finish("ok", None, {"val/bpb": 2.5})
    made(tmp_path / "multirun/study/3/0", "trial000", started=3.0, trial={"study": "study", "number": 3}).finish("failed", "reason")
    made(tmp_path / "runs/new", "new00000", started=2.0)
    found = read_index([tmp_path / "runs", tmp_path / "multirun", tmp_path / "nowhere"])
    assert [(entry.id, entry.status, entry.study) for entry in found] == [
        ("trial000", "failed", "study"),
        ("new00000", "killed", None),  # nobody is at work in it
        ("old00000", "ok", None),
    ]
    assert found[2].summary["val/bpb"] == 2.5 and found[2].title == "tiny · wiki_char · excerpt106 · lr3e-4"


def test_an_entry_reads_what_the_run_wrote(tmp_path: Path) -> None:
    lease = RunLock(tmp_path)
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
    torn = next(entry for entry in read_index([tmp_path]) if entry.path.name == "torn")
    assert torn.status == "broken" and "run.json" in torn.problem
    assert (torn.id, torn.summary, torn.config, torn.rows, torn.samples) == ("torn", {}, {}, [], [])


def test_a_record_of_a_newer_layout_is_listed_and_refused_with_what_to_do(tmp_path: Path) -> None:
    made(tmp_path, "x3k9a2pq", schema=SCHEMA + 1)
    entry = read_entry(tmp_path)
    assert entry.status == "broken" and entry.problem.endswith(f"(schema {SCHEMA + 1}, this one reads up to {SCHEMA}): update gptshake.")
    with pytest.raises(RecordError, match="written by a newer gptshake"):
        Run.open(tmp_path)


def test_damaged_files_beside_a_whole_record_are_empty_not_fatal(tmp_path: Path) -> None:
    made(tmp_path, "x3k9a2pq")
    (tmp_path / "config.yaml").write_text("a: [")
    (tmp_path / "metrics.csv").write_text("step,train/loss\nno,number\n")
    (tmp_path / "samples.md").unlink()
    entry = read_entry(tmp_path)
    assert (entry.config, entry.rows, entry.samples) == ({}, [], [])


def test_nested_keys_become_dotted() -> None:
    assert flat({"a": {"b": 1, "c": {}}, "d": [1, {"e": 2}], "f": None}) == {"a.b": 1, "a.c": {}, "d": [1, {"e": 2}], "f": None}


JUNK = [
    None,
    True,
    1,
    -1,
    1e18,
    float("nan"),
    float("-inf"),
    10**400,
    "x",
    "",
    [],
    [1],
    ["x"],
    [{}],
    {},
    {"a": [1]},
    {"study": 1},
    "\ud800",
]
FIELDS = ("started", "finished", "wall_s", "status", "id", "name", "summary", "choices", "trial", "overrides", "sittings", "data", "git")


@pytest.mark.parametrize("field", FIELDS)
def test_a_malformed_record_is_one_broken_line_with_its_reason(tmp_path: Path, field: str) -> None:
    """Whatever one record holds, lists and the page are made of all of them."""
    made(tmp_path / "whole", "whole000")
    for number, junk in enumerate(JUNK):
        made(tmp_path / f"odd{number}", f"odd{number:05}").finish("ok")
        file = tmp_path / f"odd{number}/run.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {field: junk}))
    found = read_index([tmp_path])
    broken = [entry for entry in found if entry.status == "broken"]
    assert len(found) == len(JUNK) + 1 and broken and all(field in entry.problem or "too large" in entry.problem for entry in broken)
    assert all(one_line(str(entry.path)) in tally(found) for entry in broken)
    assert len(table(lines(found)).splitlines()) == len(found) + 1 or field == "trial"
    assert runs_page(found).count('"status":"broken"') == len(broken)


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"id": "a", "name": "a", "status": "ok", "data": %s}' % ('{"a":' * 200 + "1" + "}" * 200)]
)
def test_a_deeply_nested_record_is_broken(tmp_path: Path, content: str) -> None:
    made(tmp_path / "whole", "whole000")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/run.json").write_text(content)
    (tmp_path / "whole/config.yaml").write_text("{a: " * 3000 + "1" + "}" * 3000)
    (deep,) = (entry for entry in read_index([tmp_path]) if entry.path.name == "deep")
    assert deep.status == "broken" and "nested" in deep.problem
    assert runs_page(read_index([tmp_path]))


@pytest.mark.parametrize(
    "beat", [{"host": 5}, {"host": "elsewhere", "time": "x", "pid": 1}, [], None, "x", {"pid": 1, "host": [], "time": 1}]
)
def test_a_malformed_heartbeat_is_none(tmp_path: Path, beat: object) -> None:
    RunLock(tmp_path).release()
    made(tmp_path, "x3k9a2pq")
    (tmp_path / "lease.json").write_text(json.dumps(beat))
    assert read_entry(tmp_path).status == "killed"


def test_latest_is_no_debugging_run_unless_there_is_no_other(tmp_path: Path) -> None:
    made(tmp_path / "runs/smoke", "smoke000", started=9.0, choices={"debug": "smoke", "model": "tiny", "data": "wiki_char"})
    assert find_run("latest", [tmp_path / "runs"]) == tmp_path / "runs/smoke"
    made(tmp_path / "runs/meant", "meant000", started=1.0, choices={"model": "tiny"})
    assert find_run("latest", [tmp_path / "runs"]) == tmp_path / "runs/meant"
    assert "debug=smoke · tiny · wiki_char" in table(lines(read_index([tmp_path / "runs"])))
