"""What is wrong is told in one sentence with the nearest real name: exit code 2, torch never imported, nothing written."""

from pathlib import Path
from typing import Any

import pytest

from gptshake.config.compose import compose
from gptshake.config.compose_errors import checked_compose, keys, nearest, parse_overrides
from gptshake.config.multirun import first_choice
from gptshake.errors import ConfigError

NO_TORCH = "import sys; sys.modules['torch'] = sys.modules['pytorch_lightning'] = None"  # importing it would be a failure
RUN = ("model=tiny", "data=wiki_char")

MISTAKES = {
    ("model=tny", "data=wiki_char"): ["model=tny: there is no such model; did you mean tiny?", "gpt3_175b"],
    ("model=zzz", "data=wiki_char"): ["model=zzz: there is no such model. There are: baby,"],
    (*RUN, "optimizer=adamv"): ["there is no such optimizer; did you mean adamw?"],
    (*RUN, "experiment=gpt3_smal_char"): ["did you mean gpt3_small_char?"],
    (*RUN, "optimizer.lrr=1"): ["optimizer.lrr: there is no such key; did you mean optimizer.lr?", "optimizer has: lr, beta1"],
    (*RUN, "data.path=x.txt"): ["data.path: this is a key of data=shakespeare and data=text. data has: documents, split"],
    (*RUN, "optimizer.momentum=1"): ["optimizer.momentum: this is a key of optimizer=sgd. optimizer has: lr"],
    (*RUN, "+optimizer=sgd"): ["+optimizer=sgd: a group has one option: leave the + out."],
    (*RUN, "sampler={a:1}"): ["sampler={'a': 1} is no option: sampler is one of cmaes, gp"],
    (*RUN, "callbacks.samples.prompts={a:1}"): ["callbacks.samples.prompts={a:1}: it must be a list, in brackets."],
    (*RUN, "task=plan", "task.device=T4"): ["task.device=T4 is not known; did you mean t4?"],
    (*RUN, "+model.nope=1"): ["model.nope: there is no such key. model takes: bias"],
    (*RUN, "task._target_=gptshake.nope.run"): ["task._target_=gptshake.nope.run cannot be imported"],
    (*RUN, "optimizer.lr=from:"): ["There is no run '': give the name, id or path of one, or latest."],
    ("-m", *RUN, "seed=1,2", "hydra.sweeper.hours=range"): ["hydra.sweeper.hours=choice(range): this is an option of the sweep itself"],
    ("-m", *RUN, "seed=1,2", "hydra.sweeper.search_space=3"): ["hydra.sweeper.search_space=3 cannot work: it must map keys to ranges"],
    ("-m", *RUN, "hydra/sweeper=study,basic"): ["hydra/sweeper=study,basic: this is an option of the sweep itself"],
    ("-m", *RUN, "sampler=tpe,random"): ["sampler=tpe,random: this is an option of the sweep itself"],
    ("-m", *RUN, "+search_space.optimizer.lr=interval(1,2)"): ["this is an option of the sweep itself"],
    ("-m", *RUN, "seed=1,2", "hydra.sweeper.objective=null"): ["hydra.sweeper.objective=null cannot work: it must be a text"],
    ("-m", *RUN, "seed=1,2", "hydra.sweeper.enqueue=[1]"): ["hydra.sweeper.enqueue=[1] cannot work: it must be a list of points"],
    ("-m", *RUN, "seed=1,2", "hydra.sweeper=null"): ["hydra.sweeper._target_=None is no sweeper"],
    ("-m", *RUN, "seed=1,2", "hydra/sweeper=nope"): ["There is no hydra/sweeper/nope: hydra/sweeper= is study"],
    ("-m", *RUN, "seed=1,2", "hydra.mode=RUN"): ["hydra.mode=RUN: several runs are asked for with -m"],
    ("-m", *RUN, "task=plan,train"): ["task= cannot vary between these"],  # the run would lie in a folder that is removed
    (*RUN, "optimizer.groups=${seed}"): ["optimizer.groups=1337 cannot work: it must be a list of rules"],
    (*RUN, "optimizer.beta1=${model}"): ["optimizer.beta1: its value holds an interpolation that means nothing here: it must be a number."],
    (*RUN, "init_from=${seed}"): ["There is no run '1337'"],
    (*RUN, "lr=3e-4"): ["lr: there is no such key; did you mean optimizer.lr?"],
    (*RUN, "sed=3"): ["sed: there is no such key; did you mean seed?"],
    (*RUN, "trainer.maxsteps=3"): ["did you mean trainer.max_steps?"],
    (*RUN, "model.n_layer=many"): ["model.n_layer=many: it must be a whole number."],
    (*RUN, "model.n_layer=1.5"): ["model.n_layer=1.5: it must be a whole number."],
    (*RUN, "optimizer.lr=fast"): ["optimizer.lr=fast: it must be a number."],
    (*RUN, "seed=x"): ["seed=x:"],
    (*RUN, "trainer.compile=perhaps"): ["trainer.compile=perhaps:"],
    (*RUN, "optimizer.lr=-1"): ["optimizer.lr=-1", "a number above 0"],
    (*RUN, "data.batch_size=0"): ["data.batch_size=0", "from 1 up"],
    (*RUN, "model.n_embd=130"): ["model.n_embd=130 cannot be shared equally by model.n_head=4 heads: try model.n_embd=128 or 132"],
    (*RUN, "optimizer.lr"): ["Cannot read 'optimizer.lr'", "optimizer.lr=...?"],
    (*RUN, "model.n_layer=[1"): ["Cannot read 'model.n_layer=[1'"],
    (*RUN, "optimizer.lr=1e-3,1e-4"): ["optimizer.lr=1e-3,1e-4 names several values: add -m"],
    ("model=tiny,baby", "data=wiki_char"): ["names several values: add -m"],
    (*RUN, "--drity"): ["--drity is not a flag"],
    (*RUN, "--zzz"): ["--zzz is not a flag of gptshake. It takes"],
    (*RUN, "-sc", "bash"): ["-sc bash does nothing: it is install=, uninstall= or query="],
    (*RUN, "--cfg", "jobs"): ["--cfg jobs shows nothing: it is one of job, hydra, all."],
    (*RUN, "zzz"): ["Cannot read 'zzz': an override is written key=value."],
    (*RUN, "optimizer="): ["optimizer=: it needs an option. Optimizer is one of adamw, sgd"],
    (*RUN, "experiment=[null]"): ["it needs an option. Experiment is one of demo"],
    (*RUN, "+optimizer.lr=1"): ["+optimizer.lr=1: the key is there already: leave the + out."],
    (*RUN, "seed=???"): ["seed=??? has no value"],
    ("-m", *RUN, "seed=1,2", "hydra.sweeper.confirm=${x}"): ["hydra.sweeper.confirm: its value holds an interpolation that means nothing"],
    ("-m", *RUN, "seed=1,2", "hydra.sweeper.keep=???"): ["hydra.sweeper.keep=??? has no value"],
    ("-m", *RUN, "seed=1,2", "hydra.sweeper._target_=os.mkdir"): ["hydra.sweeper._target_=os.mkdir is no sweeper"],
    ("-m", *RUN, "seed=1,2", "hydra.sweeper.executor.slots=100000"): ["slots=100000 is more than this machine can serve"],
    ("-m", *RUN, "optimizer.lr=1e-3,1e-2", "confirm=1000000000"): [
        "confirm=1000000000 cannot work: it must be a whole number",
        "at most 1,000",
    ],
    ("-m", *RUN, "optimizer.lr=glob(*)"): ["glob(...) names options of a group, and optimizer.lr is none"],
    ("-m", *RUN, "ablate=[optimizer.lr]"): ["Cannot read 'optimizer.lr'"],
    (*RUN, "scheduler.warmup=-1"): ["warmup"],
    (*RUN, "trainer.max_time=7h"): ["trainer.max_time=7h is not a time", "00:07:30:00"],
    ("model=tiny",): ["Choose a data set", "data is one of hf, hf_char, ", "text, text_char, ", "wiki, wiki_char"],
    ("data=wiki_char",): ["Choose a model", "model is one of baby, gpt2, gpt3_13b"],
    ("seed=3",): ["Choose a model and a data set", "model is one of", "data is one of"],
    ("model=tiny", "data=wiki"): ["Choose a tokenizer", "tokenizer is one of bpe, byte, char"],
    (*RUN, "tokenizer=bpe", "tokenizer.vocab_size=12"): ["tokenizer.vocab_size is 12", "from 257"],
    (*RUN, "tokenizer=bpe", "tokenizer.path=no/such"): ["tokenizer.path=no/such is not a file, a folder or a run"],
    ("data.batch_size=3",): ["data.batch_size=3 needs data=; data is one of"],
    ("data=wiki_char", "model.n_layer=3"): ["model.n_layer=3 needs model=; model is one of"],
    ("model=tiny", "data=text_char"): ["data.path="],
    ("model=tiny", "data=text_char", "data.path=no/such.txt"): ["no/such.txt"],
    ("resume=nothing",): ["There is no run 'nothing'"],
    ("-m", "resume=nothing"): ["leave -m and repeats= out"],
    ("-m", *RUN, "paths.run_dir=here"): ["paths.run_dir", "-m"],
    (*RUN, "task=tran"): ["there is no such task; did you mean train?"],
    (*RUN, "scheduler=null"): ["scheduler=null: it needs an option. Scheduler is one of constant, cosine"],
    (*RUN, "optimizer='adamw'", "scheduler=null"): ["scheduler=null: it needs an option"],  # a record's options are quoted
    (*RUN, "~trainer"): ["trainer= needs an option: trainer is one of auto, cpu, ddp, fsdp, gpu"],
    ("task=sample",): ["Choose a run: task.run="],
    ("model=tny", "data=wiki_char", "--cfg", "job"): ["there is no such model; did you mean tiny?"],
    ("-m", "model=tiny,bbaby", "data=wiki_char"): ["model=bbaby: there is no such model; did you mean baby?"],
    ("-m", *RUN, "optimizer=adamw,null"): ["optimizer=null cannot be one of several options: name one for each run. Optimizer is one of"],
    ("-m", *RUN, "seed=1,2", "hydra.sweeper.direction=up"): ["hydra.sweeper.direction=up is not known: it is minimize or maximize."],
    ("task=report", "task.run=x", "task.csv=a.csv"): [
        "task.csv and task.latex are tables of a study; of runs: task=runs task.csv=runs.csv."
    ],
    ("task=sample", "task.run=x", "task.interactive=true", "task.jsonl=a"): ["leave task.prompt_file and task.jsonl out."],
    ("task=export", "task.run=[a,b]", "task.to=hf"): ["This task takes one run: task.run=<name, id or path>."],
}


@pytest.mark.parametrize("words", MISTAKES, ids=" ".join)
def test_a_mistake_is_one_sentence_exit_code_two_without_torch(words: tuple[str, ...], light_commands: Any, tmp_path: Path) -> None:
    done = light_commands(tmp_path, *words, before=NO_TORCH)
    assert done.code == 2, done.err
    for part in MISTAKES[words]:
        assert part in done.error
    assert "_schema" not in done.err and "HYDRA_FULL_ERROR" not in done.err
    assert len(done.error.splitlines()[0]) < 400
    assert list(tmp_path.iterdir()) == []


def test_no_punctuation_is_doubled_or_lacking() -> None:
    assert nearest("tny", ["tiny", "baby"]) == "; did you mean tiny?"
    assert nearest("zzz", ["tiny", "baby"]) == "."
    assert nearest("lr", ["optimizer.lr", "seed"]) == "; did you mean optimizer.lr?"


def test_every_key_of_a_config_is_found() -> None:
    found = set(keys(compose(["model=tiny", "data=wiki_char"])))
    assert {"seed", "optimizer.lr", "data.documents._target_", "callbacks.samples.prompts", "preset.lr"} <= found


def test_a_sweep_is_looked_at_with_its_first_value() -> None:
    texts = ["optimizer.lr=1e-3,1e-4", "seed=range(3,5)", "model=choice(tiny,baby)", "note='a,b'", "seed=7"]
    assert [first_choice(override) for override in parse_overrides(texts)] == [
        "optimizer.lr=0.001",
        "seed=3",
        "model=tiny",
        "note='a,b'",
        "seed=7",
    ]


def test_the_group_is_blamed_before_the_key() -> None:
    with pytest.raises(ConfigError, match="there is no such model"):
        checked_compose(["model=tny", "data=wiki_char", "model.n_layr=3"])
