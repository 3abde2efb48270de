"""The journal from records: what an entry says, and that nothing in a record can stop or misuse it."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptshake.errors import RecordError
from gptshake.estimate.significance import Spread, difference
from gptshake.record import git as git_module
from gptshake.record.run import Run
from gptshake.record.texts import add_note
from gptshake.report.journal import Written, write_journal
from gptshake.report.journal_text import MARKER

BEGIN = 1_800_000_000.0
CONFIG = {
    "seed": 1,
    "model": {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 16, "bias": True, "dropout": 0.0},
    "optimizer": {"_target_": "gptshake.optim.adamw.adamw", "lr": 0.002, "weight_decay": 0.1},
    "data": {"batch_size": 8, "split": "documents", "val_fraction": 0.05, "test_fraction": 0.05},
    "trainer": {"precision": "32-true"},
    "callbacks": {"samples": {"prompts": ["\n", "The "]}},
}
SUMMARY = {"train/tokens": 7680, "val/loss": 2.1, "val/bpb": 3.0, "test/bpb": 3.1, "perf/tokens_per_s": 65_000.0, "perf/mfu": 0.101}


class Place:
    """A folder with runs and a journal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, id: str, hour: int, bpb: float | None = 3.0, status: str = "ok", where: str = "runs", **fields: Any) -> Path:
        """A run that began at an hour; ``lr``, ``seed`` and ``reason`` are its own, further fields are of run.json."""
        config = CONFIG | {"optimizer": CONFIG["optimizer"] | {"lr": fields.pop("lr", 0.002)}, "seed": fields.pop("seed", 1)}  # type: ignore[operator]
        name = f"20261124-{hour:02d}31-tiny-wiki_char-excerpt106-{id}"
        path = self.folder / where / (name if where == "runs" else "")
        run = Run.create(path, id=id, name=name, task="train", config_yaml=yaml.safe_dump(config), overrides=[f"seed={hour}"])
        run.update(
            started=BEGIN + 3600 * hour,
            version="0.1.0",
            git={"commit": "a" * 40, "branch": "main", "dirty": False},
            choices={"model": "tiny", "data": "wiki_char", "tokenizer": "char", "scheduler": "gpt3", "optimizer": "adamw"},
            budget={"steps": 60},
            model={"parameters": 26_700},
            data={"label": "excerpt106", "fingerprint": "f" * 64, "vocab_size": 21, "entropy": {"uniform": 3.04}},
        )
        for step in range(1, 61):
            run.append_row(
                {"step": step, "train/tokens": 128 * step, "train/loss": 4 - 0.03 * step, "train/lr": 1e-3, "time": BEGIN + step}
            )
        for step in (0, 30, 60):
            run.sample(step, 128 * step, f"\nfrom a newline\n---\nThe text at {step}")
        reason = fields.pop("reason", None)
        run.update(**fields)
        if status != "killed":
            run.finish(status, reason, SUMMARY | {"val/bpb": bpb} if bpb is not None else None)
            run.update(finished=BEGIN + 3600 * hour + 185)
        return path

    def write(self) -> Written:
        return write_journal(self.file, self.folder / "docs/journal", self.folder / "runs", self.folder / "multirun")

    @property
    def file(self) -> Path:
        return self.folder / "JOURNAL.md"

    @property
    def text(self) -> str:
        return self.file.read_text(encoding="utf-8")

    def entry(self, id: str) -> str:
        return re.search(rf"begin {id} .*?end {id} ", self.text, re.DOTALL)[0]  # type: ignore[index]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(git_module, "checkout_root", lambda: None)  # these runs' commits are in no checkout
    return Place(tmp_path)


def test_an_entry_tells_what_was_done_and_what_came_of_it(place: Place) -> None:
    path = place.run("x3k9a2pq", 1, note="a first try", wandb={"url": "https://wandb.ai/me/gpts/runs/x3k9a2pq"})
    add_note(path, "Seeds move it more.")
    add_note(path, "TODO three seeds")
    done = place.write()
    assert done.added == ["x3k9a2pq"] and done.drawn == 1 and done.problems == 0
    entry = place.entry("x3k9a2pq")
    for words in (
        "## 2026-11-24 01:31 · tiny · wiki_char · excerpt106",
        "**Verdict:** the first on this text: 3.0000 bits per byte.",
        "**Why:** a first try",
        ": Seeds move it more.",
        ": TODO three seeds",
        "version 0.1.0 · commit `aaaaaaaa` on `main`",
        f"record `runs/{path.name}` · [W&B](<https://wandb.ai/me/gpts/runs/x3k9a2pq>)",
        "| **this** | 3.0000 | 2.1000 | 3.1000 | 7.68k | 3 min 05 s | 65k | 10.1 % |",
        "![tiny · wiki_char · excerpt106: loss and learning rate](docs/journal/x3k9a2pq.svg)",
        "| 26.7k | 2 × 2 × 32 | 16 | char 21 | 8 × 60 | 2e-3 |",
        "Written from `'The '` after 0 tokens:\n\n```text\nThe text at 0\n```",
        "Written from `'The '` after 7.68k tokens:\n\n```text\nThe text at 60\n```",
    ):
        assert words in entry, f"{words}\n\nis not in\n\n{entry}"
    assert "from a newline" not in entry


def test_a_run_is_compared_with_the_one_before_and_with_the_best_before(place: Place) -> None:
    place.run("good0000", 1, 3.0)
    place.run("worse000", 2, 3.2, lr=0.02)
    place.run("equal000", 3, 3.01, lr=0.004)
    place.run("best0000", 4, 2.0, lr=0.003)
    place.write()
    assert "worse than the best before it, +0.2000 bits per byte (+6.7 %)." in place.entry("worse000")
    assert "Changed against the entry before, [good0000](#good0000):" in place.entry("worse000")
    assert "| `optimizer.lr` | `2e-3` | `2e-2` |" in place.entry("worse000")
    assert "## 2026-11-24 02:31 · tiny · wiki_char · excerpt106 · lr 2e-2" in place.entry("worse000")
    assert "is indistinguishable from the best before it, +0.0100 bits per byte (+0.3 %)" in place.entry("equal000")
    assert "better than the best before it, -1.0000 bits per byte" in place.entry("best0000")
    assert "| to the best before, [good0000](#good0000) | -1.0000 | +0.0000 | +0.0000 | 1.00× |" in place.entry("best0000")


def test_a_run_is_not_compared_with_bits_per_byte_by_the_old_rule(place: Place) -> None:
    data = {"label": "excerpt106", "fingerprint": "f" * 64, "bytes_per_token": 1.0}
    place.run("old00000", 0, 2.0, data=data)
    place.run("new00000", 1, 3.0, data=data | {"unknown": {}})
    place.write()
    assert "the first on this text: 3.0000 bits per byte" in place.entry("new00000")


@pytest.mark.parametrize(
    ("gap", "spread", "other", "differs"),
    [
        (0.027, None, None, False),  # 2.77 x 0.5 % of 2.0 = 0.0277
        (0.029, None, None, True),
        (0.029, (2.0, 0.001, 2), None, True),  # two seeds measure no spread
        (0.05, (2.0, 0.01, 3), None, False),  # 4.30 x 1.41 x 0.01 = 0.061
        (0.07, None, (2.0, 0.01, 3), True),
        (0.03, (2.03, 0.01, 3), (2.0, 0.01, 3), True),  # Welch: 2.78 x 0.0082 = 0.023
        (0.02, (2.02, 0.01, 3), (2.0, 0.01, 3), False),
    ],
)
def test_seeds_that_may_have_made_a_difference_are_judged_by_their_number(gap: float, spread: Any, other: Any, differs: bool) -> None:
    found, noise = difference(2.0 + gap, 2.0, spread and Spread(*spread), other and Spread(*other))
    assert found == pytest.approx(gap) and (noise is None) is differs


def test_seeds_so_far_are_told_as_their_spread(place: Place) -> None:
    for seed, bpb in enumerate((3.0, 3.2, 3.1, 3.05)):
        place.run(f"seed000{seed}", seed, bpb, seed=seed)
    place.run("other000", 5, 2.0, lr=0.004, seed=9)
    place.write()
    assert "seeds |" not in place.entry("seed0000") and "| 2 seeds | 3.1000 ± 0.1414 |" in place.entry("seed0001")
    assert "| 4 seeds | 3.0875 ± 0.0854 |" in place.entry("seed0003") and "seeds move it by ± 0.0854." in place.entry("seed0003")
    assert "seeds |" not in place.entry("other000")


def test_a_run_on_another_text_is_not_compared(place: Place) -> None:
    place.run("wiki0000", 1)
    place.run("book0000", 2, 1.0, data={"fingerprint": "e" * 64})
    place.write()
    assert "the first on this text" in place.entry("book0000")


def test_another_tokenizer_on_the_same_text_is_compared(place: Place) -> None:
    place.run("chars000", 1, data={"fingerprint": "c" * 64, "text": "t" * 64})
    place.run("pairs000", 2, 2.0, data={"fingerprint": "b" * 64, "text": "t" * 64})
    place.run("other000", 3, 1.0, data={"fingerprint": "d" * 64, "text": "u" * 64})
    place.run("older000", 4, 1.5, data={"fingerprint": "b" * 64})
    place.write()
    assert "better than the best before it, -1.0000 bits per byte" in place.entry("pairs000")
    assert "the first on this text" in place.entry("other000")
    assert "better than the best before it, -0.5000 bits per byte" in place.entry("older000")


def test_a_run_that_began_from_another_is_compared_with_it(place: Place) -> None:
    place.run("parent00", 1, 3.0)
    place.run("between0", 2, 2.0, lr=0.1)
    place.run("child000", 3, 2.5, parent="parent00", lr=0.001)
    place.run("orphan00", 4, 2.5, parent="gone0000")
    place.run("again000", 5, 3.0, reproduces="parent00")
    place.write()
    assert "Changed against the run it began from, [parent00](#parent00):" in place.entry("child000")
    assert "to the parent, [parent00](#parent00) | -0.5000" in place.entry("child000")
    assert "begun from `gone0000`, which is not among these runs" in place.entry("orphan00")
    assert "Nothing that counts was changed against the run it repeats, [parent00](#parent00)." in place.entry("again000")


def test_what_went_wrong_is_told_too(place: Place) -> None:
    place.run("fails000", 1, None, "failed", reason="the loss is not finite at step 61.")
    place.run("killed00", 2, status="killed")
    place.run("stopped0", 3, None, "interrupted", reason="signal 2")
    early = place.run("early000", 4, None, "failed", reason="no memory")
    (early / "metrics.csv").unlink()
    (early / "samples.md").unlink()
    place.write()
    assert "**Verdict:** failed after 7.68k tokens: the loss is not finite at step 61." in place.entry("fails000")
    assert "**Verdict:** killed after 7.68k tokens." in place.entry("killed00") and "killed00.svg" in place.entry("killed00")
    assert "**Verdict:** interrupted after 7.68k tokens: signal 2." in place.entry("stopped0")
    assert "**Verdict:** failed before the first step: no memory." in place.entry("early000") and "svg" not in place.entry("early000")


def test_writing_again_changes_no_byte_and_draws_nothing(place: Place) -> None:
    place.run("x3k9a2pq", 1, note="TODO more")
    place.run("killed00", 2, status="killed")
    place.write()
    files = [place.file, *sorted((place.folder / "docs/journal").iterdir())]
    before = [(file.read_bytes(), file.stat().st_mtime_ns) for file in files]
    done = place.write()
    assert done.drawn == 0 and not done.added and not done.changed
    assert [(file.read_bytes(), file.stat().st_mtime_ns) for file in files] == before
    shutil.rmtree(place.folder / "docs")
    place.write()
    assert [file.read_bytes() for file in files] == [content for content, _ in before]


def test_a_new_run_changes_no_older_entry(place: Place) -> None:
    place.run("old00000", 1)
    place.run("seed2000", 2, 3.1, seed=2)
    place.write()
    before = [place.entry("old00000"), place.entry("seed2000")]
    place.run("best0000", 3, 1.0, seed=3)
    done = place.write()
    assert done.added == ["best0000"] and done.changed == [] and done.drawn == 1
    assert [place.entry("old00000"), place.entry("seed2000")] == before
    assert place.text.index("begin best0000") < place.text.index("begin seed2000") < place.text.index("begin old00000")


def test_a_finished_run_is_told_anew(place: Place) -> None:
    path = place.run("x3k9a2pq", 1, status="killed")
    place.write()
    Run.open(path).finish("ok", None, SUMMARY)
    done = place.write()
    assert done.changed == ["x3k9a2pq"] and done.drawn == 1 and "3.0000 bits per byte" in place.entry("x3k9a2pq")


def test_a_moved_folder_and_a_journal_elsewhere(place: Place) -> None:
    place.run("x3k9a2pq", 1)
    write_journal(place.folder / "notes/J.md", place.folder / "docs/a b", place.folder / "runs", place.folder / "multirun")
    text = (place.folder / "notes/J.md").read_text()
    assert "(../docs/a%20b/x3k9a2pq.svg)" in text and "record `../runs/" in text


def test_a_linked_journal_stays_a_link(place: Place) -> None:
    place.run("x3k9a2pq", 1)
    (place.folder / "real.md").write_text("# Mine\n")
    place.file.symlink_to("real.md")
    place.write()
    assert place.file.is_symlink() and "# Mine\n" in (place.folder / "real.md").read_text()


def test_a_damaged_journal_is_left_as_it_is(place: Place) -> None:
    place.run("x3k9a2pq", 1)
    place.write()
    place.file.write_text(place.text.replace("<!-- gptshake:end x3k9a2pq -->\n", ""))
    before = place.file.read_bytes()
    with pytest.raises(RecordError, match=r"JOURNAL.md, line \d+: the block x3k9a2pq"):
        place.write()
    assert place.file.read_bytes() == before
    place.file.write_bytes(b"\xff\xfeJ")
    with pytest.raises(RecordError, match="not UTF-8 text"):
        place.write()
    assert place.file.read_bytes() == b"\xff\xfeJ"


def test_a_sweep_is_one_entry(place: Place, line: Any, lay: Any) -> None:
    study = line(more=[], fixed=["model=tiny", "data=wiki_char", "note='why not'"], started=BEGIN + 3600)
    folder = lay(place.folder / "multirun" / study["name"], study)
    for number in range(8):
        (folder / str(number) / "metrics.csv").unlink()
        place.run(f"trial{number:03d}", 1, 3.0 - number, where=f"multirun/{study['name']}/{number}", trial={"study": study["name"]})
    add_note(folder, "The basin is wide.")
    done = place.write()
    assert done.added == [study["name"]] and done.entries == 1
    entry = place.entry(study["name"])
    assert "· sweep of lr" in entry and "The basin is wide." in entry and "<details><summary>8 trials</summary>" in entry
    assert "- The best is trial 4: lr 2e-3, val/bpb 2.2500 after 1.2M tokens." in entry
    assert "| **4** | **ok** | **2e-3** | **2.2500** |" in entry and "| **best run** | 2.2500 |" in entry
    assert f"(docs/journal/{study['name']}.svg)" in entry


@pytest.mark.parametrize(("deadline", "known"), [(BEGIN + 3700, True), (None, False)])
def test_a_study_that_its_time_limit_has_ended_is_known_to_later_runs_and_an_interrupted_one_is_not(
    place: Place, line: Any, lay: Any, deadline: float | None, known: bool
) -> None:
    study = line(state="stopped", started=BEGIN + 3600, updated=BEGIN + 3800, deadline=deadline)
    folder = lay(place.folder / "multirun" / study["name"], study)
    for number in range(len(study["trials"])):
        (folder / str(number) / "metrics.csv").unlink()
        place.run(f"trial{number:03d}", 1, 3.0, where=f"multirun/{study['name']}/{number}", trial={"study": study["name"]})
    place.run("later000", 4, 2.9)
    place.write()
    assert ("the best before it" in place.entry("later000")) == known


def test_an_entry_does_not_compare_with_what_an_earlier_run_came_to_after_it(place: Place) -> None:
    early = place.run("early000", 1, None, "interrupted")
    place.run("later000", 3, 2.9)
    place.write()
    before = place.entry("later000")
    Run.open(early).finish("ok", None, SUMMARY | {"val/bpb": 2.5})  # the same command has resumed it
    Run.open(early).update(finished=BEGIN + 3600 * 5)
    place.run("last0000", 6, 2.8)
    place.write()
    assert place.entry("later000") == before and "the first on this text" in before
    assert "[early000](#early000)" in place.entry("last0000")


@pytest.mark.parametrize("kind", ["grid", "compared"])
def test_pictures_of_sweeps_are_small(place: Place, request: pytest.FixtureRequest, lay: Any, kind: str) -> None:
    study = request.getfixturevalue(kind)()
    lay(place.folder / "multirun" / study["name"], study)
    assert place.write().problems == 0
    (picture,) = (place.folder / "docs/journal").iterdir()
    assert picture.stat().st_size < 60_000
    assert "± " in place.entry(study["name"]) or kind == "grid"


def test_a_picture_of_a_long_run_is_small(place: Place) -> None:
    path = place.run("long0000", 1)
    rows = [f"{n},{n * 128},{4 - 2 * n / 20000 + (n * 7919 % 100) / 500:.4f},1e-3" for n in range(1, 20_001)]
    (path / "metrics.csv").write_text("\n".join(["step,train/tokens,train/loss,train/lr", *rows]) + "\n")
    place.write()
    (picture,) = (place.folder / "docs/journal").iterdir()
    assert 10_000 < picture.stat().st_size < 60_000


def test_a_multirun_of_the_basic_sweeper_is_one_entry(place: Place) -> None:
    for n, bpb in enumerate((3.0, 2.0)):
        place.run(f"part000{n}", 1 + n, bpb, where=f"multirun/20261124-0131/{n}")
    place.write()
    entry = place.entry("20261124-0131")
    assert "· 2 runs" in entry and "| `part0001` | **ok** | 2.0000 |" in entry and "| **best run** | 2.0000 |" in entry


def test_a_finders_pictures_and_findings_are_taken_over(place: Place) -> None:
    path = place.run("finds000", 1, task="find_lr", find_lr={"lr": 0.003, "low": 0.001, "rules": {"a": 1}, "reason": "steepest | <b>"})
    (path / "plots").mkdir()
    (path / "plots/lr_range.svg").write_text("<svg/>")
    assert place.write().drawn == 1
    entry = place.entry("finds000")
    assert "![lr range](docs/journal/finds000-lr_range.svg)" in entry and "| lr | low | reason |" in entry
    assert "| `3e-3` | `1e-3` | `steepest \\| <b>` |" in entry and place.write().drawn == 0


def test_runs_that_debug_are_left_out(place: Place) -> None:
    place.run("debug000", 1, choices={"model": "tiny", "debug": "smoke"})
    done = place.write()
    assert done.left_out == 1 and done.entries == 0 and not place.file.exists()


BROKEN = {
    "torn": b'{"id": "x3k9a2pq", ',
    "empty": b"",
    "list": b"[]",
    "nan": b'{"id": "n", "name": "n", "status": "ok", "started": NaN}',
    "odd": b'{"id": 5, "name": [1], "status": "ok", "started": 5, "summary": {"train/tokens": 5}, "finished": "x"}',
}


def test_broken_records_are_listed_and_cost_nothing_else(place: Place) -> None:
    whole = place.run("whole000", 1)
    for name, content in BROKEN.items():
        (place.folder / "runs" / name).mkdir()
        (place.folder / "runs" / name / "run.json").write_bytes(content)
    shutil.copytree(whole, place.folder / "runs/zcopy")
    (place.folder / "multirun/bad").mkdir(parents=True)
    (place.folder / "multirun/bad/study.json").write_text('{"name": "bad", "trials": [{}], "axes": 3, "objective": 1}')
    done = place.write()
    assert done.entries == 1 and done.problems == len(BROKEN) + 2 and "begin whole000" in place.text
    listed = place.text[place.text.index("## Records that cannot be read") :]
    assert all(f"`runs/{name}`" in listed for name in BROKEN) and "a copy, which is listed once" in listed and "`multirun/bad`" in listed


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["commit", "label", "url", "val/bpb", "steps"]), inner, max_size=2)
    ),
    max_leaves=4,
)
FIELDS = st.sampled_from(
    ["started", "finished", "wall_s", "summary", "choices", "data", "budget", "git", "note", "wandb", "parent", "task", "version", "trial"]
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(FIELDS, VALUES, max_size=5))
def test_no_record_can_stop_the_journal(place: Place, fields: dict[str, Any]) -> None:
    folder = place.folder / "runs/fuzzed"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"id": "fuzzed00", "name": "fuzzed", "status": "ok", "started": BEGIN} | fields))
    place.file.unlink(missing_ok=True)
    done = place.write()
    assert done.entries + done.problems + done.left_out >= 1
    assert place.write().text == done.text


def test_hostile_texts_are_shown_not_obeyed(place: Place) -> None:
    evil = "</code><script>alert(1)</script><img src=x onerror=alert(1)> | `x` **b** <!-- gptshake:end evil0000 --> [l](javascript:x)"
    path = place.run(
        "evil0000",
        1,
        3.0,
        note=evil,
        version=evil,
        choices={"model": evil, "data": "|", "tokenizer": evil},
        git={"branch": evil, "commit": "-x"},
    )
    run = Run.open(path)
    run.sample(
        61,
        9999,
        "```\n</pre><script>alert(2)</script>\n<!-- gptshake:end evil0000 -->\n   <!-- gptshake:begin x 1 -->\n"
        "<!--gptshake:known\n<!-- gptshake : x\n# h\n\x1b[31mred\r\u202e",
        title="sample",
    )
    run.update(reason=evil, wandb={"url": 'https://x/")><script>alert(1)</script>'})
    add_note(path, f"TODO {evil}")
    place.write()
    assert place.write().changed == []
    outside = re.sub(r"^(`{3,})text\n.*?^\1$|(?<!\\)(`+)[^`].*?\2", "", place.text, flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"<(?:script|img|/code|/pre)", outside) and "\x1b" not in place.text and "\u202e" not in place.text
    assert [line for line in place.text.split("\n") if line.startswith("#")][:2] == [
        "# Journal",
        *re.findall("^## 2026.*", place.text, re.M),
    ]
    marks = re.findall(rf"^{MARKER}.*", place.text, re.MULTILINE)
    assert [mark.split()[1] for mark in marks] == ["gptshake:begin", "gptshake:end", "gptshake:known"]


def test_pictures_of_a_hundred_runs_take_seconds_and_the_next_journal_needs_neither_matplotlib_nor_torch(place: Place) -> None:
    """Drawn with matplotlib, a hundred pictures would take a tenth of a second each."""
    first = place.run("x0000000", 0)
    for n in range(1, 100):
        copy = place.folder / "runs" / f"run{n}"
        shutil.copytree(first, copy)
        info = json.loads((copy / "run.json").read_text()) | {"id": f"x{n:07d}", "started": BEGIN + 60 * n}
        (copy / "run.json").write_text(json.dumps(info))
        (copy / "config.yaml").write_text((copy / "config.yaml").read_text().replace("lr: 0.002", f"lr: 0.{n:03d}"))
    began = time.process_time()
    assert place.write().drawn == 100
    assert time.process_time() - began < 5
    code = (
        "import sys, pathlib; from gptshake.report.journal import write_journal; p = pathlib.Path('.');"
        "done = write_journal(p / 'JOURNAL.md', p / 'docs/journal', p / 'runs', p / 'multirun');"
        "print(done.entries, done.drawn, *{'torch', 'matplotlib', 'hydra', 'omegaconf'} & set(sys.modules))"
    )
    started = time.process_time_ns(), time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=place.folder, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["100", "0"], done.stdout + done.stderr
    assert time.monotonic() - started[1] < 30  # about 0.6 s on a quiet machine; others may be at work on this one
