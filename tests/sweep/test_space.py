"""From what was typed to the axes of a study, and back."""

from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hypothesis import given
from hypothesis import strategies as st

from gptshake.errors import ConfigError
from gptshake.sweep.space import Axis, axis_of, is_configured_range, overrides_of

RANGES = {"optimizer.lr": "tag(log, interval(1e-5, 1e-2))", "data.batch_size": "tag(log, powers_of_two, int(interval(8, 100)))", "odd": "5"}


def parsed(text: str) -> Override:
    return OverridesParser.create().parse_override(text)


def axis(text: str, declared: Any = None, integer: bool = False) -> Axis:
    return axis_of(parsed(text), RANGES, lambda _: (declared, integer))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x=interval(1,10)", Axis("x", 1.0, 10.0)),
        ("x=int(interval(1,10))", Axis("x", 1, 10, integer=True)),
        ("x=tag(log,interval(1e-5,1e-2))", Axis("x", 1e-5, 1e-2, log=True)),
        ("x=tag(powers_of_two,interval(8,256))", Axis("x", 8.0, 256.0, log=True, integer=True, powers=True)),
        ("+x=interval(1,10)", Axis("+x", 1.0, 10.0)),
        ("x=range(1,5)", Axis("x", choices=(1, 2, 3, 4))),
        ("x=range(0,1,0.5)", Axis("x", choices=(0.0, 0.5))),
        ("x=1e-3,3e-4", Axis("x", choices=(1e-3, 3e-4))),
        ("x=choice(1,2.5)", Axis("x", choices=(1, 2.5))),
        ("x=1,auto", Axis("x", choices=("1", "auto"))),
        ("x=true,false", Axis("x", choices=("true", "false"))),
        ("scheduler=gpt3,one_cycle", Axis("scheduler", choices=("gpt3", "one_cycle"))),
        ("x=[1,2],[3]", Axis("x", choices=("[1,2]", "[3]"))),
        ("x='a,b','c'", Axis("x", choices=("'a,b'", "'c'"))),
    ],
)
def test_every_form_of_the_shell_is_an_axis(text: str, expected: Axis) -> None:
    found = axis(text)
    assert (found.key, found.low, found.high, found.log, found.integer, found.powers) == (
        *(expected.key, expected.low, expected.high, expected.log, expected.integer, expected.powers),
    )
    assert [str(value).lower() for value in found.choices] == [str(value).lower() for value in expected.choices]


def test_the_word_range_is_what_the_config_declares() -> None:
    assert axis("optimizer.lr=choice(range)", 2e-3) == Axis("optimizer.lr", 1e-5, 1e-2, log=True, declared=2e-3)
    assert axis("data.batch_size=choice(range)", 32).finite == [8, 16, 32, 64]
    assert axis("+optimizer.lr=choice(range)").key == "+optimizer.lr"


def test_the_word_in_quotes_is_text() -> None:
    assert not is_configured_range(parsed("note=choice('range')"))
    assert is_configured_range(parsed("note=choice(range)"))


def test_an_interval_on_a_key_of_whole_numbers_has_whole_numbers() -> None:
    assert axis("model.n_layer=interval(2,5)", 4, integer=True).finite == [2, 3, 4, 5]
    assert axis("optimizer.lr=interval(2,5)", 4.0).finite is None


@pytest.mark.parametrize("declared", ["auto", None, True, [1]])
def test_a_declared_value_that_is_no_number_is_none(declared: Any) -> None:
    assert axis("x=interval(1,2)", declared).declared is None


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("model.bias=choice(range)", "model.bias=range: search_space has no range for model.bias"),
        ("odd=choice(range)", "which is not a range"),
        ("x=range(1e-5,1e-2)", "x=interval(1e-5,1e-2), on a log scale x=tag(log,interval(1e-5,1e-2))"),
        ("x=interval(2,1)", "from a smaller number to a larger one"),
        ("x=tag(log,interval(0,1))", "a logarithmic interval begins above 0"),
    ],
)
def test_what_cannot_be_meant_is_answered_by_what_was_meant(text: str, part: str) -> None:
    with pytest.raises(ConfigError) as error:
        axis(text)
    assert part in str(error.value)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**12), 10**12))
def test_a_number_comes_back_from_the_grammar_as_it_was(value: float) -> None:
    back = parsed(Axis("x", 0.0, 1.0).override(value)).value()
    assert back == value and type(back) is type(value)


@pytest.mark.parametrize("text", ["gpt3", "'a,b'", "[1,2]", "true", "{a:1}"])
def test_a_text_of_a_list_is_written_as_it_was_typed(text: str) -> None:
    assert Axis("x", choices=(text,)).override(text) == f"x={text}"
    assert parsed(Axis("x").override(text)).value() == parsed(f"x={text}").value()


def test_a_point_is_written_in_the_order_of_the_axes() -> None:
    axes = [Axis("b", choices=(1, 2)), Axis("+a", 0.0, 1.0)]
    assert overrides_of(axes, {"+a": 0.5, "b": 2}) == ["b=2", "+a=0.5"]
