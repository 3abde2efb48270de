"""What a config names as its target is looked at before it is called."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from gptshake.cli import _task
from gptshake.errors import ConfigError, GptshakeError
from gptshake.setup.instantiate import DATA_MODULE, built, check_attributes, check_call, check_class, make, network, source_of, trainer_of
from gptshake.setup.schedule import check_schedule


@pytest.mark.parametrize("target", ["math.sqrt", "json.dumps", "pathlib.Path.home", "torch.nn.Linear"])
def test_a_target_that_does_not_take_its_arguments_is_refused_before_it_is_called(target: str) -> None:
    with pytest.raises(ConfigError, match=f"^_target_: {target} cannot stand here: it is called with budget, callbacks"):
        check_call(OmegaConf.create({"_target_": target}), ("budget", "callbacks"))


def test_what_takes_them_or_has_no_signature_passes() -> None:
    for target in ("builtins.dict", "unittest.mock.Mock", "gptshake.training.trainer.build_trainer"):
        names = ("budget", "callbacks", "accelerator", "devices", "precision", "record", "detect_anomaly")
        check_call(OmegaConf.create({"_target_": target}), names)


OTHER_KINDS: dict[str, tuple[Callable[[DictConfig], object], str]] = {
    "data={documents: {_target_: builtins.dict}}": (
        lambda cfg: source_of(cfg.data),
        "data.documents._target_: builtins.dict .* a dict has no label",
    ),
    "tokenizer={_target_: fractions.Fraction}": (trainer_of, "tokenizer._target_: fractions.Fraction .* a Fraction has no settings"),
    "model={_target_: builtins.dict}": (lambda cfg: built(cfg, 7), "model._target_: builtins.dict .* a dict has no parameters"),
    "data={_target_: builtins.dict}": (lambda cfg: check_class(cfg.data, DATA_MODULE), "builtins.dict .* a dict has no train_dataloader"),
    "scheduler={_target_: builtins.dict}": (check_schedule, "scheduler._target_: builtins.dict .* it is called with tokens, total"),
    "scheduler={_target_: builtins.dict, _partial_: true}": (check_schedule, "builtins.dict .* it is called with tokens, total"),
    "scheduler={_target_: math.hypot, _partial_: true}": (check_schedule, "scheduler._target_: math.hypot .* a float has no lr"),
}


@pytest.mark.parametrize("part", OTHER_KINDS)
def test_a_target_that_makes_something_else_is_refused_with_what_that_lacks(part: str) -> None:
    check, said = OTHER_KINDS[part]
    with pytest.raises(ConfigError, match=said):
        check(OmegaConf.from_dotlist(["optimizer={}", part]))


def test_what_is_missing_inside_of_a_property_is_not_taken_for_the_property() -> None:
    class Mine:
        @property
        def loss(self) -> object:
            return self.head  # type: ignore[attr-defined]

    with pytest.raises(ConfigError, match=r"loss of the Mine cannot be read \('Mine' object has no attribute 'head'\)"):
        check_attributes("model._target_: mine.Mine", Mine(), ("loss",))
    with pytest.raises(ConfigError, match="a Mine has no parameters"):
        check_attributes("model._target_: mine.Mine", Mine(), ("parameters", "loss"))


class Wrapped:
    """Has what it wraps."""

    def __init__(self, inner: object = None) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    @classmethod
    def task(cls, context: object) -> object:
        return context


def test_a_wrapper_may_be_a_part_and_a_partial_or_a_method_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mine", SimpleNamespace(Wrapped=Wrapped, half=partial(divmod, 7), dict=dict))  # type: ignore[arg-type]
    check_class(OmegaConf.create({"_target_": "mine.Wrapped"}), DATA_MODULE)
    tasks: dict[str, Any] = {name: OmegaConf.create({"task": {"_target_": f"mine.{name}"}}) for name in ("half", "Wrapped.task", "dict")}
    assert _task(tasks["half"])(2) == (3, 1) and _task(tasks["Wrapped.task"])("it") == "it"  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="is no Python function of a context"):
        _task(tasks["dict"])


def test_a_network_that_lacks_a_part_is_named_with_it() -> None:
    store = SimpleNamespace(tokenizer=SimpleNamespace(vocab_size=7))
    cfg = OmegaConf.create({"seed": 1, "model": {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1}})
    with pytest.raises(GptshakeError, match=r"torch\.nn\.Linear cannot be built .*vocab_size"):
        network(cfg, store)  # type: ignore[arg-type]
    cfg.model = {"_target_": "types.SimpleNamespace", "parameters": 1}
    with pytest.raises(ConfigError, match=r"model\._target_: types\.SimpleNamespace cannot stand here: a SimpleNamespace has no config"):
        network(cfg, store)  # type: ignore[arg-type]


PART = """
class Mixer:
    def __init__(self, width: int, rate: "float" = 1, bias: bool = True, **others: object) -> None:
        self.rows = [0] * width
        raise KeyError("mine")
"""


def test_a_part_that_cannot_be_built_is_named_with_its_line_its_hints_and_the_nearest_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "part_of_mine.py").write_text(PART)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    node = {"_target_": "part_of_mine.Mixer", "width": 2, "rate": 3}
    for changed, said in (
        ({}, r"keys: 'mine' \(in part_of_mine\.py, line 5\)$"),
        ({"width": "a"}, r"\(in part_of_mine\.py, line 4\)\. Its type hints ask for width: int, not a$"),
        ({"rate": "b", "bias": 3}, r"Its type hints ask for rate: float, not b, bias: bool, not 3$"),
        ({"_target_": "part_of_mine.Mixr"}, r"part_of_mine has no Mixr; did you mean Mixer\?"),
        ({"_target_": "no_part_of_mine.Mixer"}, r"No module named 'no_part_of_mine'"),
    ):
        with pytest.raises(GptshakeError, match=said):
            make(OmegaConf.create(node | changed))
