"""Every key of every packaged option, tried with mistakes of each kind: what passes the checks is a value that the key may have."""

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gptshake.config.compose import compose
from gptshake.config.layout import options
from gptshake.config.schemas import TEXT_KEYS
from gptshake.config.validate import check, trains
from gptshake.errors import GptshakeError
from gptshake.setup import resolve

MISTAKES: dict[str, Any] = {
    "a word": "abc",
    "a list": [1, 2],
    "a mapping": {"a": 1},
    "nan": float("nan"),
    "inf": float("inf"),
    "minus one": -1,
    "minus a half": -0.5,
}
OF_THE_SWEEPER = ("pruner", "executor")  # they land in hydra.sweeper
GROUPS = ("model", "data", "tokenizer", "optimizer", "scheduler", "trainer", "logger", "callbacks", "paths", "task", *OF_THE_SWEEPER)
SAME_KEYS = {"model": ("tiny", "gpt3_small"), "data": ("wiki_char", "text_char", "hf_char", "shakespeare_char")}
OPTIONS = [(group, option) for group in GROUPS for option in SAME_KEYS.get(group, options(group))]
TEXTS = {*TEXT_KEYS, "data.config", "logger.project", "logger.entity", "callbacks.samples.prompts", "data.documents"}


@cache
def base(group: str, option: str) -> DictConfig:
    more = {"text_char": [f"data.path={__file__}"], "hf_char": ["data.dataset=user/name"]}.get(option, [])
    return compose(["model=tiny", "data=wiki_char", f"{group}={option}", *more], with_hydra=group in OF_THE_SWEEPER)


def leaves(node: Any, prefix: str) -> Iterator[str]:
    for name in map(str, node) if isinstance(node, DictConfig) else ():
        child = None if OmegaConf.is_interpolation(node, name) or OmegaConf.is_missing(node, name) else node.get(name)
        if isinstance(child, DictConfig):
            yield from leaves(child, f"{prefix}.{name}")
        elif not name.startswith("_"):
            yield f"{prefix}.{name}"


def passes(cfg: DictConfig, key: str, value: Any) -> bool:
    changed = copy.deepcopy(cfg)
    try:
        OmegaConf.update(changed, key, value)
        check(changed)
        if trains(changed):
            resolve.preflight(changed)
    except OmegaConfBaseException:
        return False  # refused by its type, when it is composed
    except GptshakeError as error:
        assert "\n" not in str(error) and str(error).endswith("."), f"{key}={value}: {error}"
        return False
    return True


def may_be(key: str, what: str, value: Any) -> bool:
    """A text may be any word, and a list of texts any list; a number for a switch is refused where it is typed (test_mistakes)."""
    return (key in TEXTS and what != "a mapping") or (isinstance(value, bool) and what == "minus one")


SEEN: set[str] = set()


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_no_value_of_a_wrong_kind_passes_the_checks(group: str, option: str) -> None:
    cfg = base(group, option)
    prefix = f"hydra.sweeper.{group}" if group in OF_THE_SWEEPER else group
    found = []
    for key in leaves(OmegaConf.select(cfg, prefix), prefix):
        if key not in SEEN and not key.startswith("data.documents."):
            SEEN.add(key)
            found += [
                f"{key}: {what}"
                for what, value in MISTAKES.items()
                if not may_be(key, what, OmegaConf.select(cfg, key)) and passes(cfg, key, value)
            ]
    assert found == []
