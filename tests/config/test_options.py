"""Every option of every group composes and instantiates; yaml, schema and constructor agree; public keys change on purpose only."""

import inspect
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_method, get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from gptshake.config.compose import choices, compose
from gptshake.config.compose_errors import checked_compose
from gptshake.config.help import help_page
from gptshake.config.layout import GROUPS, OLD_OPTIONS, OLD_TARGETS, options, packaged_conf
from gptshake.config.overrides import stored_overrides
from gptshake.config.schemas import SCHEMAS, RootConfig
from gptshake.config.validate import check, check_groups
from gptshake.config.values import unsafe_reason
from gptshake.errors import ConfigError
from gptshake.estimate.budget import Budget
from gptshake.setup import resolve
from gptshake.setup.instantiate import make
from gptshake.setup.run import OURS
from gptshake.sweep.config import SweeperConfig
from gptshake.sweep.executor.local import LocalSlots
from gptshake.sweep.executor.ray import RayJobs
from gptshake.sweep.executor.slurm import SlurmJobs
from gptshake.sweep.options import sampler_for
from gptshake.sweep.space import axis_of
from hydra_plugins.gptshake_sweeper.sweeper import GptshakeSweeper

OPTIONS = [(group, option) for group in GROUPS for option in options(group)]
NAMED = {"text": [f"data.path='{__file__}'"], "hf": ["data.dataset=user/name"]}  # what the user must say
BUDGET = Budget(4, 2, 2, 64, 10, 256, 2560, 1.0, "max_steps", ())
PUBLIC = {
    *("seed", "note", "dirty", "resume", "init_from", "study", "deterministic", "conf_shadow", "preset"),
    *("search_space", "sampler", "pruner", "executor"),
    *("paths", "tokenizer", "optimizer", "scheduler", "data", "model", "trainer", "logger", "callbacks", "task", "experiment", "debug"),
}
BUILT = ("model", "data", "tokenizer", "optimizer", "scheduler", "trainer", "callbacks", "logger", "search_space", "task")
OF_THE_SWEEPER = ("sampler", "pruner", "executor")  # they land in hydra.sweeper
# Parameters that the program gives, not the user.
GIVEN = {
    "gptshake.model.gpt.GPT": {"vocab_size"},
    "gptshake.data.module.TokenDataModule": {"store", "block_size", "seed", "rank", "world_size"},
    "gptshake.optim.adamw.adamw": {"named_parameters"},
    "gptshake.optim.sgd.sgd": {"named_parameters"},
    "gptshake.training.trainer.build_trainer": {"budget", "callbacks", "record", "lightning"},
}
# Keys of a node that are not its target's: the source of the documents is a node of its own, setup reads the trainer's limits.
ELSEWHERE = {
    "gptshake.data.module.TokenDataModule": {"documents", "split", "val_fraction", "test_fraction", "batch_tokens", "verify"},
    "gptshake.training.trainer.build_trainer": set(OURS),
}


def composed(group: str, option: str) -> DictConfig:
    source, _, tokenizer = option.partition("_") if group == "data" else ("", "", option)
    more = NAMED.get(source, []) + ([] if tokenizer else ["tokenizer=char"])
    more += ["task=plan"] if group == "model" else []  # a run is refused where the weights exceed this machine's memory
    return compose(["model=tiny", "data=wiki_char", f"{group}={option}", *more])


def build(group: str, cfg: DictConfig) -> Any:
    """The object that a run would make of this group."""
    node = cfg[group]
    if group == "model":
        with torch.device("meta"):
            return make(node, vocab_size=256)
    if group == "data":
        return make(node.documents)
    if group == "optimizer":
        return make(node)(torch.nn.Linear(2, 2).named_parameters())
    if group == "scheduler":
        return make(node)(5 * 10**8, 10**9)
    if group == "trainer":
        own = {str(key): value for key, value in node.items() if key not in OURS and key != "_target_"}
        own |= {"accelerator": "cpu", "precision": "32-true"} | ({"devices": 2} if own["devices"] == "auto" else {})
        return instantiate({"_target_": node._target_, "_partial_": True})(budget=BUDGET, callbacks=[], **own)
    if group == "tokenizer":
        return resolve.tokenizer_trainer(cfg)
    if group == "search_space":
        parser = OverridesParser.create()
        swept = [parser.parse_override(f"{key}={text}") for key, text in node.items()]
        return [axis_of(override, {}, lambda key: (OmegaConf.select(cfg, key), False)) for override in swept]
    return get_method(node._target_) if group == "task" else make(node)


@pytest.mark.parametrize(("group", "option"), [(group, option) for group, option in OPTIONS if group in OF_THE_SWEEPER])
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_every_part_of_the_sweeper_instantiates(group: str, option: str) -> None:
    node = OmegaConf.load(packaged_conf() / group / f"{option}.yaml")
    part = instantiate(node)
    made = sampler_for(SweeperConfig(sampler=part), 0) if group == "sampler" else part
    kinds = {"sampler": optuna.samplers.BaseSampler, "pruner": optuna.pruners.BasePruner, "executor": LocalSlots | RayJobs | SlurmJobs}
    assert isinstance(made, kinds[group])


@pytest.mark.parametrize(
    ("group", "option"),
    [pytest.param(*one, marks=[pytest.mark.trackers] if one[1] in ("mlflow", "trackio") else []) for one in OPTIONS],
)
def test_every_option_composes_passes_the_checks_and_instantiates(group: str, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptshake.config.validate.memory_bytes", lambda: 1 << 50)  # the largest models fit into few machines
    if option in ("mlflow", "trackio"):
        pytest.importorskip(option, reason="make test-trackers installs it")
    cfg = composed(group, option)
    OmegaConf.resolve(cfg)
    check_groups(cfg)
    check(cfg)
    for one in BUILT if group in ("experiment", "debug", "paths", *OF_THE_SWEEPER) else (group,):
        assert build(one, cfg) is not None


@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_recipe_composes_by_itself_and_all_its_parts_instantiate(experiment: str) -> None:
    cfg = compose([f"experiment={experiment}"])
    check_groups(cfg)
    check(cfg)
    for group in BUILT:
        assert build(group, cfg) is not None


def test_no_folder_of_the_config_tree_is_left_out() -> None:
    assert {folder.name for folder in packaged_conf().iterdir() if folder.is_dir()} == {*GROUPS, "hydra"}


@pytest.mark.parametrize("option", [file.stem for file in (packaged_conf() / "hydra" / "sweeper").glob("*.yaml")])
def test_every_option_of_the_sweeper_is_taken_by_it(option: str) -> None:
    file: Any = OmegaConf.to_container(OmegaConf.load(packaged_conf() / "hydra" / "sweeper" / f"{option}.yaml"), resolve=False)
    assert GptshakeSweeper(**{key: value for key, value in file.items() if key != "defaults"}).options.objective == "val/bpb"


def test_smoke_makes_every_model_small_in_time_but_not_in_shape() -> None:
    for model in options("model"):
        cfg = compose([f"model={model}", "data=wiki_char", "debug=smoke"])
        assert cfg.trainer.max_steps <= 5 and cfg.model.block_size <= 64
        assert cfg.model.n_layer == compose([f"model={model}"]).model.n_layer


def own_keys(group: str, option: str) -> set[str]:
    file = OmegaConf.load(packaged_conf() / group / f"{option}.yaml")
    assert isinstance(file, DictConfig)
    common = OmegaConf.load(packaged_conf() / group / "_common.yaml") if "_common" in file.get("defaults", []) else {}
    return {str(key) for key in (*file.get(group, file), *common)} - {"defaults", "_target_", "_partial_"}


SCHEMA_OF = [(group, name, schema) for group, schemas in SCHEMAS.items() for name, schema in schemas.items()]


@pytest.mark.parametrize(("group", "name", "schema"), SCHEMA_OF, ids=[name for _, name, _ in SCHEMA_OF])
def test_yaml_keys_are_schema_fields_are_parameters(group: str, name: str, schema: Any) -> None:
    option = {"gpt": "tiny", "trainer": "auto"}.get(name, name)
    in_schema = {field.name for field in fields(schema)} - {"_target_", "_partial_"}
    in_yaml = own_keys(group, option)
    target = inspect.getattr_static(schema, "_target_")
    parameters = set(inspect.signature(get_object(target)).parameters)
    positions = {"tokens", "total"} if group == "scheduler" else set()
    if group == "model":  # a preset says the shape; vocabulary comes with the data, bias is GPT-2's unless asked
        assert in_yaml == in_schema - {"vocab_size", "bias"}
        assert in_schema == parameters
        return
    if group == "data":
        documents = OmegaConf.load(packaged_conf() / group / f"{option}.yaml").documents
        sources = {str(key) for key in documents} - {"_target_"}
        assert sources == set(inspect.signature(get_object(documents._target_)).parameters)
        sources -= {"cache"}
        assert sources <= in_schema
        in_schema, in_yaml = in_schema - sources, in_yaml - sources
    assert in_yaml == in_schema
    if group in ("tokenizer", "logger"):  # what is made inherits its schema; setup reads path
        in_schema, parameters = in_schema - {"path"}, parameters - {"_target_", "path"}
    assert in_schema - ELSEWHERE.get(target, set()) == parameters - GIVEN.get(target, set()) - positions


@pytest.mark.parametrize(
    ("words", "lr"),
    [
        (["model=tiny"], 8e-3),
        (["model=tiny", "data.batch_size=8"], 4e-3),
        (["model=tiny", "data.batch_size=12"], 4.9e-3),
        (["model=tiny", "data.batch_tokens=512"], 4e-3),
        (["model=tiny", "data.batch_size=128"], 8e-3),
        (["model=tiny", "data.batch_size=8", "optimizer.lr=1e-3"], 1e-3),
        (["model=baby", "data.batch_size=16"], 1e-3),
        (["model=gpt3_small", "data.batch_size=1"], 6e-4),
    ],
)
def test_the_presets_rate_of_tiny_goes_with_the_root_of_a_smaller_batch(words: list[str], lr: float) -> None:
    assert compose([*words, "data=wiki_char"]).optimizer.lr == lr


@pytest.mark.parametrize(("name", "parts"), OLD_OPTIONS["data"].items())
def test_the_old_name_of_a_text_and_a_tokenizer_means_both(name: str, parts: tuple[str, str]) -> None:
    source, tokenizer = parts
    assert compose(["model=tiny", f"data={name}"]) == compose(["model=tiny", f"data={source}", f"tokenizer={tokenizer}"])


def test_a_tokenizer_that_is_typed_replaces_that_of_an_old_name() -> None:
    assert compose(["model=tiny", "data=wiki_bpe", "tokenizer=char"]).tokenizer == compose(["tokenizer=char"]).tokenizer


@pytest.mark.parametrize(("option", "old"), list(zip(("wandb", "tensorboard"), OLD_TARGETS, strict=True)))
def test_the_old_target_of_a_tracker_is_the_new_one(option: str, old: str) -> None:
    new = compose([f"logger={option}"])
    assert compose([f"logger={option}", f"logger._target_={old}"]) == new
    assert not unsafe_reason(f"logger._target_={old}") and get_object(new.logger._target_)


def test_an_old_name_is_taken_from_the_shell_and_from_records_but_never_listed(tmp_path: Path) -> None:
    assert "wiki_bpe" not in options("data")
    assert (
        choices(compose(["model=tiny", "data=wiki_bpe"], with_hydra=True).hydra)["data"] == "wiki_bpe"
    )  # part of the names of runs and studies
    with pytest.raises(ConfigError, match=r"^optimizer\.lr=abc"):
        checked_compose(["model=tiny", "data=wiki_bpe", "optimizer.lr=abc"])
    record = {"id": "x", "name": "x", "status": "ok", "overrides": ["model=tiny", "data=wiki_bpe"], "resolved": {}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert stored_overrides(tmp_path) == record["overrides"]


def test_an_option_of_the_users_own_may_have_an_old_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf/data").mkdir(parents=True)
    (tmp_path / "conf/data/wiki_bpe.yaml").write_text(
        "# @package _global_\ndefaults: [/data/wiki@data, override /tokenizer: char]\ndata: {batch_size: 7}\n"
    )
    monkeypatch.chdir(tmp_path)
    cfg = compose(["model=tiny", "data=wiki_bpe"])
    assert cfg.data.batch_size == 7 and cfg.tokenizer == compose(["tokenizer=char"]).tokenizer


def test_public_root_keys_are_these_and_no_others() -> None:
    """They stand in people's shell histories and in stored runs: rename one only with a way for both to go on."""
    assert {field.name for field in fields(RootConfig)} == PUBLIC
    assert {str(key) for key in compose(["model=tiny", "data=wiki_char"])} == PUBLIC


def test_help_lists_every_option_and_no_schema() -> None:
    page = help_page()
    flat = " ".join(page.split())
    for group, option in OPTIONS:
        assert option in flat, f"{group}={option}"
    assert "_schema" not in page
    assert max(len(line) for line in page.splitlines()) <= 80


@pytest.mark.parametrize("columns", [60, 79, 100, 119, 140, 400])
def test_help_fits_a_terminal_and_breaks_no_word(columns: int) -> None:
    page = help_page(columns)
    assert max(len(line) for line in page.splitlines()) <= columns and page.split() == help_page(10_000).split()
