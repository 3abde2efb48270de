"""Schemas of ``conf/optimizer`` and ``conf/scheduler``: what Hydra accepts, from the signatures of the functions. Imports no torch."""

import inspect
from collections.abc import Callable
from dataclasses import field, make_dataclass
from typing import Any

from gptshake.optim.adamw import adamw
from gptshake.optim.groups import GroupRule
from gptshake.optim.schedule import constant, cosine, gpt3, linear, one_cycle, wsd
from gptshake.optim.sgd import sgd

GIVEN = ("named_parameters", "tokens", "total")  # by the training, not by the config


def _schema(name: str, function: Callable[..., Any]) -> type:
    """The options of a function as a dataclass of this module; where several types are allowed, the function checks."""
    fields: list[Any] = []
    for option in inspect.signature(function).parameters.values():
        if option.name == "groups":
            fields.append((option.name, list[GroupRule], field(default_factory=list)))
        elif option.name not in GIVEN:
            kind = option.annotation if option.annotation in (float, bool, str) else Any
            fields.append((option.name, kind) if option.default is option.empty else (option.name, kind, option.default))
    target = f"{function.__module__}.{function.__name__}"
    fields += [("_target_", str, target), ("_partial_", bool, True)]
    schema = make_dataclass(name, fields, namespace={"__doc__": target}, init=False, repr=False, eq=False)
    schema.__module__ = __name__  # a config is pickled with the names of its schemas
    return schema


AdamWConfig, SGDConfig = _schema("AdamWConfig", adamw), _schema("SGDConfig", sgd)
GPT3Config, CosineConfig = _schema("GPT3Config", gpt3), _schema("CosineConfig", cosine)
ConstantConfig, LinearConfig = _schema("ConstantConfig", constant), _schema("LinearConfig", linear)
OneCycleConfig, WSDConfig = _schema("OneCycleConfig", one_cycle), _schema("WSDConfig", wsd)
