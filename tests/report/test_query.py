from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptshake.errors import ConfigError
from gptshake.record.index import Entry
from gptshake.report.runs_table import in_order, select

Make = Callable[..., Entry]


def config(lr: float, **more: Any) -> str:
    return f"seed: 1\ninit_from: null\noptimizer: {{lr: {lr}}}\npreset: {{lr: 0.002}}\nsearch_space: {{optimizer.lr: x}}\nmodel: {{n_embd: 64}}\n"


@pytest.fixture
def runs(record: Make) -> list[Entry]:
    trial = {"study": "night1", "number": 0, "params": {"optimizer.lr": 0.01}}
    return [
        record("k0000000", config=config(0.002), note="Overfit, on purpose", started=1_800_000_000.0),
        record(
            "l0000000", config=config(0.0003), losses=(4.0, 2.0), choices={"model": "baby", "data": "wiki_char"}, started=1_800_000_100.0
        ),
        record("m0000000", config=config(0.01), status="failed", reason="no memory", losses=(), started=1_800_000_200.0),
        record("o0000000", config=config(0.01), losses=(4.0, 3.5), trial=trial, started=1_800_000_300.0),
    ]


def ids(entries: list[Entry]) -> str:
    return "".join(entry.id[0] for entry in entries)


@pytest.mark.parametrize(
    ("wish", "found"),
    [
        ("", "klmo"),
        ("model=tiny", "kmo"),
        ("MODEL=x", None),
        (">3", None),
        ("=ok", None),
        ("status=okay", None),
        ("status!=ok,done", None),
        ("status=fail*", "m"),
        ("model=TINY", "kmo"),
        ("model=baby,tiny", "klmo"),
        ("model!=tiny", "l"),
        ("status=ok", "klo"),
        ("status=ok,failed study=night*", "o"),
        ("study=none", "klm"),
        ("lr>1e-3", "kmo"),
        ("optimizer.lr>=2e-3 lr<0.01", "k"),
        ("lr=0.002", "k"),
        ("lr=2e-3", "k"),
        ("n_embd=64", "klmo"),
        ("val/bpb<3.5", "kl"),
        ("bpb<3.5 tokens>=0.4k", "k"),
        ("tokens=400", "k"),
        ("time<=60", "klmo"),
        ("init_from=null", "klmo"),
        ("init_from!=null", ""),
        ("overfit", "k"),
        ("OVERFIT purpose", "k"),
        ("night1", "o"),
        ("failed", "m"),
        ("baby", "l"),
        ("nothing-like-it", ""),
        ("started>2020-01-01", "klmo"),
        ("started<2020-01-01", ""),
        ("started>=2027-01-15 started<=2027-01-15", "klmo"),
        ("started=2027", "klmo"),
        ("started=2027-01", "klmo"),
        ("started>2027-01-16", ""),
        ("started!=yesterday,today", "klmo"),
        ("lr=none", ""),
    ],
)
def test_a_filter_keeps_what_fits_all_its_parts(runs: list[Entry], wish: str, found: str | None) -> None:
    if found is None:
        with pytest.raises(ConfigError):
            select(runs, wish)
    else:
        assert ids(select(runs, wish)) == found


@pytest.mark.parametrize(("day", "found"), [("today", "no"), ("yesterday", "yd")])
def test_days_are_told_by_name(record: Make, day: str, found: str) -> None:
    noon = datetime.now().replace(hour=12, minute=0).timestamp()
    some = {"n0000000": noon, "o0000000": noon - 3600, "y0000000": noon - 86400, "d0000000": noon - 90000, "w0000000": noon - 7 * 86400}
    entries = [record(id, started=started) for id, started in some.items()]
    assert ids(select(entries, f"started={day}")) == found
    assert ids(select(entries, "started>today")) == ids(select(entries, "started>=today")) == "no"
    assert ids(select(entries, f"started<{day}")) == {"today": "ydw", "yesterday": "w"}[day]
    assert ids(select(entries, f"started<={day}")) == {"today": "noydw", "yesterday": "ydw"}[day]


@pytest.mark.parametrize(
    "wish",
    [
        "started>tomorow",
        "started=5",
        "started<",
        "lr>abc",
        "lr=abc",
        "lr<",
        "tokens>2GB",
        "val/bpb<nan",
        "model>tiny",
        "status<ok",
        "lr!=x",
    ],
)
def test_a_value_that_cannot_be_compared_is_refused(runs: list[Entry], wish: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a time|has no order|is a number"):
        select(runs, wish)


@pytest.mark.parametrize(
    ("key", "order"),
    [("started", "omlk"), ("-started", "klmo"), ("val/bpb", "lkom"), ("-val/bpb", "oklm"), ("lr", "lkmo"), ("model", "lkmo")],
)
def test_runs_come_in_the_order_of_a_figure_and_those_without_it_last(runs: list[Entry], key: str, order: str) -> None:
    assert ids(in_order(runs, key)) == order


@pytest.mark.parametrize(
    ("key", "near"), [("optimzer.lr", "optimizer.lr"), ("val/bbp", "val/bpb"), ("embd", "model.n_embd"), ("zzzzzz", "takes options")]
)
def test_a_key_that_no_run_has_is_refused_with_the_nearest(runs: list[Entry], key: str, near: str) -> None:
    for refused in (lambda: in_order(runs, key), lambda: select(runs, f"{key}=3")):
        with pytest.raises(ConfigError, match=f"No run has '{key}'.*{near}"):
            refused()


def test_a_figure_that_no_run_has_yet_is_no_mistake(record: Make) -> None:
    new = [record("k0000000", status="failed", losses=())]
    assert in_order(new, "val/bpb") == new and select(new, "val/bpb<3") == [] and in_order([], "anything") == []


def test_a_broken_record_is_found_by_its_status_and_matches_no_comparison(runs: list[Entry], record: Make) -> None:
    broken = Entry(runs[0].path, "broken", problem="torn")
    assert select([*runs, broken], "status=broken") == [broken]
    assert broken not in select([*runs, broken], "model=tiny") and in_order([broken, *runs], "model")[-1] == broken


@given(st.text(max_size=30))
def test_any_filter_is_answered_or_refused_in_a_sentence(wish: str) -> None:
    entry = Entry(__import__("pathlib").Path("."), "ok", {"id": "k", "name": "n", "choices": {"model": "tiny"}, "started": 1.0})
    try:
        assert select([entry], wish) in ([], [entry])
    except ConfigError as error:
        assert str(error)
