"""The MediaWiki cleaner: what is dropped, what is unwrapped, and that no markup is left on real pages."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptshake.data.clean import clean
from gptshake.data.source.wiki import Excerpt

CASES = {
    "a<!-- x -->b": "ab",
    "a<!-- never closed": "a",
    "sky<ref name=x>{{cite|a}}</ref> is<ref name=y/> blue<REF>z</REF>.": "sky is blue.",
    "<references/>end": "end",
    "{{Infobox|a={{b|{{c}}}}|d}}Text": "Text",
    "{{unclosed text": "unclosed text",
    "closed}} text": "closed text",
    "{| class=x\n|-\n| a {| b\n| nested\n|}\n|}\nAfter": "After",
    "[[Paris]] [[Paris|city]] [[a|b|c]] [[#Section]] [[:Category:X]]": "Paris city c #Section Category:X",
    "[[File:x.jpg|thumb|A [[cat|small cat]] [http://x y] here]]Text": "Text",
    "[[Category:A]][[de:Haus]][[zh-yue:X]]Text[[wikt:word]] [[wikt:word|said]]": "Textword said",
    "[[Us: A Tale]] [[NCIS: LA]] [[V: The Series]] [[Mars:Attacks]] [[s:Hamlet]] [[:wikt:word]]": "Us: A Tale NCIS: LA V: The Series Mars:Attacks Hamlet word",
    "see [http://x.org the site] and [//y.org] and [mailto:a@b us]": "see the site and and us",
    "'''Bold''' and ''italic'' and '''''both''''', ''The Times'''s": "Bold and italic and both, The Times's",
    "L'été, it's": "L'été, it's",
    "H<sub>2</sub>O, 3&nbsp;km, &lt;b&gt; &amp; a < b > c": "H2O, 3 km, <b> & a < b > c",
    "a<br />b<br>c": "a\nb\nc",
    "== History ==\nOld.\n===Later===\nNew.": "History\nOld.\nLater\nNew.",
    "* one\n** two\n# three\n: four\n; five\n----\nsix": "one\ntwo\nthree\nfour\nfive\n\nsix",
    "Text.\n== See also ==\n* a\n=== more ===\nb\n== Legacy ==\nKept.\n==References==\nx": "Text.\nLegacy\nKept.",
    "Text.\n== Notes and references ==\nx\n== Further reading ==\ny\n== External links ==\nz": "Text.",
    "Text.\n== Gallery ==\n<gallery>\nx\n</gallery>\n=== Sub ===\n": "Text.",
    "Text.\nNotes are text.": "Text.\nNotes are text.",
    "Anna ({{IPA|}}; born 1900) met ( ) him ({{x}}) .": "Anna (born 1900) met him.",
    "x{{lang|grc|λ}}y {{lang-de|Haus}} {{convert|5|to|7|km|mi}} {{convert|5|km}} {{convert}}": "xλy Haus 5 to 7 km 5 km",
    "{{transl|ar|set {a,b}}} {{lang|fr|{0} {x} \\\\1 %s}}": r"set {a,b} {0} {x} \\1 %s",
    "{{nowrap|[[Apollo 7|the mission]]}} {{lang|fr|2=a = b}} {{quote|text=Said.}}": "the mission a = b Said.",
    "{{As of|2010|lc=y}} {{Convert|3|km|0|abbr=on}}": "as of 2010 3 km",
    "1990{{ndash}}95 {{nowrap|[[Apollo 7]]}} {{nihongo|health|元気}} {{transl|ar|ALA|ilāh}}": "1990–95 Apollo 7 health ilāh",
    "a\n\n\n\n  b  c \n \n\n d": "a\n\nb c\n\nd",
    "__TOC__Text __NOTOC__": "Text",
    "<math>x^2</math>a<code>b</code><span style='x'>c</span><nowiki>d</nowiki>": "acd",
    "keep {curly}, [square], a|b, 5 > 3": "keep {curly}, [square], a|b, 5 > 3",
    "": "",
    "{{x}}": "",
}

CRUMBS = [
    *(r"\{\{", r"\}\}", r"\[\[", r"\]\]", "''", r"https?://", r"</?\w+[^<>\n]*>", r"&\w+;"),
    *("^==", r"^[*#:;]", r"\bFile:", r"__[A-Z]+__", "style=", r"\d{2,3}px", "  ", "\n\n\n", " $", r"\( ", r"\(\)", ",,"),
]


@pytest.mark.parametrize("wikitext", CASES)
def test_markup_becomes_what_a_reader_sees(wikitext: str) -> None:
    assert clean(wikitext) == CASES[wikitext]


@given(st.text("abc Привет 水.,\n", max_size=60))
def test_plain_text_loses_nothing_but_spaces(text: str) -> None:
    assert re.sub(r"[\s,.]", "", clean(text)) == re.sub(r"[\s,.]", "", text)


@settings(deadline=1000)
@given(
    st.lists(
        st.sampled_from(
            ["{{", "}}", "[[", "]]", "{|", "|}", "|", "<ref>", "</ref>", "<!--", "-->", "''", "=", "==", "\n", "x", " ", "&lt;"]
        )
    )
)
def test_broken_markup_never_crashes_and_leaves_no_marks(parts: list[str]) -> None:
    assert not re.search(r"\{\{|\}\}|\[\[|\]\]", clean("".join(parts)))


@pytest.mark.parametrize("unit", ["{{", "}}", "[[a|", "{{a|[[b]]", "'", "=", "\n==", "(", "* ", " ", "<", "&"])
def test_the_time_grows_with_the_length_only(unit: str) -> None:
    start = time.process_time()
    clean(unit * 20_000)
    assert time.process_time() - start < 10  # quadratic it would be minutes


@pytest.mark.usefixtures("excerpt_here")
def test_no_markup_is_left_in_the_excerpt() -> None:
    start = time.process_time()
    texts = [document.text for document in Excerpt().documents()]
    assert time.process_time() - start < 5  # 0.8 s where nothing else runs
    whole = "\n\n".join(texts)
    assert 2_700_000 < len(whole) < 2_900_000
    for crumb in CRUMBS:
        found = re.search(crumb, whole, re.MULTILINE)
        assert found is None, whole[max(0, found.start() - 60) : found.end() + 60]
    assert texts[0].startswith("Anarchism is a political philosophy that advocates self-governed societies")
