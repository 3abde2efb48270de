"""Several runs, runs from runs, samples of runs, and options of the user's own."""

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf


def test_the_record_says_what_ran(commands: Any, small: Any, book: Path, tmp_path: Path, the_run: Any) -> None:
    done = commands(tmp_path, "optimizer.lr=1e-3", "optimizer.lr=3e-3", "note=it's #1, (really)!", "seed=7", *small)
    assert done.code == 0, done.err
    record = the_run(tmp_path)
    assert record.path.name == record.info["name"] and record.path.name.endswith(record.info["id"])
    assert "-tiny-text_char-book-" in record.path.name and "seed7" in record.path.name
    assert "lr3e-3" in record.path.name and "lr1e-3" not in record.path.name  # the last counts
    config = OmegaConf.load(record.path / "config.yaml")
    assert config.note == "it's #1, (really)!" and config.optimizer.lr == 3e-3 and config.data.path == str(book)
    assert "auto" not in (config.data.batch_size, config.data.micro_batch_size, config.trainer.precision, config.trainer.threads)
    assert config.paths.run_dir == str(record.path)
    assert record.info["choices"]["model"] == "tiny" and record.info["budget"]["steps"] == 12
    assert record.info["summary"]["steps"] == 12 and record.info["summary"]["val/loss"] > 0
    assert (record.path / "log").read_text().count("plan:") == 1


def test_a_multirun_lands_in_multirun_with_one_record_each(commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(tmp_path, "-m", *small, "trainer.max_steps=3", "seed=1,2")
    assert done.code == 0, done.err
    assert [file.name for file in tmp_path.iterdir()] == ["multirun"]
    records = sorted(tmp_path.glob("multirun/*/*/run.json"))
    assert [file.parent.name for file in records] == ["0", "1"]
    infos = [json.loads(file.read_text()) for file in records]
    assert len({info["id"] for info in infos}) == 2
    assert [next(text for text in info["overrides"] if text.startswith("seed")) for info in infos] == ["seed=1", "seed=2"]
    losses = [(file.parent / "metrics.csv").read_text().splitlines()[1].split(",")[2] for file in records]
    assert losses[0] != losses[1]


def test_a_multirun_of_the_missions_data(excerpt: None, commands: Any, tmp_path: Path) -> None:
    done = commands(tmp_path, "-m", "model=tiny", "data=wiki_char", "seed=1,2", "debug=smoke", "callbacks=none", "trainer.threads=1")
    assert done.code == 0, done.err
    assert len(list(tmp_path.glob("multirun/*/*/metrics.csv"))) == 2


def test_one_failing_run_does_not_stop_the_others(commands: Any, small: Any, tmp_path: Path) -> None:
    fails = "from gptshake.setup import instantiate\ndef data_module(cfg, *rest, own=instantiate.data_module):\n    assert cfg.seed != 2, 'two'\n"
    before = fails + "    return own(cfg, *rest)\ninstantiate.data_module = data_module\n"
    done = commands(tmp_path, "-m", *small, "trainer.max_steps=3", "seed=1,2,3", before=before)
    assert done.code == 1
    assert "1 of 3 trials failed" in done.err and "AssertionError: two" in done.err and "Traceback" not in done.err
    records = sorted(tmp_path.glob("multirun/*/*/run.json"))
    assert [json.loads(file.read_text())["status"] for file in records] == ["ok", "failed", "ok"]


def test_a_run_of_a_multirun_is_resumed_by_its_id(commands: Any, small: Any, tmp_path: Path) -> None:
    commands(tmp_path, "-m", *small, "trainer.max_steps=3", "seed=1,2")
    second = sorted(tmp_path.glob("multirun/*/*/run.json"))[1]
    done = commands(tmp_path, f"resume={json.loads(second.read_text())['id']}")
    assert done.code == 0, done.err
    assert not (tmp_path / "runs").exists()


@pytest.fixture(scope="module")
def parent(commands: Any, small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parent")
    assert commands(folder, *small).code == 0
    return folder


def test_a_run_starts_from_the_weights_of_another(commands: Any, small: Any, parent: Path, tmp_path: Path, the_run: Any) -> None:
    origin = the_run(parent)
    done = commands(tmp_path, *small, f"init_from={origin.path}", "trainer.max_steps=4")
    assert done.code == 0, done.err
    record = the_run(tmp_path)
    assert f"weights from {origin.info['name']}" in done.out and record.info["parent"] == origin.info["id"]
    first, last = record.numbers()[0][2], origin.numbers()[-1][2]
    assert abs(first - last) < 0.3 < origin.numbers()[0][2] - first or first < origin.numbers()[0][2]


def test_weights_of_another_shape_are_refused_with_the_sizes_that_fit_before_anything_is_written(
    light_commands: Any, small: Any, parent: Path, tmp_path: Path, the_run: Any
) -> None:
    done = light_commands(tmp_path, *small, f"init_from={the_run(parent).path}", "model.n_embd=32")
    assert done.code == 2 and "model.n_embd=16" in done.error and list(tmp_path.iterdir()) == []


def test_a_run_from_weights_of_a_relative_path_goes_on_in_another_folder_before_its_first_checkpoint(
    commands: Any, small: Any, parent: Path, tmp_path: Path, the_run: Any
) -> None:
    origin, started = the_run(parent), tmp_path / "started"
    kill = (
        "import os\nfrom gptshake.training.module import GPTModule\n"
        "def training_step(self, *rest):\n    os.kill(os.getpid(), 9)\n"
        "GPTModule.training_step = training_step\n"
    )
    words = (f"init_from=runs/{origin.path.name}", f"paths.run_dir={started}", "trainer.max_steps=4")
    assert commands(parent, *small, *words, before=kill).code == -9
    done = commands(tmp_path, f"resume={started}")
    assert done.code == 0, done.err
    assert f"weights from {origin.info['name']}" in done.out


def test_weights_that_are_not_there_are_refused_before_anything_is_written(commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(tmp_path, *small, "init_from=nope")
    assert done.code != 0 and "There is no run 'nope'" in done.error and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("change", ["model.n_layer=2", "model.n_embd=32", "tokenizer.vocab_size=9"])
def test_weights_of_another_shape_or_tokenizer_are_refused(
    change: str, commands: Any, small: Any, parent: Path, tmp_path: Path, the_run: Any
) -> None:
    done = commands(tmp_path, *small, f"init_from={the_run(parent).path}", change)
    assert done.code == 2 and done.error.startswith("init_from="), done.err


def test_a_sample_continues_the_prompt_repeats_itself_and_leaves_nothing(commands: Any, parent: Path, the_run: Any) -> None:
    before = sorted(parent.rglob("*"))
    words = ("task=sample", f"task.run={the_run(parent).info['id']}", "task.n_tokens=40", "trainer=cpu")
    one, two = commands(parent, *words, "task.prompt=the (of'"), commands(parent, *words, "task.prompt=the (of'")
    other = commands(parent, *words, "task.prompt=the (of'", "seed=2")
    assert one.code == 0, one.err
    assert one.out.startswith("the ") and len(one.out) >= 40
    assert one.out == two.out != other.out
    assert sorted(parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("task.temperature=1e-50", "task.top_p=1e-50", "task.prompt=null"), ""),
        *(((f"task.n_tokens={value}",), "n_tokens") for value in ("0", "1.5", "null")),
        *(((f"task.temperature={value}",), "temperature") for value in ("-1", "null", "abc")),
        *((("task.top_k=1.5",), "top_k"), (("task.top_p=0",), "top_p"), (("task.num_samples=1.5",), "num_samples")),
    ],
)
def test_every_option_of_sample_works_or_is_refused_in_a_sentence(
    words: tuple[str, ...], said: str, commands: Any, parent: Path, the_run: Any
) -> None:
    done = commands(parent, "task=sample", f"task.run={the_run(parent).info['id']}", "task.n_tokens=20", *words)
    assert (done.code == 2 and said in done.error) if said else (done.code == 0 and not done.err), (done.out, done.err)


def test_several_samples_are_those_of_following_seeds_and_what_a_prompt_loses_is_said(commands: Any, parent: Path, the_run: Any) -> None:
    words = ("task=sample", f"task.run={the_run(parent).info['id']}", "task.n_tokens=30", "task.prompt=żt水")
    both, one, two = (commands(parent, *words, *more) for more in (("task.num_samples=2", "seed=1"), ("seed=1",), ("seed=2",)))
    assert both.code == 0 and both.out == f"{one.out}---\n{two.out}"
    assert both.err.startswith("note: the tokenizer does not know 'ż', '水', so the model reads '�t�'")


def test_an_unknown_run_is_named_with_the_nearest(light_commands: Any, parent: Path, the_run: Any) -> None:
    run_id = the_run(parent).info["id"]
    done = light_commands(parent, "task=sample", f"task.run={run_id[:-1]}_")
    assert done.code == 2 and f"did you mean {run_id}" in done.error


def test_ones_own_conf_adds_an_option(commands: Any, small: Any, tmp_path: Path, the_run: Any) -> None:
    (tmp_path / "conf" / "scheduler").mkdir(parents=True)
    (tmp_path / "conf/scheduler/mine.yaml").write_text("_target_: gptshake.optim.schedule.cosine\n_partial_: true\nwarmup: 0\nfloor: 0.5\n")
    done = commands(tmp_path, *small, "scheduler=mine", "trainer.max_steps=4")
    assert done.code == 0, done.err
    assert the_run(tmp_path).numbers()[-1][3] == pytest.approx(0.5 * 4e-3)
    assert "mine" in commands(tmp_path, "--help").out
    assert commands(tmp_path, *small, "scheduler=mine", "--cfg", "job").code == 0


def test_a_file_of_ones_own_that_shadows_a_packaged_one_is_refused(light_commands: Any, small: Any, tmp_path: Path) -> None:
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf/model/tiny.yaml").write_text("# @package _global_\nmodel:\n  n_layer: 1\n")
    done = light_commands(tmp_path, *small)
    assert done.code == 2 and done.error.startswith("conf/model/tiny.yaml has the name of a packaged option")
    assert [file.name for file in tmp_path.iterdir()] == ["conf"]


def test_a_directory_that_holds_a_run_is_not_written_over(commands: Any, small: Any, parent: Path, the_run: Any) -> None:
    record = the_run(parent)
    done = commands(parent, *small, f"paths.run_dir={record.path}")
    assert done.code == 2 and "holds a run already" in done.error
    assert the_run(parent).info == record.info and the_run(parent).numbers() == record.numbers()


def test_a_run_in_a_directory_of_ones_own_has_an_id_like_any_other(commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(tmp_path, *small, "trainer.max_steps=2", "paths.run_dir=here/there")
    assert done.code == 0, done.err
    info = json.loads((tmp_path / "here/there/run.json").read_text())
    assert len(info["id"]) == 8 and info["name"] == "there"
    assert not (tmp_path / "runs").exists()


def test_a_run_in_a_hidden_directory_is_listed_and_resumed(commands: Any, small: Any, tmp_path: Path) -> None:
    assert commands(tmp_path, *small, "trainer.max_steps=2", "paths.run_dir=.scratch").code == 0
    assert "1 run: 1 ok" in commands(tmp_path, "task=runs", "paths.runs=.").out
    assert commands(tmp_path, "resume=.scratch").code == 0


def test_conf_shadow_lets_ones_own_file_win(light_commands: Any, small: Any, tmp_path: Path) -> None:
    (tmp_path / "conf" / "paths").mkdir(parents=True)
    (tmp_path / "conf/paths/default.yaml").write_text("runs: ./mine\nmultirun: ./multirun\ncache: ./cache\nrun_dir: ${paths.runs}/run\n")
    done = light_commands(tmp_path, *small, "conf_shadow=true", "--cfg", "job")
    assert done.code == 0 and "runs: ./mine" in done.out
