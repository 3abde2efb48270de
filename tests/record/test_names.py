import re
from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from gptshake.record.names import new_id, run_name, title, title_of

NOW = datetime(2026, 11, 24, 0, 31)


def test_a_name_says_what_is_trained_on_what_and_what_was_changed() -> None:
    name = run_name("tiny", "wiki_char", "excerpt106", ["optimizer.lr=3e-4"], "x3k9a2pq", NOW)
    assert name == "20261124-0031-tiny-wiki_char-excerpt106-lr3e-4-x3k9a2pq"
    assert title(name) == "tiny · wiki_char · excerpt106 · lr3e-4"


def test_changes_are_named_by_the_last_part_of_their_key() -> None:
    assert "-lr3e-4-n_layer4-x3k9a2pq" in run_name("tiny", "d", "l", ["lr3e-4", "+model.n_layer=4"], "x3k9a2pq", NOW)
    assert "-beta2_0.99-x3k9a2pq" in run_name("tiny", "d", "l", ["optimizer.beta2=0.99"], "x3k9a2pq", NOW)


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60), st.lists(st.text(max_size=80), max_size=8))
def test_any_name_can_be_typed_back_and_is_a_folder(model: str, data: str, label: str, changes: list[str]) -> None:
    name = run_name(model, data, label, changes, "x3k9a2pq", NOW)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*-x3k9a2pq", name)
    assert len(name) <= 220
    assert " · " in title(name)


def test_too_many_changes_are_left_out_at_the_end() -> None:
    name = run_name("tiny", "d", "l", [f"model.key_{i}=value" for i in range(50)], "x3k9a2pq", NOW)
    assert len(name) <= 120 and "key_0_value" in name and name.endswith("-x3k9a2pq")


def test_no_id_reads_as_a_number_or_a_word_of_yaml() -> None:
    ids = [new_id() for _ in range(2000)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[ghj-mo-z][0-9a-z]{7}", identity) for identity in ids)


def test_a_name_of_another_form_is_its_own_title() -> None:
    assert title("my-run") == "my-run"


def test_the_folder_is_ascii_and_the_title_keeps_the_texts_own_letters() -> None:
    name = run_name("tiny", "text_char", "Война-и-мир", ["optimizer.lr=3e-4"], "x3k9a2pq", NOW)
    assert name.isascii()
    assert title_of({"name": name, "data": {"label": "Война-и-мир"}}) == "tiny · text_char · Война-и-мир · lr3e-4"
    assert title_of({"name": name}) == title(name) and title_of({"name": "mine", "data": {"label": "x"}}) == "mine"
