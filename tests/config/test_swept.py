"""What a multirun will run is looked at before its first run begins: every value, both ends of a range, every enqueued point."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from gptshake import cli
from gptshake.config.arguments import parse
from gptshake.config.compose import compose
from gptshake.config.compose_errors import checked_compose, parse_overrides
from gptshake.config.layout import SWEPT_FILES
from gptshake.config.multirun import each_point, expand_globs, single_run_overrides, starting_options
from gptshake.config.validate import check
from gptshake.errors import ConfigError


def seen(*words: str) -> list[Any]:
    """The configs that are looked at before a multirun begins, in order; those of the text keys' files are not opened."""
    arguments = parse(["-m", *words])
    arguments.overrides = expand_globs(arguments.overrides)
    arguments.overrides[:0] = starting_options(parse_overrides(arguments.overrides))
    single = single_run_overrides(arguments)
    parsed, looked = parse_overrides(arguments.overrides), list[Any]()
    for _, cfg in each_point(single, parsed, checked_compose(single), cli._listed(parsed)):
        check(cfg)
        looked.append(cfg)
    return looked


BASE = ("model=tiny", "data=wiki_char")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("optimizer.lr=1e-3,-1",), "optimizer.lr=-1"),
        (("optimizer.lr=1e-3,inf",), "optimizer.lr=inf"),
        (("optimizer.lr=1e-3,fast",), "optimizer.lr=fast"),
        (("optimizer.lr=choice(1e-3,nan)", "seed=1,2"), "optimizer.lr=nan"),
        (("model.dropout=interval(0.0,1.5)",), "dropout"),
        (("optimizer.beta2=interval(0.9,1.1)",), "optimizer.beta2=1.1"),
        (("optimizer.lr=interval(-1,1)",), "optimizer.lr=-1"),
        (("data.batch_size=range(0,8,4)",), "data.batch_size=0"),
        (("optimizer.lr=range", "enqueue=[{optimizer.lr:-1}]"), "optimizer.lr=-1"),
        (("optimizer.lr=range", "enqueue=[{optimizer.lr:1e-3},{optimizer.lr:fast}]"), "optimizer.lr=fast"),
        (("ablate=[model.bias=false,optimizer.lr=-1]",), "optimizer.lr=-1"),
        (("ablate=[model.n_head=3,model.n_embd=9]",), "n_head=3"),
        (("data.batch_tokens=128,100", "model.block_size=64"), "data.batch_tokens=100 is not a multiple of model.block_size=64"),
        (("model.block_size=32,60", "data.batch_tokens=128"), "data.batch_tokens=128 is not a multiple of model.block_size=60"),
        (("seed=range(5,2)",), "seed=range(5,2) holds no value"),
        (("seed=range(0,1000000000)",), "seed=range(0,1000000000) holds more than 10,000 values"),
        (("seed=range(1,9,0)",), "a step that is not 0"),
        (("seed=range(1,inf)",), "two finite ends"),
        (("optimizer.lr=interval(1e-4,inf)",), "both finite"),
        (("optimizer.lr=interval(1e-2,1e-4)",), "from a smaller number to a larger one"),
        (("data.batch_size=tag(powers_of_two,interval(9,15))",), "there is no power of two from 9 to 15"),
        (("model.n_layer=interval(2.2,2.8)",), "there is no whole number from 2.2 to 2.8"),
        (("optimizer.lr=tag(lgo,interval(1e-4,1e-2))",), "there is no tag lgo; did you mean log?"),
        (("data.batch_size=tag(power_of_two,interval(8,64))",), "did you mean powers_of_two?"),
        (("data.batch_size=tag(powers_of_two,range(8,65))",), "the tag powers_of_two is for an interval"),
        (("search_space={optimizer.lr:'tag(lgo,interval(1e-4,1e-2))'}", "optimizer.lr=range"), "there is no tag lgo"),
        (("search_space={optimizer.lr:'intervl(1e-4'}", "optimizer.lr=range"), "which cannot be read"),
        (("scheduler=gpt3,cosin",), "did you mean cosine?"),
        (("model=glob(x*)",), "no option of model has such a name"),
        (("hydra.sweeper.storage=sqlite:///a.db", "seed=1,2"), "hydra.sweeper.storage= was removed"),
    ],
)
def test_a_value_that_cannot_work_is_refused_wherever_it_stands(words: tuple[str, ...], part: str) -> None:
    with pytest.raises(ConfigError) as error:
        seen(*BASE, *words)
    assert part in str(error.value)


def test_every_combination_of_a_grid_is_seen_and_both_ends_of_a_range() -> None:
    found = {(cfg.optimizer.lr, cfg.model.n_layer) for cfg in seen(*BASE, "optimizer.lr=1e-3,1e-2", "model.n_layer=int(interval(2,9))")}
    assert {(1e-3, 2), (1e-3, 9), (1e-2, 2), (1e-2, 9)} <= found
    many = {(cfg.seed, cfg.optimizer.lr) for cfg in seen(*BASE, "seed=range(0,129)", "optimizer.lr=1e-3,1e-2")}
    assert {(seed, 1e-3) for seed in range(129)} <= many and (0, 1e-2) in many and len(many) == 130  # more than 256 combinations


def test_a_declared_range_of_options_is_seen_as_options() -> None:
    assert {str(cfg.scheduler._target_).rpartition(".")[2] for cfg in seen(*BASE, "scheduler=range")} == {
        "wsd",
        "linear",
        "cosine",
        "gpt3",
        "one_cycle",
        "constant",
    }


@pytest.mark.parametrize(
    "typed", ["model=tiny,baby", "model=choice(tiny,baby)", "model='tiny','baby'", "model=choice('tiny',baby)", "model=sort(baby,tiny)"]
)
def test_a_mandatory_group_is_swept_in_every_spelling_with_a_fixed_key_of_it(typed: str) -> None:
    assert {cfg.model.n_layer for cfg in seen(typed, "data=wiki_char", "model.n_layer=1")} == {1}
    assert {cfg.model.n_embd for cfg in seen(typed, "data=wiki_char")} == {
        compose([f"model={name}"]).model.n_embd for name in ("tiny", "baby")
    }


def test_options_are_named_by_a_pattern() -> None:
    assert expand_globs(["model=glob(gpt3_m*)", "seed=1"]) == ["model=choice(gpt3_medium)", "seed=1"]


@pytest.mark.parametrize(
    ("typed", "paths"),
    [
        ("data.path=a,b c", ["a", "b c"]),
        ("data.path=choice(a,b c)", ["a", "b c"]),
        ("data.path='a','b c'", ["a", "b c"]),
        ("data.path=[a,b],[c]", [["a", "b"], ["c"]]),
        ("data.path=choice([a,b],c)", [["a", "b"], "c"]),
        ("data.path=[a,b]", [["a", "b"]]),
        ("data.path='a,b'", ["a,b"]),
        ("data.path=it's,b", ["it's,b"]),
    ],
)
def test_paths_are_swept_in_every_spelling(typed: str, paths: list[Any]) -> None:
    found = [OmegaConf.to_container(cfg)["data"]["path"] for cfg in seen("model=tiny", "data=text_char", typed)]  # type: ignore[index,call-overload]
    assert [path for n, path in enumerate(found) if path not in found[:n]] == paths


def test_a_file_whose_name_has_a_comma_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a,b").touch()
    assert parse(["-m", "data.path=a,b"]).overrides == ["data.path='a,b'"]
    assert parse(["data.path=c,d"]).overrides == ["data.path='c,d'"]  # one run: a comma is a letter


def test_a_swept_group_starts_at_what_was_typed_for_it_or_at_its_first_option() -> None:
    parsed = parse_overrides(
        ["model=tiny,baby", "data=wiki_char", "tokenizer=byte", "tokenizer=char,byte", "optimizer.lr=1,2", "scheduler=choice(range)"]
    )
    assert starting_options(parsed) == ["model=tiny"]


def test_what_is_decided_for_one_point_is_not_of_the_next() -> None:
    """Whoever looks at a point resolves its ``auto``: the micro-batch of a small network would be that of a large one."""
    words = ["model=tiny", "data=wiki_char"]
    found = list[Any]()
    for _, cfg in each_point(words, parse_overrides(["model.n_embd=64,4096"]), checked_compose(words)):
        found.append(cfg.data.micro_batch_size)
        cfg.data.micro_batch_size = 512
    assert found == ["auto"] * 3


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
def test_the_configs_of_a_multirun_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry point collects no garbage before a task runs; of a grid's configs each is some, of a megabyte."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(SWEPT_FILES, "")
    for words, collects in ((["seed=-1"], False), (["-m", "seed=1,-1"], True)):
        with pytest.raises(ConfigError, match="seed=-1"):
            cli.run(parse(["model=tiny", "data=wiki_char", *words]))
        assert gc.isenabled() == collects
