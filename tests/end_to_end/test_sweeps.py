"""Sweeps as people run them: the literal commands, what they leave, and what survives whatever dies."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from gptshake.config.layout import packaged_conf
from gptshake.outcome import read_outcome, write_task
from gptshake.record.metrics import read_rows

pytestmark = pytest.mark.slow

STEPS = ("trainer.max_steps=8", "trainer.val_check_interval=4")
LONG = ("trainer.max_steps=120", "trainer.val_check_interval=20")
LIST = ("optimizer.lr=1e-3,3e-3,1e-2,3e-2",)


class Study:
    """The only study below a folder, as its readers see it."""

    def __init__(self, folder: Path) -> None:
        (self.folder,) = [file.parent for file in (folder / "multirun").glob("*/study.json")]
        self.rows: dict[str, Any] = json.loads((self.folder / "study.json").read_text(encoding="utf-8"))

    @property
    def trials(self) -> list[dict[str, Any]]:
        return list(self.rows["trials"])

    def states(self) -> list[str]:
        return [trial["state"] for trial in self.trials]

    def values(self) -> dict[str, Any]:
        """Point -> value: what must be the same however the study was run."""
        return {json.dumps(trial["params"]): trial["value"] for trial in self.trials if trial["state"] == "ok"}

    def losses(self, path: str) -> list[Any]:
        return [row["train/loss"] for row in read_rows(self.folder / path / "metrics.csv")]


def until(happened: Callable[[], bool], seconds: float = 60.0) -> None:
    limit = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < limit, "it never happened"
        time.sleep(0.02)


def running_pids(folder: Path) -> list[int]:
    """Processes that have a file below this folder open: the runs of a study."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(folder) in str(link.readlink()) for link in (process / "fd").iterdir()):
                found.append(int(process.name))
        except OSError:
            continue
    return found


# The literal command


def test_one_configuration_runs_with_several_seeds_without_m(commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(tmp_path, *small, *STEPS, "repeats=3")
    assert done.code == 0, done.err
    (trial,) = Study(tmp_path).trials
    values = [run["value"] for run in trial["runs"]]
    assert [run["seed"] for run in trial["runs"]] == [1337, 1338, 1339] and len(set(values)) == 3
    assert trial["value"] == pytest.approx(sum(values) / 3, rel=1e-12)
    assert "one configuration x 3 seeds" in done.out and "mean of 3 seeds, 95 % interval" in done.out
    assert (Study(tmp_path).folder / "plots" / "curves.png").exists()


def test_a_learning_rate_is_found_by_the_word_range(commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(tmp_path, "-m", *small, *STEPS, "optimizer.lr=range")
    assert done.code == 0, done.err
    study = Study(tmp_path)
    assert study.rows["search"] == "line" and study.rows["state"] == "done" and 3 <= len(study.trials) <= 20
    rates = [trial["params"]["optimizer.lr"] for trial in study.trials]
    assert rates[0] == 4e-3 and all(1e-5 <= rate <= 3e-2 for rate in rates) and len(set(rates)) == len(rates)
    assert "line over optimizer.lr | usually 6 trials, at most 8 on " in done.out
    assert done.out.index("6 runs and 2 of a second seed x") < done.out.index("trial 0 begins")
    assert len(study.rows["confirm"]) >= 2 and {run["seed"] for row in study.rows["confirm"] for run in row["runs"]} == {1338}
    assert "The best is trial" in done.out and "With a second seed: trial" in done.out
    assert "Repeat it:  python -m gptshake" in done.out and "\x1b" not in done.out
    names = {path.relative_to(study.folder).as_posix() for path in study.folder.rglob("*")}
    assert {"journal.log", "report.html", "best.yaml", "plots/basin.png", "plots/basin.svg", "plots/curves.png"} <= names


def test_every_trial_is_an_ordinary_run_that_can_be_repeated_alone(commands: Any, small: Any, tmp_path: Path, the_run: Any) -> None:
    done = commands(tmp_path, "-m", *small, *STEPS, "optimizer.lr=1e-3,1e-2")
    assert done.code == 0, done.err
    study = Study(tmp_path)
    record = json.loads((study.folder / "1" / "run.json").read_text())
    assert record["status"] == "ok" and record["summary"]["val/bpb"] == study.trials[1]["value"]
    assert record["trial"] == {"study": study.folder.name, "number": 1, "repeat": 0, "params": {"optimizer.lr": 0.01}}
    assert "test/bpb" not in record["summary"]
    again = commands(tmp_path, *record["overrides"])
    assert again.code == 0, again.err
    assert [row["train/loss"] for row in read_rows(the_run(tmp_path).path / "metrics.csv")] == study.losses("1")


def test_the_best_is_used_as_an_experiment(commands: Any, small: Any, tmp_path: Path, the_run: Any) -> None:
    commands(tmp_path, "-m", *small, *STEPS, "optimizer.lr=1e-3,1e-2", "note=a 'note', with (odd) letters")
    study = Study(tmp_path)
    best = min(study.trials, key=lambda trial: trial["value"])
    done = commands(tmp_path, f"experiment={os.path.relpath(study.folder / 'best.yaml', tmp_path)}", "trainer.max_steps=2")
    assert done.code == 0, done.err
    config = OmegaConf.load(the_run(tmp_path).path / "config.yaml")
    assert config.optimizer.lr == best["params"]["optimizer.lr"] and config.trainer.max_steps == 2 and config.model.n_embd == 16
    done = commands(tmp_path, "-m", f"experiment={study.folder}/best.yaml", "ablate=[scheduler=one_cycle]", "study=ablation")
    assert done.code == 0, done.err


def test_the_best_starts_from_the_same_tokenizer_and_weights_in_another_folder(
    commands: Any, small: Any, tmp_path: Path, the_run: Any
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    assert commands(tmp_path, *small, *STEPS, "paths.run_dir=start").code == 0
    words = ("tokenizer.path=start/tokenizer", "init_from=start", "optimizer.lr=1e-3,1e-2")
    done = commands(tmp_path, "-m", *small, *STEPS, *words)
    assert done.code == 0, done.err
    done = commands(other, f"experiment={Study(tmp_path).folder / 'best.yaml'}", "trainer.max_steps=2")
    assert done.code == 0, done.err
    config = OmegaConf.load(the_run(other).path / "config.yaml")
    assert (config.tokenizer.path, config.init_from) == (str(tmp_path / "start" / "tokenizer"), str(tmp_path / "start"))


def test_the_same_command_again_runs_nothing_and_more_trials_are_more(commands: Any, small: Any, tmp_path: Path) -> None:
    words = ("-m", *small, *STEPS, "optimizer.lr=range", "model.dropout=range", "hydra.sweeper.n_trials=3")
    assert commands(tmp_path, *words).code == 0
    before = Study(tmp_path).values()
    done = commands(tmp_path, *words)
    assert done.code == 0 and "3 trials ended before" in done.out and "begins" not in done.out
    assert commands(tmp_path, *words[:-1], "hydra.sweeper.n_trials=5").code == 0
    after = Study(tmp_path)
    assert len(after.trials) == 5 and before.items() <= after.values().items()
    assert after.trials[0]["params"] == {"optimizer.lr": 4e-3, "model.dropout": 0.2}


def test_the_report_is_drawn_again_by_name_without_torch(commands: Any, light_commands: Any, small: Any, tmp_path: Path) -> None:
    commands(tmp_path, "-m", *small, *STEPS, "optimizer.lr=1e-3,1e-2", "study=mine")
    (tmp_path / "multirun/mine/report.html").unlink()
    done = light_commands(tmp_path, "task=report", "study=mine")
    assert done.code == 0 and "The best is trial" in done.out
    assert (tmp_path / "multirun/mine/report.html").exists()
    assert light_commands(tmp_path, "task=report", "study=mne").error == "There is no study 'mne'; did you mean mine?"


KEEP = "from gptshake.sweep.executor import local\nlocal.remove_task = lambda folder: None\n"


def test_a_trial_is_a_file_that_any_process_can_run(commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(tmp_path, "-m", *small, *STEPS, "optimizer.lr=1e-3,1e-2", before=KEEP)
    assert done.code == 0, done.err
    study = Study(tmp_path)
    task = json.loads((study.folder / "1/task.json").read_text())
    task["shared"]["conf"] = [str(packaged_conf())]  # the sweep's own copy is gone
    write_task(study.folder / "other", task | {"path": "other"})
    command = [sys.executable, "-m", "gptshake.child", str(study.folder / "other")]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    outcome = read_outcome(study.folder / "other")
    assert outcome is not None and outcome.value["val/bpb"] == study.trials[1]["value"]
    assert study.losses("other") == study.losses("1")


# What is compared


def test_batch_sizes_are_compared_at_equal_tokens(commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(
        tmp_path, "-m", *small, "data.batch_size=8", "data.micro_batch_size=auto", "trainer.max_steps=12", "data.batch_size=4,8,16"
    )
    assert done.code == 0, done.err
    study = Study(tmp_path)
    records = [json.loads((study.folder / str(number) / "run.json").read_text()) for number in range(3)]
    assert [record["budget"]["tokens"] for record in records] == [12 * 8 * 16] * 3
    assert [record["budget"]["steps"] for record in records] == [24, 12, 6]
    assert [record["resolved"]["trainer.val_check_interval"] for record in records] == [8, 4, 2]
    assert len({trial["value"] for trial in study.trials}) == 3


def test_repeats_share_their_seeds_across_points_and_confirmation_takes_fresh_ones(commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(tmp_path, "-m", *small, *STEPS, "optimizer.lr=1e-3,1e-2", "repeats=2", "confirm=2", "seed=7")
    assert done.code == 0, done.err
    study = Study(tmp_path)
    assert [[run["seed"] for run in trial["runs"]] for trial in study.trials] == [[7, 8], [7, 8]]
    assert all(trial["value"] == pytest.approx(sum(run["value"] for run in trial["runs"]) / 2) for trial in study.trials)
    assert [[run["seed"] for run in row["runs"]] for row in study.rows["confirm"]] == [[9, 10], [9, 10]]
    assert OmegaConf.load(study.folder / "1/1/config.yaml").seed == 8
    assert OmegaConf.load(study.folder / "confirm/0.3/config.yaml").seed == 10
    assert "confirmed with fresh seeds" in done.out


def test_changes_are_compared_with_one_base_by_pairs(commands: Any, small: Any, tmp_path: Path) -> None:
    words = ("-m", *small, *STEPS, "ablate=[optimizer.lr=1e-2,scheduler=one_cycle]", "repeats=2", "optimizer.lr=1e-3")
    done = commands(tmp_path, *words)
    assert done.code == 0, done.err
    study = Study(tmp_path)
    assert [trial["params"]["ablate"] for trial in study.trials] == ["base", "optimizer.lr=1e-2", "scheduler=one_cycle", "all together"]
    rates = [OmegaConf.load(study.folder / f"{number}/0/config.yaml").optimizer.lr for number in range(4)]
    assert rates == [1e-3, 1e-2, 1e-3, 1e-2]
    base, change = (trial["runs"] for trial in study.trials[:2])
    mean = sum(b["value"] - a["value"] for a, b in zip(base, change, strict=True)) / 2
    assert f"optimizer.lr=1e-2: within noise, {mean:+.4f}" in done.out or f"{mean:+.4f}" in done.out


def test_a_change_of_the_text_is_trained_on_its_own_text(commands: Any, small: Any, tmp_path: Path) -> None:
    for name, letters in (("mine", "ab"), ("other", "xyz")):
        (tmp_path / f"{name}.txt").write_text(" ".join(random.Random(1).choices(letters, k=4000)))
        (tmp_path / "conf/data").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"conf/data/{name}.yaml").write_text(f"defaults: [text, _self_]\npath: {name}.txt\n")
    words = [text for text in small if not text.startswith(("data=", "data.path="))]
    done = commands(tmp_path, "-m", *words, *STEPS, "data=mine", "tokenizer=char", "ablate=[data=other]")
    assert done.code == 0, done.err
    paths = [OmegaConf.load(file).data.path for file in sorted(Study(tmp_path).folder.glob("*/config.yaml"))]
    assert [Path(path).name for path in paths] == ["mine.txt", "other.txt"]


def test_a_sampler_of_optuna_takes_the_place_of_ours(commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(
        tmp_path, "-m", *small, *STEPS, "optimizer.lr=range", "model.dropout=range", "sampler=random", "hydra.sweeper.n_trials=7", "study=r"
    )
    assert done.code == 0, done.err
    assert len(Study(tmp_path).trials) == 7


def test_proposals_can_be_the_same_whatever_finishes_first(commands: Any, small: Any, tmp_path: Path) -> None:
    proposed = []
    for slots in ("1", "2"):
        (tmp_path / slots).mkdir()
        words = ("hydra.sweeper.deterministic=true", "executor=local", f"hydra.sweeper.executor.slots={slots}", "trainer.threads=1")
        done = commands(tmp_path / slots, "-m", *small, *STEPS, "optimizer.lr=range", *words)
        assert done.code == 0, done.err
        study = Study(tmp_path / slots)
        proposed.append([trial["params"] for trial in study.trials])
        records = [json.loads(file.read_text(encoding="utf-8")) for file in study.folder.glob("*/run.json")]
        assert {record["resolved"]["trainer.threads"] for record in records} == {1} and "1 thread each" in done.out
    assert proposed[0] == proposed[1]


def test_only_the_best_keep_their_weights(commands: Any, small: Any, tmp_path: Path) -> None:
    assert commands(tmp_path, "-m", *small, *STEPS, *LIST, "hydra.sweeper.keep=1").code == 0
    study = Study(tmp_path)
    best = min(study.trials, key=lambda trial: trial["value"])["number"]
    assert [trial["number"] for trial in study.trials if (study.folder / str(trial["number"]) / "checkpoints").exists()] == [best]


def test_mandatory_groups_are_swept_with_fixed_keys_and_a_price_for_each_option(commands: Any, small: Any, tmp_path: Path) -> None:
    words = [word for word in small if not word.startswith("model=")]
    done = commands(tmp_path, "-m", "model=tiny,baby", *words, *STEPS, "seed=1,2", "study=groups")
    assert done.code == 0, done.err
    study = Study(tmp_path)
    assert [trial["params"] for trial in study.trials] == [{"model": name, "seed": seed} for name in ("tiny", "baby") for seed in (1, 2)]
    assert done.out.index("model=tiny: about") < done.out.index("model=baby: about") < done.out.index("estimated cost: 4 runs")
    assert "multirun/groups/best.yaml" in done.out and study.rows["fixed"].count("model=tiny") == 0
    shapes = [OmegaConf.load(study.folder / f"{number}/config.yaml").model.n_layer for number in range(4)]
    assert len(set(shapes)) == 1  # the key typed beside the swept group


def test_a_swept_value_is_what_its_trial_runs_with_though_the_others_are_frozen(commands: Any, small: Any, tmp_path: Path) -> None:
    axes = ("trainer.precision=32-true,bf16-mixed", "trainer.threads=1,2", "trainer.max_steps=2,3")
    done = commands(tmp_path, "-m", *small, *axes, "study=frozen", "hydra.sweeper.n_trials=7")
    assert done.code == 0, done.err
    study = Study(tmp_path)
    assert len(study.trials) == 7 and "| 7 trials on" in done.out
    for trial in study.trials:
        config = OmegaConf.load(study.folder / f"{trial['number']}/config.yaml")
        assert {key: OmegaConf.select(config, key) for key in trial["params"]} == trial["params"]
    winner = next(trial for trial in study.trials if f"The best is trial {trial['number']}:" in done.out)
    assert f"valid for {winner['runs'][0]['tokens']} tokens" in done.out


def test_a_study_in_which_every_trial_diverged_says_so_and_fails(commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(tmp_path, "-m", *small, *STEPS, "optimizer.lr=1e9,1e10", "trainer.gradient_clip_val=null")
    assert done.code == 1 and "All 2 trials diverged, so there is no answer" in done.error
    assert "All 2 trials diverged, so there is no answer" in done.out and "No trial has finished yet" not in done.out


# What dies


def test_a_trial_that_fails_costs_itself_alone(commands: Any, small: Any, tmp_path: Path) -> None:
    fails = "from gptshake.setup import instantiate\ndef data_module(cfg, *rest, own=instantiate.data_module):\n    assert cfg.seed != 2, 'two'\n"
    done = commands(
        tmp_path, "-m", *small, *STEPS, "seed=1,2,3", before=fails + "    return own(cfg, *rest)\ninstantiate.data_module = data_module\n"
    )
    assert done.code == 1 and "1 of 3 trials failed" in done.err and "AssertionError: two" in done.err
    assert "Traceback" not in done.err and Study(tmp_path).states() == ["ok", "failed", "ok"]


def test_files_of_experiments_are_swept_like_names_and_the_records_do_without_them(commands: Any, small: Any, tmp_path: Path) -> None:
    for name, rate, threads in (("x", 1e-3, 1), ("y", 2e-3, 2)):
        (tmp_path / f"{name}.yaml").write_text(f"optimizer: {{lr: {rate}}}\ntrainer: {{threads: {threads}}}\n")
    argv = [text for text in small if text != "trainer.threads=1"]
    done = commands(tmp_path, "-m", *argv, *STEPS, "experiment=x.yaml,y.yaml")
    assert done.code == 0, done.err
    study = Study(tmp_path)
    records = [json.loads((study.folder / str(number) / "run.json").read_text()) for number in (0, 1)]
    assert [record["overrides"][0] for record in records] == ["optimizer.lr=0.001", "optimizer.lr=0.002"]
    assert [record["resolved"]["trainer.threads"] for record in records] == [1, 2]
    assert not any(text.startswith("experiment=") for record in records for text in record["overrides"])
    assert "tokens (cosine, warm-up 2 steps, 25 % of the run)" in done.out and done.out.count("| cosine, warm-up 2 steps") == 1


def test_a_trial_that_diverges_is_no_failure_and_never_wins(commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(tmp_path, "-m", *small, *STEPS, "optimizer.lr=1e-3,1e9", "trainer.gradient_clip_val=null")
    assert done.code == 0, done.err
    study = Study(tmp_path)
    assert study.states() == ["ok", "diverged"] and "not finite" in study.trials[1]["reason"]
    assert json.loads((study.folder / "1/run.json").read_text())["status"] == "failed"


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV])
def test_a_run_that_is_killed_is_marked_with_its_reason_and_the_study_goes_on(
    signum: int, commands: Any, small: Any, tmp_path: Path
) -> None:
    command = commands.start(tmp_path, "-m", *small, *LONG, *LIST, "callbacks=none")
    command.until("trial 0 begins")
    study = next((tmp_path / "multirun").iterdir())
    until(lambda: bool(running_pids(study / "0")))
    for pid in running_pids(study / "0"):
        os.kill(pid, signum)
    done = command.wait()
    assert done.code == 1 and f"killed by {signal.Signals(signum).name}" in done.err
    assert Study(tmp_path).states() == ["failed", "ok", "ok", "ok"]


def test_a_run_that_hangs_is_ended_after_its_time(commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(tmp_path, "-m", *small, "trainer.max_steps=100000", "seed=1,2", "hydra.sweeper.trial_timeout=1.5")
    assert done.code == 1 and "no end after 1.5 s (hydra.sweeper.trial_timeout)" in done.err
    assert Study(tmp_path).states() == ["failed", "failed"] and not running_pids(tmp_path)


# From the third writing of study.json on, the controller's disk takes nothing.
FULL = """
import errno, os
from gptshake import files
written, fsync, controller = [], files.fsync, os.getpid()
def flush(path):
    written.extend([path] * path.name.startswith(".study.json"))
    if len(written) > 2 and os.getpid() == controller:
        raise OSError(errno.ENOSPC, "No space left on device")
    fsync(path)
files.fsync = flush
"""


def test_a_full_disk_is_told_in_one_sentence_and_the_same_command_goes_on(commands: Any, small: Any, tmp_path: Path) -> None:
    words = ("-m", *small, *LONG, *LIST)
    done = commands(tmp_path, *words, before=FULL)
    assert done.code == 1 and "The same command again resumes it" in done.error
    assert re.search(r"cannot continue. The disk is full: \S+/study.json could not be written", done.error)
    assert done.out.index("was interrupted; the same command resumes it") < done.out.index("no file was written: The disk is full")
    assert not running_pids(tmp_path)
    again = commands(tmp_path, *words)
    assert again.code == 0, again.err
    assert Study(tmp_path).states() == ["ok"] * 4


@pytest.fixture(scope="module")
def undisturbed(commands: Any, small: Any, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study that ran to its end at once."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert commands(folder, "-m", *small, *LONG, *LIST, "callbacks=none").code == 0
    return Study(folder)


def test_an_interrupt_saves_the_running_trials_and_the_same_command_goes_on(
    commands: Any, small: Any, undisturbed: Study, tmp_path: Path
) -> None:
    words = ("-m", *small, *LONG, *LIST, "callbacks=none")
    command = commands.start(tmp_path, *words)
    command.until("trial 1 begins")
    study = next((tmp_path / "multirun").iterdir())
    until(lambda: len(read_rows(study / "1/metrics.csv")) > 5)
    command.signal(signal.SIGINT)
    done = command.wait()
    assert done.code == 130 and "the same command resumes it" in done.out
    assert Study(tmp_path).rows["state"] == "stopped" and not running_pids(study)
    again = commands(tmp_path, *words)
    assert again.code == 0, again.err
    parts = Study(tmp_path)
    assert parts.values() == undisturbed.values() and parts.states() == ["ok"] * 4
    assert all(parts.losses(str(number)) == undisturbed.losses(str(number)) for number in range(4))


@pytest.mark.parametrize("draw", range(4))
def test_a_killed_controller_leaves_nothing_running_and_the_same_command_goes_on(
    draw: int, commands: Any, small: Any, undisturbed: Study, tmp_path: Path
) -> None:
    words = ("-m", *small, *LONG, *LIST, "callbacks=none")
    moments = random.Random(draw)
    for _ in range(2):
        command = commands.start(tmp_path, *words)
        time.sleep(moments.uniform(0.3, 2.5))
        command.signal(signal.SIGKILL)
        assert command.wait().code in (-9, 0)
        until(lambda: not running_pids(tmp_path / "multirun"))
    done = commands(tmp_path, *words)
    assert done.code == 0, done.err
    parts = Study(tmp_path)
    assert parts.states() == ["ok"] * 4 and parts.values() == undisturbed.values()


def test_a_second_controller_is_told_of_the_first(commands: Any, small: Any, tmp_path: Path) -> None:
    words = ("-m", *small, "trainer.max_steps=100000", "trainer.val_check_interval=100000", *LIST, "callbacks=none")
    first = commands.start(tmp_path, *words)
    first.until("trial 0 begins")
    second = commands(tmp_path, *words)
    assert second.code == 2 and "is running already" in second.error
    first.signal(signal.SIGINT)
    assert first.wait().code == 130 and Study(tmp_path).rows["state"] == "stopped"


def test_a_study_about_something_else_is_refused_with_the_difference(commands: Any, small: Any, tmp_path: Path) -> None:
    assert commands(tmp_path, "-m", *small, *STEPS, "optimizer.lr=1e-3,1e-2", "study=mine").code == 0
    before = (tmp_path / "multirun/mine/study.json").read_bytes()
    done = commands(tmp_path, "-m", *small, *STEPS, "optimizer.lr=1e-3,1e-1", "model.dropout=0", "study=mine")
    assert done.code == 2 and "range of optimizer.lr: was choices" in done.error and "model.dropout: was" in done.error
    assert (tmp_path / "multirun/mine/study.json").read_bytes() == before


def test_a_config_that_is_edited_while_the_sweep_runs_changes_nothing(commands: Any, small: Any, tmp_path: Path) -> None:
    (tmp_path / "conf" / "scheduler").mkdir(parents=True)
    mine = tmp_path / "conf/scheduler/mine.yaml"
    mine.write_text("_target_: gptshake.optim.schedule.constant\n_partial_: true\nwarmup: 0\n")
    command = commands.start(tmp_path, "-m", *small, *LONG, "seed=1,2,3,4", "scheduler=mine", "callbacks=none")
    command.until("trial 0 begins")
    mine.write_text("_target_: gptshake.optim.schedule.nothing\n")
    done = command.wait()
    assert done.code == 0, done.err
    last = [read_rows(Study(tmp_path).folder / str(number) / "metrics.csv")[-1]["train/lr"] for number in range(4)]
    assert last == [pytest.approx(4e-3)] * 4


def test_what_cannot_begin_leaves_nothing(commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(tmp_path, "-m", *small, *STEPS, "optimizer.lr=1e-3,1e-2", "trainer.accelerator=mps")
    assert done.code == 2, done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("optimizer.lr=range",), "optimizer.lr=range names several values: add -m"),
        (("confirm=3",), "confirm= is for a sweep: add -m"),
        (("executor=slurm",), "executor= is for a sweep: add -m"),
        (("study=night1",), "study= is for a sweep: add -m"),
        (("repeats=3", "task=plan"), "repeats= is for a sweep of trainings: leave it out with this task"),
        (("-m", "task=find_lr", "optimizer.lr=range"), "optimizer.lr=range is for a study of trainings: here list the values"),
        (("-m", "hydra/sweeper=basic", "optimizer.lr=interval(1e-3,1e-2)"), "interval(1e-3,1e-2) is for a study of trainings"),
        (("-m", "optimizer.lr=range", "hydra.sweep.subdir=x"), "hydra.sweep.subdir= means nothing to a study"),
        (("-m", "optimizer.lr=range(1e-5,1e-2)"), "optimizer.lr=interval(1e-5,1e-2)"),
        (("-m", "model.bias=range"), "search_space has no range for model.bias"),
        (("-m", "optimizer.lr=range", "ablate=[seed=2]"), "cannot be swept at the same time"),
        (("-m", "seed=1,2", "repeats=2"), "seed is swept, and repeats="),
        (("-m", "ablate=[optimizer.lr=fast]"), "optimizer.lr=fast"),
        (("-m", "optimizer.lr=range", "enqueue=[{model.dropout:0.1}]"), "enqueue names model.dropout"),
        (("-m", "optimizer.lr=range", "hydra.sweeper.hours=1", "hydra.sweeper.n_trials=3"), "give it or n_trials"),
        (("-m", "optimizer.lr=range", "repeats=0"), "repeats=0 cannot work: it must be a whole number from 1 up"),
        (("-m", "optimizer.lr=range", "hydra.sweeper.direction=down"), "hydra.sweeper.direction=down is not known"),
        (("-m", "optimizer.lr=range", "hydra.sweeper.n_trails=3"), "n_trails"),
        (("-m", "optimizer.lr=1e-3,-1"), "optimizer.lr=-1.0 cannot work"),
        (("-m", "optimizer.lr=1e-3,1e-2", "optimizer.lr=range"), "optimizer.lr is swept twice"),
        (("-m", "ablate=[optimizer.lr=1e-3,optimizer.lr=1e-3]"), "names a change twice"),
        (("-m", "seed=range(5,2)"), "holds no value"),
        (("-m", "optimizer.lr=range", "sampler=tep"), "there is no such sampler; did you mean tpe?"),
        (("-m", "optimizer.lr=range", "hydra.sweeper.executor.slots=0", "executor=local"), "executor.slots=0 cannot work"),
    ],
)
def test_a_mistake_in_a_sweep_is_one_sentence(words: tuple[str, ...], part: str, commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(tmp_path, *small, *words)
    assert done.code == 2 and part in done.error
    assert not (tmp_path / "runs").exists() and not list(tmp_path.glob("multirun/*/study.json"))


# Another app

APP = """
import time

import hydra


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(cfg):
    time.sleep(0.05)
    if cfg.x == 3:
        raise ValueError("three")
    return (cfg.x - 2) ** 2 + cfg.y


if __name__ == "__main__":
    main()
"""


@pytest.fixture
def app(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A ten-line Hydra app in an empty folder; called with its arguments."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "app.py").write_text(APP)
    config = {"defaults": ["_self_", {"override hydra/sweeper": "gptshake"}], "x": 1, "y": 0.5, "hydra": {"sweep": {"dir": "out/study"}}}
    (tmp_path / "conf/config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "app.py", *words], cwd=tmp_path, capture_output=True, text=True, check=False)

    return call


def test_another_app_uses_the_sweeper(app: Callable[..., Any], tmp_path: Path) -> None:
    done = app("-m", "x=0,1,2", "y=interval(0.5,1)", "hydra.sweeper.n_trials=8")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out/study/study.json").read_text())
    assert len(rows["trials"]) == 8 and rows["trials"][0]["params"] == {"x": 1, "y": 0.5}
    assert all(trial["value"] == pytest.approx((trial["params"]["x"] - 2) ** 2 + trial["params"]["y"]) for trial in rows["trials"])
    again = app("-m", "x=0,1,2", "y=interval(0.5,1)", "hydra.sweeper.n_trials=8")
    assert again.returncode == 0 and "begins" not in again.stdout


def test_a_failure_in_another_app_is_told_without_a_traceback_of_ours(app: Callable[..., Any]) -> None:
    done = app("-m", "x=1,2,3")
    assert done.returncode == 1 and "1 of 3 trials failed" in done.stderr and "ValueError: three" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_mistake_in_another_app_is_one_sentence(app: Callable[..., Any], tmp_path: Path) -> None:
    done = app("-m", "x=0,1", "+hydra/sweeper/sampler=tpe")
    assert done.returncode == 1 and "+hydra/sweeper/sampler=tpe adds a key that nobody reads" in done.stderr
    (tmp_path / "app.py").write_text(APP.replace('if __name__ == "__main__":\n    main()', "main()"))
    done = app("-m", "x=0,1")
    assert done.returncode == 1 and 'call it below if __name__ == "__main__":' in done.stderr
    assert not (tmp_path / "out").exists() and "Traceback" not in done.stderr


def test_another_app_may_write_a_metrics_file_of_its_own_and_tiny_objectives(app: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        APP.replace("    time.sleep(0.05)\n", "")
        .replace("import time\n", "from pathlib import Path\n\nfrom hydra.core.hydra_config import HydraConfig\n")
        .replace("    if cfg.x == 3:", "    out = Path(HydraConfig.get().runtime.output_dir)\n"
        "    (out / 'metrics.csv').write_text('epoch;loss\\n1;2.5\\n')\n    (out / 'run.json').write_text('{}')\n"
        "    (out / 'checkpoints').mkdir()\n    if cfg.x == 3:")
        .replace("(cfg.x - 2) ** 2 + cfg.y", "1e-6 * (cfg.x + 4)")
    )  # fmt: skip
    done = app("-m", "x=0,1,2,4", "hydra.sweeper.keep=1")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out/study/study.json").read_text())
    assert rows["state"] == "done" and [trial["value"] for trial in rows["trials"]] == pytest.approx([4e-6, 5e-6, 6e-6, 8e-6])
    assert "value 4e-6." in done.stdout and "-> value 5e-6 |" in done.stdout
    assert all((tmp_path / "out/study" / str(number) / "checkpoints").is_dir() for number in range(4))


@pytest.mark.parametrize("values", ["1,inf", "-inf,2,1,4"])
def test_a_study_of_another_app_over_numbers_that_are_not_finite_has_a_report(values: str, app: Callable[..., Any], tmp_path: Path) -> None:
    done = app("-m", f"y={values}")
    assert "Traceback" not in done.stderr and (tmp_path / "out/study/report.html").exists(), done.stderr


def test_wandb_groups_the_trials_of_a_study(commands: Any, small: Any, tmp_path: Path) -> None:
    words = [word for word in small if word != "logger=none"]
    done = commands(tmp_path, "-m", *words, *STEPS, "seed=1,2", "logger=wandb", "study=mine")
    assert done.code == 0, done.err
    files = list((tmp_path / "multirun/mine").glob("*/wandb/offline-run-*/*.wandb"))
    assert len(files) == 2
    for file in files:
        content = file.read_bytes()
        assert b'{"study":"mine","number":' in content.replace(b" ", b"") and content.count(b"mine") >= 2


def test_optuna_opens_the_journal(commands: Any, small: Any, tmp_path: Path) -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    assert commands(tmp_path, "-m", *small, *STEPS, "optimizer.lr=1e-3,1e-2").code == 0
    study = Study(tmp_path)
    shutil.copy(study.folder / "journal.log", tmp_path / "copy.log")
    loaded = optuna.load_study(study_name=study.folder.name, storage=JournalStorage(JournalFileBackend(str(tmp_path / "copy.log"))))
    assert loaded.best_value == min(trial["value"] for trial in study.trials)
    assert loaded.best_trial.user_attrs["overrides"] == study.trials[loaded.best_trial.number]["overrides"]
    assert list(loaded.trials[0].intermediate_values)


THREADS = """
from gptshake.setup import costs
def set_torch(cfg, own=costs.set_torch):
    open("threads", "a").write(f"{cfg.trainer.threads} ")
    own(cfg)
costs.set_torch = set_torch
"""


def test_the_cost_is_measured_with_the_threads_of_a_slot(commands: Any, small: Any, tmp_path: Path) -> None:
    threads = ("trainer.threads=auto", "hydra.sweeper.executor.slots=1", "hydra.sweeper.executor.threads=3")
    done = commands(tmp_path, "-m", *small, *threads, "optimizer.lr=1e-3", "repeats=1", "trainer.max_steps=2", before=THREADS)
    assert done.code == 0, done.err
    assert set((tmp_path / "threads").read_text().split()) == {"3"}
