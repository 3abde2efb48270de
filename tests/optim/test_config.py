"""Optimizer and scheduler options: one set of keys in yaml, schema and function."""

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import hydra.utils
import pytest
from omegaconf import OmegaConf

from gptshake.optim import config
from gptshake.optim.adamw import adamw
from gptshake.optim.schedule import constant, cosine, gpt3, linear, one_cycle, wsd
from gptshake.optim.sgd import sgd

CONF = Path(__file__).parents[2] / "conf"
PARTS: dict[str, tuple[type, Any]] = {
    "optimizer/adamw": (config.AdamWConfig, adamw),
    "optimizer/sgd": (config.SGDConfig, sgd),
    "scheduler/gpt3": (config.GPT3Config, gpt3),
    "scheduler/one_cycle": (config.OneCycleConfig, one_cycle),
    "scheduler/cosine": (config.CosineConfig, cosine),
    "scheduler/constant": (config.ConstantConfig, constant),
    "scheduler/linear": (config.LinearConfig, linear),
    "scheduler/wsd": (config.WSDConfig, wsd),
}
GIVEN_LATER = {"named_parameters", "tokens", "total"}


def merged(option: str, preset: dict[str, float] | None = None) -> Any:
    file = OmegaConf.load(CONF / f"{option}.yaml")
    assert file.pop("defaults") == [f"{option.split('/')[1]}_schema", "_self_"]  # type: ignore[union-attr]
    group = option.split("/")[0]
    root = OmegaConf.create({group: OmegaConf.structured(PARTS[option][0]), **({"preset": preset} if preset else {})})
    OmegaConf.update(root, group, file, merge=True)
    return root[group]


@pytest.mark.parametrize("option", PARTS)
def test_yaml_schema_and_function_have_the_same_keys_and_defaults(option: str) -> None:
    schema, function = PARTS[option]
    parameters = {name: parameter.default for name, parameter in inspect.signature(function).parameters.items() if name not in GIVEN_LATER}
    file = OmegaConf.load(CONF / f"{option}.yaml")
    assert {field.name for field in fields(schema)} == {*parameters, "_target_", "_partial_"}
    assert set(file) - {"defaults"} == {*parameters, "_target_", "_partial_"}
    values = OmegaConf.to_container(merged(option))
    parameters = {name: list(default) if isinstance(default, tuple) else default for name, default in parameters.items()}
    assert {name: values[name] for name, default in parameters.items() if default is not inspect.Parameter.empty} == {
        name: default for name, default in parameters.items() if default is not inspect.Parameter.empty
    }


@pytest.mark.parametrize("option", [name for name in PARTS if name.startswith("scheduler/")])
def test_a_scheduler_option_instantiates_to_its_function(option: str) -> None:
    assert hydra.utils.instantiate(merged(option))(500, 1000) == PARTS[option][1](500, 1000)


def test_the_peak_is_the_presets_unless_there_is_none() -> None:
    assert merged("optimizer/adamw").lr == 1e-3
    assert merged("optimizer/adamw", preset={"lr": 6e-4}).lr == 6e-4


def test_every_scheduler_file_is_known_here() -> None:
    assert {f"scheduler/{path.stem}" for path in (CONF / "scheduler").glob("*.yaml")} == {name for name in PARTS if "scheduler" in name}
