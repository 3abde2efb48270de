import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptshake.errors import RecordError
from gptshake.report.journal.keep import START, Block, Kept, Page

OLD, NEW, NEWEST = Block("old", "## old\n\n- [ ] try lr 3e-3", 10), Block("new", "## new", 20), Block("newest", "## newest", 30)


def merged(text: str, *blocks: Block, broken: str = "") -> Kept:
    kept = Page(text).merged(blocks, broken)
    assert Page(kept.text).merged(blocks, broken).text == kept.text, "a second time changes it"
    return kept


def order(text: str) -> list[str]:
    return re.findall(r"begin (\S+)", text)


def test_a_new_journal_has_the_newest_first_and_what_is_open_above() -> None:
    kept = merged("", OLD, NEW)
    assert kept.text.startswith(START) and order(kept.text) == ["~todo", "new", "old"]
    assert kept.added == ["old", "new"] and not kept.changed
    assert "- [ ] try lr 3e-3 · [old](#old)" in kept.text


def test_a_new_entry_changes_nothing_else() -> None:
    before, after = merged("", OLD, NEW).text, merged(merged("", OLD, NEW).text, OLD, NEW, NEWEST)
    assert order(after.text) == ["~todo", "newest", "new", "old"] and after.added == ["newest"] and not after.changed
    left = after.text.replace(f"{NEWEST}\n", "").replace("newest\n", "", 1)
    assert left == before


PROSE = st.text(alphabet="ab#-* []\n`<!>x\t", max_size=40).map(lambda text: text + "\n")


@given(st.lists(PROSE, min_size=4, max_size=4))
def test_prose_comes_through_byte_for_byte(texts: list[str]) -> None:
    top, high, low, end = texts
    page = f"{top}{NEW}{high}{OLD}{low}<!-- gptshake:known\nnew\nold\n-->\n{end}"
    text = merged(page, OLD, Block("new", "## new, said otherwise", 20), NEWEST).text
    rest = re.sub(r"<!-- gptshake:begin (\S+).*?<!-- gptshake:end \1 -->\n|<!-- gptshake:known.*?-->\n", "\0", text, flags=re.DOTALL)
    pieces = rest.split("\0")
    assert "".join(pieces).replace("\n", "") == "".join(texts).replace("\n", "")
    for prose in texts:
        assert any(prose in piece for piece in pieces)


def test_blocks_stay_where_people_moved_them() -> None:
    text = f"# Mine\n\n{OLD}\nBelow old.\n\n{NEW}\nBelow new.\n"
    kept = merged(text, OLD, NEW, NEWEST)
    assert order(kept.text) == ["~todo", "newest", "old", "new"]
    assert kept.text.index("Below old.") < kept.text.index("begin new ") < kept.text.index("Below new.")


def test_an_entry_that_was_deleted_stays_away() -> None:
    text = merged("", OLD, NEW).text.replace(f"{NEW}\n", "")
    assert order(merged(text, OLD, NEW, NEWEST).text) == ["~todo", "newest", "old"]
    assert not Page(text).wants("new") and Page(text).wants("old") and Page(text).wants("newest")
    again = merged(text.replace("new\nold\n", "old\n"), OLD, NEW)
    assert order(again.text) == ["~todo", "new", "old"]


def test_an_entry_whose_run_is_gone_stays() -> None:
    assert order(merged(merged("", OLD, NEW).text, NEW).text) == ["~todo", "new", "old"]


def test_a_block_that_people_edited_is_theirs() -> None:
    text = merged("", NEW).text.replace("## new", "## new\n\nMy own words.")
    kept = merged(text, Block("new", "## new, said otherwise", 20))
    assert kept.edited == ["new"] and kept.text == text and not Page(text).wants("new")


def test_an_entry_that_says_something_else_is_written_anew() -> None:
    kept = merged(merged("", OLD, NEW).text, OLD, Block("new", "## new, said otherwise", 20))
    assert kept.changed == ["new"] and "said otherwise" in kept.text and "## new\n" not in kept.text


def test_a_box_is_carried_until_it_is_ticked() -> None:
    text = merged("", OLD).text
    in_list = merged(text.replace("- [ ] try lr 3e-3 ·", "- [x] try lr 3e-3 ·"), OLD, NEW).text
    in_entry = merged(text.replace("- [ ] try lr 3e-3\n", "- [X] try lr 3e-3\n"), OLD, NEW).text
    assert in_list == in_entry
    assert "- [x] try lr 3e-3\n" in in_list and "· [old]" not in in_list and "Nothing is open." in in_list
    opened = merged(in_list.replace("- [x] try", "- [ ] try"), OLD, NEW).text
    assert "- [ ] try lr 3e-3 · [old](#old)" in opened


def test_boxes_in_prose_are_carried_and_never_touched() -> None:
    mine = "Some words.\n\n* [ ] warm up longer\n\n```\n- [ ] code\n```\n"
    text = merged(f"{merged('', OLD, NEW).text}{mine}", OLD, NEW).text
    assert mine in text and "- [ ] warm up longer · [old](#old)" in text and "code · " not in text
    ticked = merged(text.replace("- [ ] warm up longer ·", "- [x] warm up longer ·"), OLD, NEW).text
    assert mine in ticked and "- [x] warm up longer · [old](#old)" in ticked  # their line is not ours to change
    done = merged(ticked.replace("* [ ] warm", "* [x] warm"), OLD, NEW).text
    assert "warm up longer ·" not in done


def test_what_people_write_into_the_list_stays_there() -> None:
    text = merged("", OLD).text.replace("## To do\n", "## To do\n\n- [ ] buy a GPU\n- [x] sell the old one\n")
    kept = merged(text, OLD).text
    assert "- [ ] buy a GPU\n- [x] sell the old one\n- [ ] try lr 3e-3 · [old](#old)" in kept


def test_line_ends_of_another_system_are_kept() -> None:
    text = merged("", OLD, NEW).text.replace("\n", "\r\n") + "Mine.\r\n"
    kept = merged(text, OLD, NEW, NEWEST).text
    assert kept.count("\n") == kept.count("\r\n") and "Mine.\r\n" in kept


def test_records_that_cannot_be_read_are_listed_last() -> None:
    kept = merged("", OLD, broken="## Records that cannot be read\n\n- x")
    assert order(kept.text) == ["~todo", "old", "~broken"]
    assert "All records can be read." in merged(kept.text, OLD).text


GOOD = f"# Journal\n\n{NEW}\nProse.\n\n{OLD}"


@pytest.mark.parametrize(
    ("damage", "line", "why"),
    [
        (lambda text: text.replace("<!-- gptshake:end new -->\n", ""), 3, "the block new that begins here has no end before"),
        (lambda text: text.replace("<!-- gptshake:end old -->\n", ""), 11, "the block old that begins here has no end"),
        (lambda text: text.replace("<!-- gptshake:begin old", "<!-- gptshake:begin  old"), 11, "is damaged"),
        (lambda text: text.replace("end new -->", "end new ->"), 3, "the block new that begins here has no end before"),
        (lambda text: re.sub("<!-- gptshake:begin new.*\n", "", text), 6, "ends a block that has not begun"),
        (lambda text: text.replace("gptshake:end new", "gptshake:end old"), 3, "has no end before"),
        (lambda text: text + f"\n{NEW}", 19, "the block new comes a second time"),
        (lambda text: text + "<!-- gptshake:known\nnew\n", 18, "is damaged"),
        (lambda text: text + "<!-- gptshake:known\nnew\nsome prose that got here\n-->\n", 18, "is damaged"),
        (lambda text: text.replace("<!-- gptshake:begin old", " <!-- gptshake:begin old"), 11, "is damaged"),
    ],
)
def test_damaged_marks_are_refused_with_their_line(damage: object, line: int, why: str) -> None:
    assert callable(damage) and Page(GOOD)
    with pytest.raises(RecordError, match=re.escape(f"JOURNAL.md, line {line}: ")) as refused:
        Page(damage(GOOD))
    assert why in str(refused.value) and "Nothing was written" in str(refused.value)


def test_two_branches_of_a_journal_know_the_ids_of_both() -> None:
    text = f"{GOOD}<!-- gptshake:known\nnew\n-->\n<!-- gptshake:known\nold\ngone\n-->\n"
    assert merged(text, OLD, NEW).text.endswith("<!-- gptshake:known\ngone\nnew\nold\n-->\n")
