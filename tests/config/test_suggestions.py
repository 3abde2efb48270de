"""What users of other programs type gets the name that it has here; help of an option comes from its file; nothing is written."""

import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from gptshake.config.compose_errors import SWEEPER_KEYS, checked_compose
from gptshake.config.help import pages
from gptshake.config.layout import GROUPS, options, packaged_conf
from gptshake.config.suggestions import KEYS, OPTIONS, VALUES
from gptshake.errors import ConfigError

NO_TORCH = "import sys; sys.modules['torch'] = sys.modules['pytorch_lightning'] = None"
RUN = ("model=tiny", "data=wiki_char")
SAID = {
    "train": "task=train",
    "sample": "task=sample",
    "sweep": "-m model=tiny data=wiki_char optimizer.lr=range",
    "generate": "task=sample",
    "tiny": "model=tiny",
    "resume": "resume=latest",
    "--model tiny": "model=tiny",
    "--model=gpt2": "model=gpt2",
    "--lr 1e-3": "optimizer.lr=1e-3",
    "--learning-rate=3e-4": "optimizer.lr=3e-4",
    "--batch_size 32": "data.batch_size=32",
    "--max_iters=500": "trainer.max_steps=500",
    "--device=cpu": "trainer=cpu",
    "--epochs 3": "trainer.max_epochs=3",
    "learning_rate=1": "optimizer.lr",
    "optimizer.learning_rate=1": "optimizer.lr",
    "batch_size=4": "data.batch_size",
    "max_iters=4": "trainer.max_steps",
    "epochs=3": "trainer.max_epochs",
    "n_trial=3": "hydra.sweeper.n_trials",
    "n_trials=5": "hydra.sweeper.n_trials",
    "trials=5": "hydra.sweeper.n_trials",
    "device=cuda": "trainer=gpu",
    "device=cpu": "trainer=cpu",
    "gpus=2": "trainer=ddp trainer.devices=2",
    "precision=fp16": "trainer.precision=16-mixed",
    "trainer.precision=bf16": "bf16-mixed",
    "dtype=float32": "trainer.precision=32-true",
    "dataset=shakespeare_char": "data=shakespeare_char",
    "model=gpt2-medium": "model=gpt3_medium",
    "data=oz.txt": "data=text_char data.path=oz.txt",
    "run=latest": "task=sample task.run=latest",
    "task.study=lr": "study=lr?",
    "sampler=bayes": "sampler=tpe",
    "optimizer=adam": "optimizer=adamw",
    "scheduler=one_cycl": "one_cycle",
    "logger=tb": "logger=tensorboard",
    "n_layers=3": "model.n_layer",
    "hidden_size=64": "model.n_embd",
    "max_new_tokens=64": "task.n_tokens",
    "prompt=Hello": "task=sample task.prompt=Hello",
    "wandb_log=false": "logger=none",
    "out_dir=here": "paths.runs",
    "path=oz.txt": "data.path",
    "trial=5": "hydra.sweeper.n_trials",
    "tokenizer=BPE": "bpe",
    "--gpu": "trainer=gpu",
    "--no-wandb": "logger=none",
    "data=char": "data=text_char",
}


@pytest.mark.parametrize("typed", SAID)
def test_what_other_programs_call_it_is_answered_with_its_name_here(typed: str, light_commands: Any, tmp_path: Path) -> None:
    key = typed.partition("=")[0]
    done = light_commands(tmp_path, *(text for text in RUN if not text.startswith(f"{key}=")), *typed.split(), before=NO_TORCH)
    assert done.code == 2
    assert f"did you mean {SAID[typed]}" in done.error or f"did you mean gptshake {SAID[typed]}" in done.error or SAID[typed] in done.error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "key", ["data.batch_size", "data.batch_tokens", "data.text_key", "model.block_size", "model.n_layer", "tokenizer.vocab_size"]
)
def test_a_key_is_found_before_its_group_has_an_option(key: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean {key}\\?"):
        checked_compose([f"{key.partition('.')[2]}=3"])


def test_a_range_is_found_among_the_ranges() -> None:
    with pytest.raises(ConfigError, match=r"did you mean search_space\.optimizer\.lr\?"):
        checked_compose(["search_space.optimizer.lrr=3"])


def test_every_name_that_is_proposed_exists() -> None:
    there = {
        line.partition("=")[0].strip()
        for group in GROUPS
        for name in options(group)
        for line in (pages([f"{group}={name}"]) or "").splitlines()
    }
    there |= {*GROUPS, *SWEEPER_KEYS, "seed", "note", "resume", "init_from", "study"}
    assert {key for key in (*KEYS.values(), *VALUES) if key not in there} == {"hydra.sweeper.executor.slots"} & set(KEYS.values()) - there
    assert [
        (group, name) for group, names in OPTIONS.items() for name in names.values() if name.partition(" ")[0] not in options(group)
    ] == []


WRONG = {
    "-m seed=1,2 hydra.sweeper.n_trials=abc": "hydra.sweeper.n_trials=abc: ",
    "~seed": "~seed: this key cannot be removed",
    "~optimizer.lr": "~optimizer.lr: this key cannot be removed",
    "model=[tiny,baby]": "For one run of each: -m model=tiny,baby",
    "callbacks=[default,nope]": "callbacks=nope: there is no such callbacks",
    "paths.runs=null": "paths.runs=null cannot work",
    "paths.cache=null": "paths.cache=null cannot work",
    "model.vocab_size=3": "model.vocab_size=3 is not for a run: its tokenizer decides",
    "paths.run_dir=a/../..": "paths.run_dir=a/../.. leads through a folder that is not there: write paths.run_dir=..",
    "paths.cache=a/../b/c": "paths.cache=a/../b/c leads through a folder that is not there: write paths.cache=b/c",
    "task=runs task.html=a/../b.html": "task.html=a/../b.html leads through a folder that is not there: write task.html=b.html",
    "callbacks.samples.times=-1": "callbacks.samples.times=-1 cannot work",
    "callbacks.samples.top_p=7": "callbacks.samples.top_p=7 cannot work",
    "+callbacks.samples.typo=1": "callbacks.samples.typo: there is no such key",
    "+trainer.typo=1": "trainer.typo",
    "+optimizer.typo=1": "optimizer.typo: there is no such key",
    "note=???": "note=??? has no value",
    "callbacks.samples=1.5": "callbacks.samples=1.5 is not a part",
    "callbacks.samples._target_=''": "callbacks.samples._target_= names nothing to call",
    "optimizer._target_=abc": "optimizer._target_=abc names nothing to call",
    "optimizer._target_=nowhere.made": "optimizer._target_: there is no module 'nowhere'",
    "task._target_=[1,2]": "task._target_=[1, 2] names nothing to call",
    "scheduler._partial_=false": "scheduler._partial_=False: this key is Hydra's",
    "scheduler.warmup=[1,2]": "scheduler.warmup=[1, 2] is not a length",
    "scheduler.warmup=true": "scheduler.warmup=True is not a length",
    "scheduler.warmup=-1": "scheduler.warmup=-1 is not a length",
    "seed=18446744073709551616": "seed=18446744073709551616 cannot work: it must be a whole number from 0 up and at most 9,223,372,036,854,775,807.",
    "data.documents.n_documents=-1": "data.documents.n_documents=-1 cannot work: it must be a whole number from 1 up",
    "deterministic=3": "deterministic=3: it must be true or false",
    "model.bias=-1": "model.bias=-1: it must be true or false",
    "optimizer.lr=null": "optimizer.lr=null: it cannot be null",
    "trainer.max_time=[1]": "trainer.max_time=[1]: it must be a text",
    "-m seed=1,2 hydra.sweeper.pruner=abc": "hydra.sweeper.pruner=abc is not a part",
    "note=${x}": "note: its value holds an interpolation that means nothing here",
    "-cp x": "-cp is not supported",
    "--config-name=x": "--config-name is not supported",
    "-p x": "-p selects what --cfg shows",
    "-m --cfg job": "shows the config of one run",
    "--config-dir nowhere": "--config-dir nowhere: there is no such folder",
}


@pytest.mark.parametrize("typed", WRONG)
def test_what_cannot_work_is_refused_before_anything_is_written(typed: str, light_commands: Any, tmp_path: Path) -> None:
    done = light_commands(tmp_path, *RUN, *typed.split(), before=NO_TORCH)
    assert done.code == 2 and WRONG[typed] in done.error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("group", "option"), [(group, option) for group in GROUPS for option in options(group)])
def test_help_of_an_option_names_all_its_own_keys(group: str, option: str) -> None:
    page = pages([f"{group}={option}"]) or ""
    node: Any = OmegaConf.load(packaged_conf() / group / f"{option}.yaml")
    for key in node.get(group, node):
        value = node.get(group, node)._get_node(key)
        hidden = isinstance(value, DictConfig) and all(str(name).startswith("_") for name in value)
        hidden = hidden or str(key).startswith("_") or key in ("defaults", "documents", "trains", "sweeps")
        assert hidden or re.search(rf"(^|[. ]){re.escape(str(key))}[=.]", page, re.MULTILINE), key


def test_help_of_a_group_lists_its_options_without_torch_and_hydra(light_commands: Any, tmp_path: Path) -> None:
    quick = "import sys; sys.modules['torch'] = sys.modules['hydra'] = None"
    done = light_commands(tmp_path, "task=sample", "scheduler", "--help", before=quick)
    assert done.code == 0 and "task.temperature=0.8  (float)" in done.out and "one_cycle" in done.out
    assert "no task and no group 'foo'" in light_commands(tmp_path, "foo", "--help").error


def test_a_folder_given_by_config_dir_works_like_conf(light_commands: Any, tmp_path: Path) -> None:
    (tmp_path / "mine" / "optimizer").mkdir(parents=True)
    (tmp_path / "mine" / "optimizer" / "fast.yaml").write_text("defaults: [adamw, _self_]\nlr: 0.0123\n")
    for flag in (["--config-dir", "mine"], ["-cd", "mine"], ["--config-dir=mine"]):
        done = light_commands(tmp_path, *flag, *RUN, "optimizer=fast", "--cfg", "job")
        assert done.code == 0 and "lr: 0.0123" in done.out
    assert "there is no such optimizer" in light_commands(tmp_path, *RUN, "optimizer=fast").error


def test_a_key_that_a_file_of_the_users_own_does_not_name_is_added_with_a_plus(light_commands: Any, tmp_path: Path) -> None:
    (tmp_path / "conf" / "scheduler").mkdir(parents=True)
    (tmp_path / "conf" / "scheduler" / "saw.yaml").write_text("_target_: saw.saw\n_partial_: true\nteeth: 4\n")
    (tmp_path / "saw.py").write_text("def saw(tokens, total, teeth, beta1=None): ...\n")
    done = light_commands(tmp_path, *RUN, "scheduler=saw", "scheduler.beta1=0.8")
    assert done.code == 2 and "scheduler has: teeth." in done.error and done.error.endswith(": +scheduler.beta1=0.8"), done.err
    assert "beta1_min" not in done.error  # a key of one_cycle, which was not chosen
    assert light_commands(tmp_path, *RUN, "scheduler=saw", "+scheduler.beta1=0.8", "--cfg", "job").code == 0


def test_a_fault_in_code_of_the_users_own_is_named_with_file_and_line_and_a_value_with_the_chosen_file(
    light_commands: Any, tmp_path: Path
) -> None:
    for name, text in {"task/mine": "_target_: mine.run\ntrains: false\n", "task/another": "lr: 1\n", "optimizer/one": "lr: -1\n"}.items():
        (tmp_path / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "conf" / f"{name}.yaml").write_text(text)
    (tmp_path / "conf" / "optimizer" / "two.yaml").write_text("defaults: [adamw, _self_]\nlr: -1\n")
    (tmp_path / "mine.py").write_text("def run(context):\n    return context.nothing\n")
    done = light_commands(tmp_path, "task=mine")
    assert done.code == 1 and "has no attribute 'nothing' (in mine.py, line 2; HYDRA_FULL_ERROR=1 shows where)" in done.error
    assert light_commands(tmp_path, *RUN, "optimizer=two").error.endswith("It comes from conf/optimizer/two.yaml.")


def test_help_knows_a_rate_without_a_point_as_a_number(light_commands: Any, tmp_path: Path) -> None:
    (tmp_path / "conf" / "optimizer").mkdir(parents=True)
    (tmp_path / "conf" / "optimizer" / "mine.yaml").write_text("_target_: torch.optim.SGD\nlr: 3e-4\n")
    assert "optimizer.lr=3e-4  (float)" in light_commands(tmp_path, "optimizer=mine", "--help").out


LOCAL = {
    "lrr: 1": ["conf/optimizer/mine.yaml", "lrr"],
    "lr: fast": ["conf/optimizer/mine.yaml", "lr"],
    "lr: [1": ["conf/optimizer/mine.yaml", "is not YAML"],
    "lr: 1\nlr: 2": ["conf/optimizer/mine.yaml is not YAML, in line 3: found duplicate key lr."],
    "": ["conf/optimizer/mine.yaml", "includes itself"],
    "lr: -1": ["optimizer.lr=-1", "It comes from conf/optimizer/mine.yaml"],
}


@pytest.mark.parametrize("text", LOCAL)
def test_a_mistake_in_a_file_of_the_users_own_names_file_and_key(text: str, light_commands: Any, tmp_path: Path) -> None:
    (tmp_path / "conf" / "optimizer").mkdir(parents=True)
    base = "adamw" if text else "mine"
    (tmp_path / "conf" / "optimizer" / "mine.yaml").write_text(f"defaults: [{base}, _self_]\n{text}\n")
    done = light_commands(tmp_path, *RUN, "optimizer=mine", before=NO_TORCH)
    assert done.code == 2 and all(part in done.error for part in LOCAL[text]), done.err
    assert [file.name for file in tmp_path.iterdir()] == ["conf"]


@pytest.mark.parametrize(
    "text, said",
    [
        ("5", "conf/optimizer/mine.yaml is no config: it has no keys."),
        ("- lr", "optimizer=['lr'] is not a part"),
        ("", "optimizer={} is not a part"),
        ("defaults: [nope]", "conf/optimizer/mine.yaml: there is no optimizer/nope, which its defaults list names."),
        ("x: &a [*a]", "mine.yaml holds an alias of what it is a part of."),
        ("lr: 1\x07", "mine.yaml cannot be loaded: it holds the control character '\\x07'."),
        ("\ufefflr: 1", "mine.yaml begins with a byte order mark: save it as UTF-8 without one."),
        ("[" * 3000, "mine.yaml"),
    ],
)
def test_a_file_of_the_users_own_that_is_no_option_is_a_sentence(text: str, said: str, light_commands: Any, tmp_path: Path) -> None:
    (tmp_path / "conf" / "optimizer").mkdir(parents=True)
    (tmp_path / "conf" / "optimizer" / "mine.yaml").write_text(text)
    assert said in light_commands(tmp_path, *RUN, "optimizer=mine", before=NO_TORCH).error


def test_paths_of_the_users_own_have_all_four_places(light_commands: Any, tmp_path: Path) -> None:
    (tmp_path / "conf" / "paths").mkdir(parents=True)
    (tmp_path / "conf" / "paths" / "mine.yaml").write_text("runs: here\nmultirun: there\ncache: elsewhere\n")
    done = light_commands(tmp_path, *RUN, "paths=mine", before=NO_TORCH)
    assert done.error == "paths.run_dir has no value: begin a file of your own in conf/paths with defaults: [default, _self_]."


def test_a_task_that_only_reads_leaves_no_directory_and_prints_in_ascii(light_commands: Any, tmp_path: Path) -> None:
    done = light_commands(tmp_path, "task=runs", PYTHONIOENCODING="ascii")
    assert done.code == 0 and list(tmp_path.iterdir()) == []
