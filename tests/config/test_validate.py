"""Every rule of ``check`` refuses what cannot work and lets the rest through."""

import copy
import inspect
import re
from functools import cache
from typing import Any

import pytest
import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf

from gptshake.config.compose import compose
from gptshake.config.compose_errors import parse_overrides
from gptshake.config.layout import options, packaged_conf
from gptshake.config.schemas import RULES, WORDS
from gptshake.config.validate import check, check_groups
from gptshake.errors import ConfigError
from gptshake.training.config import PASSED_ON, REPLACED, TrainerConfig

RUN = ["model=tiny", "data=wiki_char"]

BAD: dict[str, list[Any]] = {
    "optimizer.lr": ["0", "-1e-3", "inf", "nan"],
    "optimizer.beta1": ["1", "-0.1"],
    "optimizer.beta2": ["1.5", "nan"],
    "optimizer.eps": ["0", "-1e-8"],
    "optimizer.weight_decay": ["-0.1", "inf"],
    "data.batch_size": ["0", "-3", "2.5", "large", "true"],
    "data.batch_tokens": ["0", "-64"],
    "data.micro_batch_size": ["0", "1.5", "small"],
    "data.workers": ["-1", "0.5", "many", "false"],
    "data.n_documents": ["0", "-1"],
    "data.max_bytes": ["0", "-5"],
    "data.order_seed": ["-1"],
    "data.val_fraction": ["0", "1", "-0.1"],
    "data.test_fraction": ["1", "-0.1"],
    "task.passes": ["15", "20.5"],
    "trainer.devices": ["0"],
    "trainer.threads": ["0", "all"],
    "trainer.max_steps": ["0", "-5"],
    "trainer.max_epochs": ["0", "-1", "inf"],
    "trainer.max_tokens": ["0"],
    "trainer.val_check_interval": ["0", "0.5", "often"],
    "trainer.limit_val_batches": ["0"],
    "data.limit_blocks": ["0"],
    "trainer.gradient_clip_val": ["0", "-1"],
    "trainer.patience": ["0"],
    "trainer.save_minutes": ["0", "-1"],
    "task.limit": ["0", "-1", "2.5", "all"],
    "trainer.price_per_hour": ["-1"],
    "task.steps": ["0", "1.5"],
    "task.tolerance": ["-0.1", "inf"],
    "task.warmup": ["0", "-1"],
    "task.num_samples": ["0", "-1", "1.5"],
    "task.seconds": ["0", "-1"],
    "trainer.hours": ["0", "-8", "inf"],
    "task.hours": ["0", "-1", "nan"],
    "task.price_per_hour": ["-0.1", "inf"],
    "task.mfu": ["0", "1", "-0.1"],
    "task.repeats": ["0", "1.5"],
    "task.low": ["0", "-1e-6"],
    "task.high": ["0", "inf"],
    "task.confirm": ["-1", "2.5", "true"],
    "task.confirm_steps": ["0"],
    "seed": ["-1"],
}
GOOD = [
    "optimizer.lr=3e-4",
    "optimizer.lr=1",
    "optimizer.beta1=0",
    "optimizer.weight_decay=0",
    "data.batch_size=auto",
    "data.batch_size=1",
    "data.test_fraction=0",
    "data.workers=0",
    "data.workers=2",
    "trainer.threads=3",
    "trainer.max_epochs=0.5",
    "trainer.gradient_clip_val=null",
    "trainer.max_time=00:00:00:01",
    "trainer.hours=0.01",
    "seed=0",
    "model.dropout=0.999",
]


def task_with(override: str) -> list[str]:
    """The task that has the key of an override."""
    key = override.partition("=")[0].removeprefix("task.")
    having = (option for option in options("task") if key in OmegaConf.load(packaged_conf() / "task" / f"{option}.yaml"))
    return [f"task={next(having)}"] if override.startswith("task.") else []


composed = cache(lambda *overrides: compose([*RUN, *overrides]))


def with_keys(*overrides: str) -> DictConfig:
    """A config in which keys are set as Hydra sets them; what has no dot chooses an option and is composed."""
    changed: DictConfig = copy.deepcopy(composed(*(text for text in overrides if "." not in text.partition("=")[0])))
    for override in parse_overrides([text for text in overrides if "." in text.partition("=")[0]]):
        OmegaConf.update(changed, override.key_or_group, override.value(), force_add=override.is_add() or override.is_force_add())
    return changed


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check(with_keys(*task_with(overrides[-1]), *overrides))
    return str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ("optimizer.lr=-1e-3",),
        ("data.batch_size=large",),
        ("data.micro_batch_size=1.5",),
        ("trainer.max_epochs=inf",),
        ("trainer.threads=all",),
        ("trainer.max_time=00:00:00:01",),
        ("data.workers=false",),
        ("model.n_head=3",),
        ("data.offset=rando",),
        ("task=find_lr", "++task.low=-1e-6"),
        ("logger=wandb", "logger.mode=onlin"),
        ("+trainer.gradient_clip_algorithm=7",),
        ("trainer._target_=mine.build", "+trainer.anything=7"),
    ],
)
def test_keys_are_set_here_as_hydra_composes_them(overrides: tuple[str, ...]) -> None:
    assert with_keys(*overrides) == compose([*RUN, *overrides])


def test_the_usual_config_is_fine() -> None:
    check(compose(RUN))
    check_groups(compose(RUN))


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BAD.items() for value in values])
def test_a_value_out_of_range_is_refused_with_its_key_and_the_way_out(key: str, value: str) -> None:
    sentence = refusal(f"{'++' if key.startswith('task.') else ''}{key}={value}")  # whichever task has the key
    assert sentence.startswith(f"{key}=") and RULES[key][1] in sentence


@pytest.mark.parametrize("override", GOOD)
def test_a_value_at_the_edge_is_fine(override: str) -> None:
    check(with_keys(override))


@pytest.mark.parametrize("key", [key for key in WORDS if not key.startswith("logger.") or key == "logger.artifacts"])
def test_a_word_is_one_of_those_known_and_the_nearest_is_named(key: str) -> None:
    word = WORDS[key][-1]
    sentence = refusal(f"{key}={word[:-1]}")
    assert f"did you mean {word}?" in sentence and ", ".join(WORDS[key]) in sentence
    for known in WORDS[key]:
        check(with_keys(*task_with(key), f"{key}={known}"))


def test_the_loggers_mode_is_one_of_three_words() -> None:
    assert "did you mean online?" in refusal("logger=wandb", "logger.mode=onlin")


def test_something_must_be_left_to_train_on() -> None:
    assert "leave nothing to train on" in refusal("data.val_fraction=0.5", "data.test_fraction=0.5")


@pytest.mark.parametrize("override", ["model.n_head=3", "model.n_layer=0", "model.dropout=1", "model.block_size=-2"])
def test_an_impossible_shape_is_refused(override: str) -> None:
    assert override.split("=")[0] in refusal(override)


def test_a_task_must_be_there() -> None:
    assert f"task= needs an option: task is one of {', '.join(options('task'))}" in refusal("~task")


def test_missing_groups_are_named_together_with_their_options() -> None:
    with pytest.raises(ConfigError) as caught:
        check_groups(compose([]))
    lines = str(caught.value).splitlines()
    assert lines[0] == "Choose a model and a data set, as in model=tiny data=wiki_char."
    assert lines[1].strip().startswith("model is one of baby, gpt2, gpt3_13b") and lines[2].strip().startswith("data is one of hf,")


@pytest.mark.parametrize(
    "override",
    ["model.n_layer=1000000", "model.n_embd=4000000", "model.block_size=10000000000", "data.workers=100000", "trainer.threads=100000"],
)
def test_what_this_machine_cannot_hold_is_refused_before_anything_is_built(override: str) -> None:
    with pytest.raises(ConfigError, match="machine"):
        check(with_keys(override))


def test_a_model_for_another_machine_can_be_planned() -> None:
    check(compose(["model=gpt3_175b", "data=wiki_char", "task=plan", "task.device=h100"]))


def test_every_key_of_lightnings_trainer_is_decided_on() -> None:
    ours, passed, replaced = set(TrainerConfig.__dataclass_fields__), set(PASSED_ON), set(REPLACED)
    assert not (ours & passed or ours & replaced or passed & replaced)
    assert passed | replaced | ours >= set(inspect.signature(pl.Trainer.__init__).parameters) - {"self"}
    assert passed | replaced <= set(inspect.signature(pl.Trainer.__init__).parameters)


@pytest.mark.parametrize("key", REPLACED)
def test_a_key_that_lightning_would_not_serve_is_refused_with_what_does(key: str) -> None:
    harmless, instead = REPLACED[key]
    with pytest.raises(ConfigError, match=re.escape(instead)):
        check(with_keys(f"+trainer.{key}=7"))
    check(with_keys(f"+trainer.{key}={'null' if harmless is None else harmless}"))


def test_other_keys_of_lightnings_trainer_pass_and_mistakes_are_told() -> None:
    for key in PASSED_ON:
        check(with_keys(f"+trainer.{key}=true"))
        with pytest.raises(ConfigError, match="true or false"):
            check(with_keys(f"+trainer.{key}=often"))
    with pytest.raises(ConfigError, match="did you mean detect_anomaly"):
        check(with_keys("+trainer.detect_anomalie=true"))
    check(with_keys("trainer._target_=mine.build", "+trainer.anything=7"))


@pytest.mark.parametrize("accelerator", ["cpu", "mps"])
def test_16_mixed_is_refused_where_there_is_none(accelerator: str) -> None:
    with pytest.raises(ConfigError, match="16-mixed needs a GPU"):
        check(with_keys(f"trainer.accelerator={accelerator}", "trainer.precision=16-mixed"))
    check(with_keys("trainer.accelerator=gpu", "trainer.precision=16-mixed"))


@pytest.mark.parametrize("name", ["../elsewhere", "..", "a" * 300, "''"])
def test_the_name_of_a_study_is_one_folder(name: str) -> None:
    with pytest.raises(ConfigError, match="study"):
        check(compose(["model=tiny", "data=wiki_char", f"study={name}"]))


@pytest.mark.parametrize("key", ["paths.run_dir", "paths.runs", "paths.multirun", "study"])
def test_a_place_whose_name_is_not_utf_8_is_refused_before_a_run_whose_weights_could_not_be_read(key: str) -> None:
    cfg = compose(RUN)
    OmegaConf.update(cfg, key, "a\udcff")
    with pytest.raises(ConfigError, match=f"^{key}=.*UTF-8"):
        check(cfg)
    OmegaConf.update(cfg, key, "Łódź")
    check(cfg)


@pytest.mark.parametrize("sign", ["\n", "\r", "\t", "\x7f"])
@pytest.mark.parametrize("key", ["paths.run_dir", "paths.runs", "paths.multirun", "study"])
def test_a_place_with_a_line_end_in_its_name_is_refused_before_a_record_that_could_not_be_read(key: str, sign: str) -> None:
    cfg = compose(RUN)
    OmegaConf.update(cfg, key, f"a{sign}b")
    with pytest.raises(ConfigError, match=f"^{key}="):
        check(cfg)
