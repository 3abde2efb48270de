"""The model presets: their keys, their numbers, and that each can be built."""

import inspect
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import hydra.utils
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from gptshake.errors import ConfigError
from gptshake.model.config import GPTConfig, check_shape
from gptshake.model.gpt import GPT

CONF = Path(__file__).parents[2] / "conf" / "model"
PRESETS = sorted(path.stem for path in CONF.glob("*.yaml"))

GPT3 = {  # Brown et al. 2020, table 2.1: layers, width, heads, width of a head, tokens per batch (millions), peak LR
    "gpt3_small": (12, 768, 12, 64, 0.5, 6.0e-4),
    "gpt3_medium": (24, 1024, 16, 64, 0.5, 3.0e-4),
    "gpt3_large": (24, 1536, 16, 96, 0.5, 2.5e-4),
    "gpt3_xl": (24, 2048, 16, 128, 1, 2.0e-4),  # printed with 24 heads
    "gpt3_2_7b": (32, 2560, 32, 80, 1, 1.6e-4),
    "gpt3_6_7b": (32, 4096, 32, 128, 2, 1.2e-4),
    "gpt3_13b": (40, 5120, 40, 128, 2, 1.0e-4),  # printed with 5140
    "gpt3_175b": (96, 12288, 96, 128, 3.2, 0.6e-4),
}


def preset(name: str) -> DictConfig:
    config = OmegaConf.load(CONF / f"{name}.yaml")
    assert isinstance(config, DictConfig)
    return config


def test_schema_fields_are_the_constructors_parameters() -> None:
    schema = {field.name for field in fields(GPTConfig)} - {"_target_"}
    assert schema == set(inspect.signature(GPT).parameters)
    assert GPTConfig._target_ == f"{GPT.__module__}.{GPT.__qualname__}"


@pytest.mark.parametrize("name", PRESETS)
def test_preset_keys_are_schema_fields_and_it_builds(name: str) -> None:
    config = preset(name)
    assert set(config) == {"defaults", "model", "preset"}
    assert set(config.preset) in ({"lr", "batch_size"}, {"lr", "batch_tokens"})
    shape = OmegaConf.merge(OmegaConf.structured(GPTConfig), config.model, {"vocab_size": 300})  # refuses unknown keys and wrong types
    with torch.device("meta"):
        model = hydra.utils.instantiate(shape)
    assert isinstance(model, GPT)
    assert model.config.n_layer == len(model.blocks) == config.model.n_layer


@pytest.mark.parametrize("name", GPT3)
def test_gpt3_presets_are_the_papers_table(name: str) -> None:
    n_layer, width, n_head, d_head, millions, lr = GPT3[name]
    model, numbers = preset(name).model, preset(name).preset
    assert (model.n_layer, model.n_embd, model.n_head, model.n_embd // model.n_head) == (n_layer, width, n_head, d_head)
    assert (model.block_size, model.dropout, numbers.lr) == (2048, 0.0, lr)
    assert numbers.batch_tokens == pytest.approx(millions * 1e6, rel=0.05)
    assert numbers.batch_tokens % (2048 * 128) == 0  # whole sequences, and 128 devices can share them


def test_all_eight_sizes_and_the_journals_models_are_there() -> None:
    assert set(PRESETS) == {*GPT3, "gpt2", "tiny", "baby", "gpt_mini_v0", "mini_v1"}
    assert (
        preset("gpt_mini_v0").model
        == preset("mini_v1").model
        == {"n_layer": 10, "n_head": 8, "n_embd": 512, "block_size": 256, "dropout": 0.2}
    )
    assert preset("gpt_mini_v0").preset == {"lr": 1e-3, "batch_size": 128}


def test_gpt2_has_the_published_number_of_values() -> None:
    assert GPTConfig(**preset("gpt2").model, vocab_size=50257).num_params() == 124_439_808


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"n_head": 3}, "try model.n_embd=126 or 129"),
        ({"n_head": 200}, "try model.n_embd=200"),
        ({"n_layer": 0}, "model.n_layer=0"),
        ({"vocab_size": 0}, "model.vocab_size=0"),
        ({"dropout": 1.0}, "model.dropout=1.0"),
        ({"dropout": -0.1}, "model.dropout=-0.1"),
    ],
)
def test_impossible_shapes_are_refused(change: dict[str, float], sentence: str) -> None:
    shape = {"n_layer": 4, "n_head": 4, "n_embd": 128, "block_size": 64, **change}
    with pytest.raises(ConfigError, match=sentence):
        check_shape(GPTConfig(**shape))  # type: ignore[arg-type]


def test_schemas_schedules_and_arithmetic_import_no_torch() -> None:
    parts = ["model.config", "optim.config", "optim.schedule", "optim.groups", "estimate.budget", "estimate.memory", "hardware"]
    imports = ", ".join(f"gptshake.{part}" for part in parts)
    code = f"import sys, {imports}; gptshake.hardware.describe(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
