"""The Python API does what the command line does: the same losses, the same refusals as exceptions, and leaves the caller as it was."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from omegaconf import OmegaConf, open_dict

import gptshake
from gptshake.api import _changed
from gptshake.errors import ConfigError, RecordError
from gptshake.record.metrics import read_rows
from gptshake.record.run import Run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import gptshake, sys; print(sorted(gptshake.__all__)); print({'torch', 'hydra', 'omegaconf', 'pandas', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "['Run', 'Study', 'compare', 'compose', 'evaluate', 'load_run', 'load_study', 'runs', 'train']",
        "set()",
    ]
    stub = Path(gptshake.__file__).with_suffix(".pyi").read_text()
    assert sorted(re.findall(r"import (\w+) as", stub)) == sorted(gptshake.__all__)  # what a type checker knows of it


def test_a_config_from_compose_is_that_of_the_command_line_and_mistakes_are_exceptions(here: Path, small: tuple[str, ...]) -> None:
    assert gptshake.compose(small).scheduler._target_ == "gptshake.optim.schedule.cosine"
    with pytest.raises(ConfigError, match=r"optimizer\.lrr.*did you mean optimizer\.lr"):
        gptshake.compose([*small, "optimizer.lrr=1"])
    with pytest.raises(ConfigError, match="resume"):
        gptshake.compose([*small, "resume"])
    with pytest.raises(RecordError):
        gptshake.load_run("nothing")
    with pytest.raises(RecordError):
        gptshake.load_study("nothing")
    for call in (gptshake.compose, gptshake.train, gptshake.evaluate):
        for wrong in ("model=tiny data=wiki_char", ["model=tiny", 5]):
            with pytest.raises(ConfigError, match="a list of texts"):
                call(wrong)  # type: ignore[operator]
    with pytest.raises(ConfigError, match="a list of runs"):
        gptshake.compare("latest")
    assert gptshake.runs().empty
    with pytest.raises(RecordError, match="no run 'latest' in elsewhere;"):
        gptshake.load_run("latest", folders="elsewhere")
    with pytest.raises(RecordError, match=r"config\.yaml is missing"):
        gptshake.Run(here).config  # noqa: B018


def test_a_run_and_a_study_stay_what_they_are_when_the_caller_goes_to_another_directory(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Run.create(here / "runs/a-run", id="x3k9a2pq", name="a-run", task="train", config_yaml="seed: 1\n", overrides=[])
    record.append_row({"step": 1, "train/tokens": 64, "train/loss": 4.0})
    record.finish("ok")
    (here / "multirun/rates").mkdir(parents=True)
    (here / "multirun/rates/study.json").write_text('{"name": "rates", "trials": [], "axes": [], "objective": "val/bpb"}')
    run, study = gptshake.load_run("latest"), gptshake.load_study("rates")
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert (run.status, run.metrics["train/loss"].tolist(), study.info["trials"], study.name) == ("ok", [4.0], [], "rates")


@pytest.mark.parametrize("objective", ["trial", "state", "reason", "best", "seconds"])
def test_an_objective_of_ones_own_has_a_column_beside_those_of_every_study(objective: str) -> None:
    trial = {"number": 0, "state": "ok", "params": {}, "value": 2.5, "runs": [{"path": "0", "seed": 0, "state": "ok", "value": 2.5}]}
    study = gptshake.Study(Path("rates"))
    vars(study)["info"] = {"name": "rates", "trials": [trial], "axes": [], "objective": objective, "direction": "minimize"}
    table = study.trials
    assert table.columns.is_unique and table[f"objective {objective}"].tolist() == [2.5] and table["state"].tolist() == ["ok"]


def test_tables_hold_times_whole_numbers_and_missing_values_as_pandas_has_them(here: Path) -> None:
    for name, figures in (("a", {"train/tokens": 64, "steps": 2, "val/loss": 4.0}), ("b", {})):
        record = Run.create(here / f"runs/{name}", id=f"x3k9a2p{name}", name=name, task="train", config_yaml="seed: 1\n", overrides=[])
        record.finish("ok", summary=figures)
    table = gptshake.runs()
    assert isinstance(table["started"].dtype, pd.DatetimeTZDtype) and table["steps"].dtype == table["train/tokens"].dtype == "Int64"
    assert sorted(table["steps"].dropna()) == [2] and table["val/loss"].dtype == float and Path(table["path"][0]).is_absolute()
    assert gptshake.runs("nothing").empty
    run = gptshake.load_run("x3k9a2pa")
    assert gptshake.load_run(run) == run
    assert run.metrics.empty and {"step", "train/loss", "val/loss"} < set(run.metrics)
    (here / "multirun/rates").mkdir(parents=True)
    axis = {
        "key": "optimizer.lr",
        "low": 1e-4,
        "high": 1e-2,
        "log": True,
        "integer": False,
        "powers": False,
        "choices": [],
        "declared": 4e-3,
    }
    trial = {"number": 0, "params": {"optimizer.lr": 1e-3}, "overrides": [], "runs": [], "state": "running", "value": None}
    study = {"name": "rates", "trials": [trial], "axes": [axis], "objective": "val/bpb"}
    (here / "multirun/rates/study.json").write_text(json.dumps(study))
    trials = gptshake.load_study("rates").trials
    assert list(trials["optimizer.lr"]) == [1e-3] and {trials[name].dtype.kind for name in ("val/bpb", "tokens_per_s", "seconds")} == {"f"}


def test_a_damaged_record_does_not_take_the_table_of_the_others_away(here: Path) -> None:
    for name, steps in (("a", 2), ("b", 2.5)):
        record = Run.create(here / f"runs/{name}", id=f"x3k9a2p{name}", name=name, task="train", config_yaml="seed: 1\n", overrides=[])
        record.finish("ok", summary={"steps": steps})
    assert sorted(gptshake.runs()["steps"]) == [2, 2.5]
    (here / "runs/a/metrics.csv").write_text("step,train/loss\n1,4.0\n2,3.0\n")
    metrics = gptshake.load_run("x3k9a2pa").metrics
    assert metrics["step"].tolist() == [1, 2] and metrics["step"].dtype == int and metrics["train/tokens"].isna().all()


def test_what_was_changed_in_a_config_becomes_overrides(here: Path) -> None:
    typed = ["model=tiny", "data=wiki_char"]
    cfg = gptshake.compose(typed)
    with open_dict(cfg):
        cfg.callbacks.mine = {}
    with pytest.raises(ConfigError, match=r"callbacks\.mine was replaced by a mapping: choose its option in compose\(\[\.\.\.\]\)"):
        gptshake.train(cfg)
    with open_dict(cfg):
        cfg.callbacks.mine, cfg.optimizer.lr = 3, 3e-3
        del cfg.callbacks.samples
    assert _changed(cfg) == [*typed, "optimizer.lr=0.003", "~callbacks.samples", "+callbacks.mine=3"]
    with pytest.raises(ConfigError, match="does not say which overrides it was made of"):
        gptshake.train(OmegaConf.create({"seed": 1}))


@pytest.mark.slow
def test_a_run_from_python_equals_the_one_that_its_record_would_repeat(
    here: Path, small: tuple[str, ...], commands: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    cfg = gptshake.compose([*small, "--dirty"])
    cfg.optimizer.lr, cfg.note, cfg.model.dropout = 3e-3, "it's a \\ note, with=all", 0.0
    run = gptshake.train(cfg)
    assert "done: val loss" in capsys.readouterr().out
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert (run.status, run.config.optimizer.lr, run.config.note, run.config.model.dropout) == ("ok", 3e-3, cfg.note, 0.0)

    assert commands(here, *run.info["overrides"], "--dirty").code == 0
    again = gptshake.load_run("latest")
    assert again.id != run.id and list(again.metrics["val/loss"].dropna()) == list(run.metrics["val/loss"].dropna())

    rows, table = read_rows(run.path / "metrics.csv"), run.metrics
    assert list(table["step"]) == [row["step"] for row in rows] and list(table["train/loss"]) == [row["train/loss"] for row in rows]
    assert run.tokenizer().decode(run.tokenizer().encode("the ")) == "the "
    text = run.generate("the ", 20, seed=1)
    assert text.startswith("the ") and text == run.generate("the ", 20, seed=1) and text[4:] == run.generate("the ", 20, seed=1, echo=False)
    assert not run.model().training
    with pytest.raises(ConfigError, match="no option temp: it has n_tokens, stop, echo, temperature"):
        run.generate("the ", temp=1)
    with pytest.raises(ConfigError, match="stop is a text, or a list of texts, none of them empty"):
        run.generate("the ", stop=["x", ""])
    with pytest.raises(ConfigError, match="device=gpu0 is unknown"):
        run.model("gpu0")
    with pytest.raises(ConfigError, match=r"task\.to=onyx .* did you mean onnx"):
        run.export("onyx")
    assert run.export("hf", "exported").resolve() == here / "exported" and (here / "exported/model.safetensors").is_file()

    found = gptshake.runs("status=ok")
    assert set(found["id"]) == {run.id, again.id} and set(found["optimizer.lr"]) == {3e-3}
    cfg.seed = 5
    other = gptshake.train(cfg, quiet=True)
    assert capsys.readouterr().out == ""
    differ = gptshake.compare([run, other.id])
    assert list(differ.columns) == [run.id, other.id]
    assert list(differ.loc["seed"]) == [1337, 5] and "val/loss" in differ.index and "optimizer.lr" not in differ.index


@pytest.mark.slow
def test_what_ends_a_training_is_raised_by_its_class(here: Path, small: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="-m"):
        gptshake.train([*small, "seed=1,2", "--dirty"])
    with pytest.raises(ConfigError, match="leave task= out"):
        gptshake.train([*small, "task=plan", "--dirty"])
    assert not (here / "plans").exists()
    gptshake.compose([*small, "resume=auto", "--dirty"])
    with pytest.raises(ConfigError, match="leave task= out"):
        gptshake.train([*small, "task=plan", "resume=auto", "--dirty"])
    assert "resume=auto:" not in capsys.readouterr().out  # only what begins a run says so
    with pytest.raises(ConfigError, match="load_study"):
        gptshake.train(["-m", *small, "seed=1,2", "--dirty"])
    with pytest.raises(ConfigError, match="no flag but --dirty"):
        gptshake.train([*small, "--help", "--dirty"])
    cfg = gptshake.compose([*small, "--dirty"])
    cfg.optimizer.lr = -1.0
    with pytest.raises(ConfigError, match=r"optimizer\.lr"):
        gptshake.train(cfg)
    cfg = gptshake.compose(small)
    cfg.hydra = None
    with pytest.raises(ConfigError, match="compose"):
        gptshake.train(cfg)
    assert gptshake.runs().empty


@pytest.mark.slow
@pytest.mark.parametrize("ends", ["interrupt", "kill"])
def test_an_interrupted_cell_and_a_killed_kernel_leave_a_run_that_continues(here: Path, small: tuple[str, ...], ends: str) -> None:
    options = [*small, "trainer.max_steps=20000", "trainer.val_check_interval=20000", "scheduler=constant", "callbacks=default"]
    options += ["callbacks.samples.times=0", "callbacks.progress.every_s=0.1", "--dirty"]
    code = f"import gptshake\ntry:\n    gptshake.train({options!r})\nexcept KeyboardInterrupt:\n    print('interrupted cell')"
    kernel = subprocess.Popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, text=True)
    assert kernel.stdout is not None
    lines = []
    for line in kernel.stdout:
        lines.append(line)
        if re.match(r"step +[1-9]\d* of", line):
            break
    kernel.send_signal(signal.SIGINT if ends == "interrupt" else signal.SIGKILL)
    rest = kernel.communicate(timeout=120)[0]
    until = time.monotonic() + 60
    while (run := gptshake.load_run("latest")).status == "running" and time.monotonic() < until:
        time.sleep(0.1)
    assert run.status == "interrupted", "".join(lines)
    if ends == "interrupt":
        assert "resume with" in rest and rest.endswith("interrupted cell\n")
    done = int(run.metrics["step"].max())
    more = gptshake.train([f"resume={run.id}", f"trainer.max_steps={done + 5}", "--dirty"], quiet=True)
    assert more.path.samefile(run.path) and list(more.metrics["step"]) == list(range(1, done + 6))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_runs_as_it_stands(here: Path) -> None:
    cells = json.loads((ROOT / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    lines = []
    for cell in cells:
        for line in "".join(cell["source"]).splitlines() if cell["cell_type"] == "code" else ():
            command = line.removeprefix("!{sys.executable} ")
            lines.append(f"import os; assert os.system(sys.executable + ' ' + {command!r}) == 0" if line.startswith("!") else line)
    lines += ["import matplotlib.pyplot as plt", "curves = [line.get_xydata() for line in plt.gca().lines]"]
    lines.append(
        "assert len(curves) == 2 and all(((a := curve[1:] + curve[:-1]) == a).all(1).any() for curve in curves)"
    )  # nothing is drawn to a NaN
    script = "import sys\nimport matplotlib\nmatplotlib.use('agg')\n" + "\n".join(lines)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr
    assert "there is no such key" in done.stdout and "done: val loss" in done.stdout
