from hypothesis import given
from hypothesis import strategies as st

from gptshake.report.changes import changed_keys, key_text, value_text

BASE = {
    "seed": 1,
    "note": "first",
    "paths.run_dir": "runs/a",
    "preset.lr": 0.002,
    "optimizer.lr": 0.002,
    "optimizer._partial_": True,
    "data.documents.path": "a.txt",
    "data.path": "a.txt",
    "trainer.save_minutes": 5,
}


def test_what_decides_a_result_is_told_and_nothing_else() -> None:
    other = BASE | {
        "note": "second",
        "paths.run_dir": "runs/b",
        "logger.project": "p",
        "preset.lr": 0.001,
        "optimizer.lr": 0.001,
        "data.documents.path": "b.txt",
        "data.path": "b.txt",
        "trainer.save_minutes": 50,
        "scheduler.floor": 0.1,
    }
    assert changed_keys(BASE, other) == {"optimizer.lr": (0.002, 0.001), "data.path": ("a.txt", "b.txt"), "scheduler.floor": (None, 0.1)}


def test_of_another_option_only_what_both_options_have_is_told() -> None:
    old = {"scheduler._target_": "a", "scheduler.warmup": 0.1, "scheduler.pct_start": 0.3}
    new = {"scheduler._target_": "b", "scheduler.warmup": 0.2, "scheduler.floor": 0.1}
    assert changed_keys(old, new) == {"scheduler._target_": ("a", "b"), "scheduler.warmup": (0.1, 0.2)}


def test_a_source_with_values_of_its_own_is_told() -> None:
    assert changed_keys({"data.documents.page": 1}, {"data.documents.page": 2}) == {"data.documents.page": (1, 2)}


def test_a_key_that_is_null_is_as_one_that_is_not_there() -> None:
    assert changed_keys({"init_from": None}, {}) == {}


@given(st.dictionaries(st.sampled_from(list(BASE)), st.integers() | st.none() | st.text()))
def test_a_config_has_no_difference_to_itself_and_differences_are_symmetric(change: dict[str, object]) -> None:
    new = BASE | change
    assert changed_keys(new, new) == {}
    assert {key: (b, a) for key, (a, b) in changed_keys(BASE, new).items()} == changed_keys(new, BASE)


def test_keys_and_values_read_as_people_type_them() -> None:
    assert [key_text(key) for key in ("optimizer.lr", "scheduler._target_", "data.path", "seed")] == [
        "lr",
        "scheduler",
        "data.path",
        "seed",
    ]
    assert [value_text(value) for value in (0.002, None, "gptshake.optim.schedule.cosine", 64, True)] == [
        "2e-3",
        "none",
        "cosine",
        "64",
        "true",
    ]


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_different_numbers_never_look_the_same(a: float, b: float) -> None:
    assert a == b or value_text(a) != value_text(b)
