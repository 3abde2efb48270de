import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptshake.errors import RecordError
from gptshake.record.lock import RunLock
from gptshake.record.run import Run, discard, find_run, read_run, status_of

UPDATING = """
import sys
from pathlib import Path
from gptshake.record.run import Run
run = Run.open(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    run.update(summary={"n": number}, padding="x" * 20_000)
    print(number, flush=True)
"""


def new_run(path: Path, **changes: Any) -> Run:
    fields = {
        "id": "x3k9a2pq",
        "name": "20261124-0031-tiny-wiki_char-excerpt106-x3k9a2pq",
        "task": "train",
        "config_yaml": "seed: 1\n",
        "overrides": ["model=tiny", "data=wiki_char"],
        "version": "0.1.0",
        "git": {"commit": "abc"},
    }
    return Run.create(path, **{**fields, **changes})


def test_a_new_record_holds_what_was_asked_for(tmp_path: Path) -> None:
    new_run(tmp_path / "run")
    assert (tmp_path / "run/config.yaml").read_text() == "seed: 1\n"
    assert (tmp_path / "run/overrides").read_text() == "model=tiny\ndata=wiki_char\n"
    info = read_run(tmp_path / "run")
    assert (info["id"], info["task"], info["status"], info["version"]) == ("x3k9a2pq", "train", "running", "0.1.0")
    assert info["overrides"] == ["model=tiny", "data=wiki_char"] and info["git"] == {"commit": "abc"}


def test_the_lease_may_be_taken_before_the_record_is_made(tmp_path: Path) -> None:
    held = RunLock(tmp_path / "run")
    new_run(tmp_path / "run")
    assert status_of(tmp_path / "run") == "running"
    held.release()


@pytest.mark.parametrize(
    ("identity", "found", "stays"), [("x3k9a2pq", {}, False), ("x3k9a2pq", {"find_lr": {}}, True), ("another1", {}, True)]
)
def test_a_record_is_discarded_only_by_the_run_that_began_it_and_while_nothing_was_found(
    identity: str, found: dict[str, Any], stays: bool, tmp_path: Path
) -> None:
    new_run(tmp_path / "run").update(**found)
    for name in ("plots", ".git"):
        (tmp_path / "run" / name).mkdir()
    discard(tmp_path / "run", identity)
    left = {entry.name for entry in (tmp_path / "run").iterdir()}
    assert left > {".git", "plots"} if stays else left == {".git"}, "the directory itself may be where the user stands"


def test_a_run_is_never_made_over_another(tmp_path: Path) -> None:
    new_run(tmp_path / "run")
    with pytest.raises(RecordError, match="resume="):
        new_run(tmp_path / "run")


def test_fields_are_merged_key_by_key(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    run.update(resolved={"data.source": "excerpt"})
    run.update(resolved={"trainer.precision": "32-true"}, data={"entropy": {"uniform": np.float64(4.5)}, "path": Path("a/b")})
    info = read_run(tmp_path / "run")
    assert info["resolved"] == {"data.source": "excerpt", "trainer.precision": "32-true"}
    assert info["data"] == {"entropy": {"uniform": 4.5}, "path": "a/b"}
    assert Run.open(tmp_path / "run").info == info == run.info


def test_run_json_is_json_even_with_numbers_that_are_not_finite(tmp_path: Path) -> None:
    new_run(tmp_path / "run").finish("failed", "the loss of step 3 is not finite", {"train/loss": float("nan"), "all": [float("inf"), 1.0]})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    info = json.loads((tmp_path / "run/run.json").read_text(), parse_constant=refuse)
    assert info["summary"] == {"train/loss": None, "all": [None, 1.0]}
    assert (info["status"], info["reason"]) == ("failed", "the loss of step 3 is not finite")


def test_an_unknown_status_is_a_mistake_in_the_code(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="done"):
        new_run(tmp_path / "run").finish("done")


def test_run_json_is_whole_at_whatever_moment_its_writer_is_killed(tmp_path: Path) -> None:
    new_run(tmp_path / "run")
    for lines in (1, 3, 10, 30):
        with subprocess.Popen([sys.executable, "-c", UPDATING, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            said = [int(child.stdout.readline()) for _ in range(lines)][-1]
            child.kill()
        info = read_run(tmp_path / "run")
        assert info["summary"]["n"] >= said and info["id"] == "x3k9a2pq"


def test_running_without_anybody_at_work_is_killed(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    held = RunLock(run.path)
    assert status_of(run.path) == "running"
    held.release()
    assert status_of(run.path) == "killed"
    run.finish("ok")
    assert status_of(run.path) == "ok"


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}"])
def test_what_is_no_run_is_not_opened(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(RecordError, match=r"run\.json"):
        Run.open(tmp_path)


def test_a_resumed_record_continues_as_if_nothing_had_happened(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    for step in range(1, 11):
        run.append_row({"step": step, "train/tokens": 10 * step, "train/loss": 1 / step})
        if step % 4 == 0:
            run.sample(step, 10 * step, f"text {step}", title="The\nking")
    run.flush()
    whole = {name: (run.path / name).read_bytes() for name in ("metrics.csv", "samples.md")}
    again = Run.open(run.path)
    assert again.n_rows == 10
    again.cut_rows(6)
    assert [sample.step for sample in again.samples()] == [4]
    for step in range(7, 11):
        again.append_row({"step": step, "train/tokens": 10 * step, "train/loss": 1 / step})
        if step == 8:
            again.sample(step, 10 * step, f"text {step}", title="The king")
    again.finish("ok")
    assert whole == {name: (run.path / name).read_bytes() for name in whole}


def test_reading_the_rows_of_a_record_changes_nothing(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    assert Run.open(run.path).rows() == []
    assert not (run.path / "metrics.csv").exists()


def test_the_log_has_no_colours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new_run(tmp_path / "run").say("\x1b[1;32mstep 1\x1b[0m \x1b]8;;http://x\x07link\x1b]8;;\x07 é")
    assert (tmp_path / "run/log").read_text(encoding="utf-8") == "step 1 link é\n"
    assert "\x1b[1;32mstep 1" in capsys.readouterr().out


@pytest.mark.parametrize("output", ["closed", "ascii"])
def test_a_terminal_that_is_gone_or_knows_no_accents_does_not_stop_a_run(tmp_path: Path, output: str) -> None:
    new_run(tmp_path / "run")
    code = "import sys; from pathlib import Path; from gptshake.record.run import Run; Run.open(Path(sys.argv[1])).say('école')"
    reading, writing = os.pipe()
    if output == "closed":
        os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", code + "; import os; os._exit(0)", str(tmp_path / "run")],
        stdout=writing,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
    if output == "ascii":
        assert os.read(reading, 100) == b"\\xe9cole\n"
        os.close(reading)
    assert (tmp_path / "run/log").read_text(encoding="utf-8") == "école\n"


@pytest.fixture
def roots(tmp_path: Path) -> list[Path]:
    new_run(tmp_path / "runs/20261124-0031-tiny-wiki_char-excerpt106-x3k9a2pq")
    new_run(tmp_path / "multirun/study/3", id="t0000000", name="20261124-0032-baby-wiki_char-hub10k-t0000000")
    new_run(tmp_path / "multirun/study/4/0", id="u0000000", name="20261124-0033-baby-wiki_char-hub10k-u0000000")
    new_run(tmp_path / "multirun/other/3", id="v0000000", name="20261124-0034-baby-wiki_char-hub10k-v0000000")
    return [tmp_path / "runs", tmp_path / "multirun"]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("x3k9a2pq", "runs/20261124-0031-tiny-wiki_char-excerpt106-x3k9a2pq"),
        ("20261124-0031-tiny-wiki_char-excerpt106-x3k9a2pq", "runs/20261124-0031-tiny-wiki_char-excerpt106-x3k9a2pq"),
        ("t0000000", "multirun/study/3"),
        ("20261124-0033-baby-wiki_char-hub10k-u0000000", "multirun/study/4/0"),
        ("study/3", "multirun/study/3"),
        ("study/3/", "multirun/study/3"),
    ],
)
def test_a_run_is_found_by_id_by_name_and_by_its_place_in_a_study(tmp_path: Path, roots: list[Path], text: str, where: str) -> None:
    assert find_run(text, roots) == tmp_path / where


def test_a_run_is_found_by_its_path(tmp_path: Path, roots: list[Path]) -> None:
    assert find_run(tmp_path / "multirun/other/3", []) == tmp_path / "multirun/other/3"


def test_a_study_in_place_of_a_run_is_refused_with_one_of_its_runs(tmp_path: Path, roots: list[Path]) -> None:
    (tmp_path / "multirun/study/study.json").write_text("{}")
    with pytest.raises(RecordError, match=r"'study' is a study, .* such as study/3; task=report takes study=study\."):
        find_run("study", roots)
    with pytest.raises(RecordError, match=r"'study/4' holds several runs, and one run is needed, such as study/4/0\.$"):
        find_run("study/4", roots)


def test_a_name_of_several_runs_is_refused_with_their_paths(roots: list[Path]) -> None:
    with pytest.raises(RecordError, match=r"several.*other/3.*study/3"):
        find_run("3", roots)


def test_a_slip_of_the_pen_is_answered_with_the_nearest_name(roots: list[Path]) -> None:
    with pytest.raises(RecordError, match="did you mean x3k9a2pq"):
        find_run("x3k9a2qp", roots)


@pytest.mark.parametrize("text", ["zzzz", "", "."])
def test_a_run_that_is_not_there_is_a_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(RecordError, match="There is no run"):
        find_run(text, [tmp_path / "runs"])


def test_latest_is_the_run_that_was_begun_last_wherever_it_lies(tmp_path: Path, roots: list[Path]) -> None:
    for number, path in enumerate([tmp_path / "runs/20261124-0031-tiny-wiki_char-excerpt106-x3k9a2pq", tmp_path / "multirun/study/3"]):
        Run.open(path).update(started=4e9 + number)
    assert find_run("latest", roots) == tmp_path / "multirun/study/3"
    (tmp_path / "runs/torn").mkdir()
    (tmp_path / "runs/torn/run.json").write_text("{")
    assert find_run("latest", roots) == tmp_path / "multirun/study/3"


def test_without_a_run_there_is_no_latest(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no run is there at all"):
        find_run("latest", [tmp_path / "runs"])
