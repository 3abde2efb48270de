import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptshake.console import visible
from gptshake.markdown import cell, code, fenced, prose

HOSTILE = st.text(alphabet=st.one_of(st.sampled_from("`|<>\\\n\r*_[]()#!-~$&\x1b\u202e\u2028\x00 ab1."), st.characters()), max_size=60)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, 3e-4", "plain, 3e-4"),
        ("wiki_char stays, _this_ not", "wiki_char stays, \\_this\\_ not"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("a | b", "a \\| b"),
        ("**x** `y` ~~z~~", "\\*\\*x\\*\\* \\`y\\` \\~\\~z\\~\\~"),
        ("[l](javascript:x) ![i](y)", "\\[l\\](javascript:x) \\!\\[i\\](y)"),
        ("&lt; $x^2$ \\", "&amp;lt; \\$x^2\\$ \\\\"),
        ("two\n\n# lines", "two # lines"),
        ("\x1b[31mred", "\\\\x1b\\[31mred"),
    ],
)
def test_free_text_reads_as_it_is(text: str, shown: str) -> None:
    assert prose(text) == shown


@pytest.mark.parametrize(("text", "shown"), [("# h", "\\# h"), ("- x", "\\- x"), ("1. x", "1\\. x"), ("2) x", "2\\) x"), ("3e-4", "3e-4")])
def test_a_text_that_begins_a_line_begins_no_list_and_no_heading(text: str, shown: str) -> None:
    assert prose(text) == shown


@given(HOSTILE)
def test_free_text_is_one_line_without_tags_cells_and_code(text: str) -> None:
    shown = prose(text)
    assert "\n" not in shown and not re.search(r"[<>]", shown) and shown.isprintable()
    assert not re.search(r"(?<!\\)(?:\\\\)*[`|*\[\]~$]", shown)


@given(HOSTILE)
def test_a_code_span_ends_where_it_should(text: str) -> None:
    shown = code(text)
    ticks = re.match("`+", shown)
    assert ticks and shown.endswith(ticks[0]) and "\n" not in shown
    assert ticks[0] not in re.findall("`+", shown[len(ticks[0]) : -len(ticks[0])])
    assert not re.search(r"(?<!\\)\|", cell(text))


@given(HOSTILE)
def test_a_fence_is_closed_by_its_own_line_only(text: str) -> None:
    first, *lines, last = fenced(text).split("\n")
    assert first == f"{last}text" and set(last) == {"`"} and len(last) >= 3
    assert not any(line.strip().startswith(last) for line in lines)
    assert all(line.replace("\t", "").isprintable() for line in lines)


def test_what_has_no_shape_is_written_out() -> None:
    assert visible("a\x00\x1b\u202e\u200b\xa0ü🎲\t", keep="\t") == "a\\x00\\x1b\\u202e\\u200b\\xa0ü🎲\t"
