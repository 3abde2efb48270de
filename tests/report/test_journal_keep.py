import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptshake.errors import RecordError
from gptshake.files import sha256_text
from gptshake.report.journal import START, Block, Page, Written

OLD, NEW, NEWEST = Block("old", "## old", 10), Block("new", "## new", 20), Block("newest", "## newest", 30)


def merged(text: str, *blocks: Block, broken: str = "") -> Written:
    kept = Page(text).merged(blocks, broken)
    assert Page(kept.text).merged(blocks, broken).text == kept.text, "a second time changes it"
    return kept


def order(text: str) -> list[str]:
    return re.findall(r"begin ([^\s;]+)", text)


def test_a_new_journal_has_the_newest_first_and_its_markers_say_who_writes() -> None:
    kept = merged("", OLD, NEW)
    assert kept.text.startswith(START) and order(kept.text) == ["new", "old"]
    assert kept.added == ["old", "new"] and not kept.changed
    assert "<!-- gptshake:begin old 10; task=journal overwrites this block, so write outside of it -->" in kept.text


def test_a_new_entry_changes_nothing_else() -> None:
    before, after = merged("", OLD, NEW).text, merged(merged("", OLD, NEW).text, OLD, NEW, NEWEST)
    assert order(after.text) == ["newest", "new", "old"] and after.added == ["newest"] and not after.changed
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
    assert order(kept.text) == ["newest", "old", "new"]
    assert kept.text.index("Below old.") < kept.text.index("begin new ") < kept.text.index("Below new.")


def test_an_entry_that_was_deleted_stays_away() -> None:
    text = merged("", OLD, NEW).text.replace(f"{NEW}\n", "")
    assert order(merged(text, OLD, NEW, NEWEST).text) == ["newest", "old"]
    assert not Page(text).wants("new") and Page(text).wants("old") and Page(text).wants("newest")
    again = merged(text.replace("new\nold\n", "old\n"), OLD, NEW)
    assert order(again.text) == ["new", "old"]


def test_an_entry_whose_run_is_gone_stays() -> None:
    assert order(merged(merged("", OLD, NEW).text, NEW).text) == ["new", "old"]


def test_what_is_inside_of_a_block_is_overwritten() -> None:
    text = merged("", NEW).text.replace("## new", "## new\n\nMy own words.")
    kept = merged(text, NEW)
    assert kept.changed == ["new"] and "My own words." not in kept.text


def sealed(block: Block, body: str) -> str:
    """A block as earlier versions wrote it, with what is in it now."""
    marker = f"<!-- gptshake:begin {block.id} {block.started} {sha256_text(block.body)[:8]} -->"
    return f"{marker}\n\n{body}\n\n<!-- gptshake:end {block.id} -->\n"


def test_what_people_wrote_into_a_journal_of_an_earlier_version_becomes_prose() -> None:
    todo = "<!-- gptshake:begin ~todo -->\n\n## To do\n\n- [ ] buy a GPU\n- [x] rates · [old](#old)\n\n<!-- gptshake:end ~todo -->\n"
    old = f"# Mine\n\n{todo}\n{sealed(NEW, NEW.body)}\n{sealed(OLD, '## old, and my own words')}"
    kept = merged(old, Block("new", "## new, written otherwise", 20), OLD)
    assert "## To do\n\n- [ ] buy a GPU\n- [x] rates · [old](#old)\n" in kept.text and "## old, and my own words\n" in kept.text
    assert order(kept.text) == ["new"] and kept.changed == ["new"] and "old\n-->" in kept.text, "the edited block is the user's from now on"


def test_an_entry_that_says_something_else_is_written_anew() -> None:
    kept = merged(merged("", OLD, NEW).text, OLD, Block("new", "## new, said otherwise", 20))
    assert kept.changed == ["new"] and "said otherwise" in kept.text and "## new\n" not in kept.text


def test_line_ends_of_another_system_are_kept() -> None:
    text = merged("", OLD, NEW).text.replace("\n", "\r\n") + "Mine.\r\n"
    kept = merged(text, OLD, NEW, NEWEST).text
    assert kept.count("\n") == kept.count("\r\n") and "Mine.\r\n" in kept


def test_records_that_cannot_be_read_are_listed_last() -> None:
    kept = merged("", OLD, broken="## Records that cannot be read\n\n- x")
    assert order(kept.text) == ["old", "~broken"]
    assert "All records can be read." in merged(kept.text, OLD).text


GOOD = f"# Journal\n\n{NEW}\nProse.\n\n{OLD}"


@pytest.mark.parametrize(
    ("damage", "line", "why"),
    [
        (lambda text: text.replace("<!-- gptshake:end new -->\n", ""), 3, "the block new that begins here has no end"),
        (lambda text: text.replace("<!-- gptshake:end old -->\n", ""), 11, "the block old that begins here has no end"),
        (lambda text: text.replace("<!-- gptshake:begin old", "<!-- gptshake:begin  old"), 11, "is damaged"),
        (lambda text: text.replace("end new -->", "end new ->"), 3, "the block new that begins here has no end"),
        (lambda text: re.sub("<!-- gptshake:begin new.*\n", "", text), 6, "ends a block that has not begun"),
        (lambda text: text.replace("gptshake:end new", "gptshake:end old"), 3, "has no end"),
        (lambda text: text + f"\n{NEW}", 17, "the block new comes a second time"),
        (lambda text: text + "<!-- gptshake:known\nnew\n", 16, "is damaged"),
        (lambda text: text + "<!-- gptshake:known\nnew\nsome prose that got here\n-->\n", 16, "is damaged"),
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
