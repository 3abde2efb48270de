"""What people type, in whatever order, comes out as Hydra reads it."""

import re
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from gptshake.config.arguments import parse, quote_text
from gptshake.config.schemas import TEXT_KEYS
from gptshake.errors import ConfigError
from gptshake.keys import key_of

TYPABLE = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
AWKWARD = st.text(st.sampled_from("'\"\\ ab") | st.sampled_from("'\\${}[](),=#~!:;\n\té@"), min_size=1, max_size=12)


def value_of(override: str) -> Any:
    return OverridesParser.create().parse_override(override).value()


@given(st.permutations([["-m"], ["seed=1"], ["--dirty"], ["model=tiny"], ["-sc", "query=bash"], ["note=a b"], ["--resolve"]]))
def test_flags_and_overrides_may_stand_in_any_order(words: list[list[str]]) -> None:
    arguments = parse([word for group in words for word in group])
    assert sorted(arguments.overrides) == ["dirty=true", "model=tiny", "note='a b'", "seed=1"]
    assert sorted(arguments.flags) == ["--resolve", "-m", "-sc", "query=bash"]
    assert arguments.flags[arguments.flags.index("-sc") + 1] == "query=bash"
    assert arguments.argv() == arguments.flags + arguments.overrides
    assert arguments.multirun and arguments.shows_only


def test_overrides_keep_their_order_because_the_last_one_wins() -> None:
    assert parse(["seed=1", "-m", "seed=2", "--dirty", "seed=3"]).overrides == ["seed=1", "seed=2", "dirty=true", "seed=3"]


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_is_seen_wherever_it_stands(word: str) -> None:
    assert parse(["model=tiny", word]).help


def test_version_is_seen_beside_overrides() -> None:
    assert parse(["model=tiny", "--version"]).version


@pytest.mark.parametrize("word", ["--drity", "-x", "--lr=3"])
def test_an_unknown_flag_is_refused_by_name(word: str) -> None:
    with pytest.raises(ConfigError, match=f"{word} is not a flag of gptshake"):
        parse(["model=tiny", word])


@pytest.mark.parametrize("words", [["seed=", "1"], ["seed", "=1"], ["seed", "=", "1"], ["seed=", "-m", "1"]])
def test_a_space_beside_the_equals_sign_is_named(words: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"There is a space beside the = of seed=1: leave it out\."):
        parse(words)


@pytest.mark.parametrize("word", ["=", "=3", "+=3", "~="])
def test_an_override_without_a_key_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match=f"{re.escape(word)} has no key"):
        parse([word])


@pytest.mark.parametrize("words", [("--run", "-m"), ("-r", "--cfg", "job"), ("--info", "--cfg", "job")])
def test_flags_of_which_hydra_takes_one_are_refused_together(words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        parse([*words, "model=tiny"])


def test_a_flag_that_lacks_its_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="--cfg needs a value"):
        parse(["model=tiny", "--cfg"])


def test_resolve_alone_and_multirun_show_nothing_only() -> None:
    assert not parse(["-m", "model=tiny"]).shows_only
    assert parse(["--info", "config"]).shows_only


@given(st.one_of(TYPABLE, AWKWARD), st.sampled_from(TEXT_KEYS))
def test_free_text_reaches_hydra_as_it_was_typed(text: str, key: str) -> None:
    if text == "null" or (text and text[0] in "'\"" and text[-1] == text[0]):
        return  # the user's own quotes: Hydra's to read
    if key == "data.path" and text.startswith("[") and text.endswith("]"):
        return  # a list
    (override,) = parse([f"{key}={text}"]).overrides
    assert value_of(override) == text


@given(st.one_of(TYPABLE, AWKWARD))
def test_free_text_survives_the_config(text: str) -> None:
    if "${" in text or text == "null" or (text and text[0] in "'\"" and text[-1] == text[0]):
        return  # an interpolation is resolved
    cfg = OmegaConf.create({"note": value_of(quote_text(f"note={text}"))})
    assert cfg.note == text


@given(AWKWARD)
def test_nothing_typed_as_free_text_is_an_error(text: str) -> None:
    value_of(quote_text(f"note={text}"))


def test_quotes_of_the_users_own_are_read_by_hydra() -> None:
    assert quote_text("note='a, b'") == "note='a, b'"
    assert quote_text("data.path='a.txt','b.txt'") == "data.path='a.txt','b.txt'"
    assert value_of(quote_text("note='tis and 'twas'")) == "'tis and 'twas'"


@pytest.mark.parametrize(
    ("typed", "paths"),
    [
        ("[a.txt,b c.txt]", ["a.txt", "b c.txt"]),
        ("[texts/*.txt, 'x, y.md']", ["texts/*.txt", "x, y.md"]),
        ("[it (1)=2.txt]", ["it (1)=2.txt"]),
        ("[]", []),
    ],
)
def test_several_paths_are_a_list_of_free_texts(typed: str, paths: list[str]) -> None:
    assert value_of(quote_text(f"data.path={typed}")) == paths


@pytest.mark.parametrize("override", ["note=null", "note=", "optimizer.lr=3e-4", "seed=1,2", "+trainer.x=a b", "~callbacks.samples"])
def test_what_is_no_free_text_is_left_alone(override: str) -> None:
    assert parse([override]).overrides == [override]


@pytest.mark.parametrize("override", ["a.b=1", "+a.b=1", "++a.b=c=d", "~a.b", "a.b"])
def test_the_key_of_an_override_has_no_signs(override: str) -> None:
    assert key_of(override) == "a.b"


@pytest.mark.parametrize(
    ("typed", "rewritten"),
    [
        ("optimizer.lr=range", "optimizer.lr=choice(range)"),
        ("+optimizer.lr=range", "+optimizer.lr=choice(range)"),
        ("optimizer.lr='range'", "optimizer.lr='range'"),
        ("model.n_layer=range(1,9)", "model.n_layer=range(1,9)"),
        ("note=range", "note='range'"),
        ("repeats=3", "hydra.sweeper.repeats=3"),
        ("confirm=2", "hydra.sweeper.confirm=2"),
        ("enqueue=[{optimizer.lr:3e-4}]", "hydra.sweeper.enqueue=[{optimizer.lr:3e-4}]"),
        ("ablate=[optimizer.lr=1e-5,data.batch_size=512]", "hydra.sweeper.ablate=['optimizer.lr=1e-5','data.batch_size=512']"),
        ("ablate=[a=[1,2], b={c:1,d:2}]", "hydra.sweeper.ablate=['a=[1,2]','b={c:1,d:2}']"),
        ("ablate=[note='x, y']", r"hydra.sweeper.ablate=['note=\'x, y\'']"),
        ("ablate=scheduler=one_cycle", "hydra.sweeper.ablate=['scheduler=one_cycle']"),
        ("hydra.sweeper.ablate=[seed=2,'seed=3']", "hydra.sweeper.ablate=['seed=2','seed=3']"),
    ],
)
def test_words_of_a_sweep_are_rewritten_as_hydra_takes_them(typed: str, rewritten: str) -> None:
    assert parse([typed]).overrides == [rewritten]


def test_null_takes_an_experiment_a_debugging_or_a_sampler_back() -> None:
    assert parse(["debug=null", "model=tiny", "experiment=null"]).overrides == ["model=tiny"]
    assert parse(["debug=smoke", "debug=null", "sampler=null", "debug=overfit"]).overrides == ["debug=overfit"]
