"""MediaWiki markup to plain prose, with the standard library only.

Takes the wikitext of one page, gives its readable text: what carries no prose (comments, references, tables, boxes,
pictures, the sections of sources at the end) is dropped with its content, the rest is unwrapped. The order matters
and is that of ``clean``. Nested marks are folded from the inside in one pass, so the time is linear however deep the
nesting (about 10 MB/s). Only templates that stand inside sentences keep their words; a formula is
dropped whole. Any change of the text that comes out must raise ``CLEANING_VERSION``: token stores are keyed by it.
"""

import re
from collections.abc import Callable
from html import unescape

CLEANING_VERSION = 1

_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_DROPPED_TAG = re.compile(
    r"<(ref|math|gallery|timeline|code|source|syntaxhighlight|score|chem|imagemap|hiero)\b[^<>]*?(?:/>|>.*?</\1\s*>)",
    re.DOTALL | re.IGNORECASE,
)
_BREAK = re.compile(r"<\s*(?:br|hr)\s*/?\s*>|</?(?:li|ol|ul|p|div|center|blockquote|poem)\b[^<>]*>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_URL_LINK = re.compile(r"\[(?:(?:https?|ftp|irc|news)://|mailto:|//)[^\s\]]*\s*([^\]\n]*)\]", re.IGNORECASE)
_HIDDEN_LINK = re.compile(r"\s*(?:file|image|media|category|[a-z]{2,3}(?:-[a-z]+)*)\s*:", re.IGNORECASE)
_SISTER_LINK = re.compile(r"\s*:?(?:wikt|wiktionary|wikipedia|wp|w|s|q|v|wikisource|wikiquote|species|commons)\s*:", re.IGNORECASE)
_ITALIC_GENITIVE = re.compile(r"(?<!')''(?!')([^'\n]+)'''(?=s\b)")
_QUOTES = re.compile(r"'{2,}")
_SWITCH = re.compile(r"__[A-Z]{3,}__")
_SOURCES = (
    "(?:notes|references|sources|citations|footnotes|further reading|(?:external|web) links|see also|(?:selected |annotated )?bibliography)"
)
_BACK_MATTER = re.compile(
    rf"^==\s*{_SOURCES}(?:(?:,| and| &| /) {_SOURCES})*\s*==[ \t]*$.*?(?=^==[^=]|\Z)", re.DOTALL | re.MULTILINE | re.IGNORECASE
)
_HEADING = re.compile(r"^(={1,6})[ \t]*(.*?)[ \t]*\1[ \t]*$", re.MULTILINE)
_LINE_MARK = re.compile(r"^(?:[*#:;]+|-{4,}|[.,](?=\s))[ \t]*(?:[:;,][ \t]+)?", re.MULTILINE)
_STRAY = re.compile(r"\{\{|\}\}|\{\||\|\}|\[\[|\]\]|<!--|-->")
_STRAY_PICTURE = re.compile(r"\n(?:File|Image):.*")
_WHITE = re.compile(r"[\t\xa0\u2002-\u200a\u202f]")
_OPENED = re.compile(r"\((?: ?[,;:/](?![\w/]))* +")  # "(; Greek: …" where a pronunciation stood
_EMPTY = re.compile(r"\(\s*\)|\[\s*\]|«\s*»|“\s*”")
_BEFORE_POINT = re.compile(r" +(?=[,.;:!?](?:\s|$)|\))|,(?= ?,)", re.MULTILINE)

_TEMPLATES = {  # templates that are part of a sentence, and what is read in their place ({0} is the first argument)
    "convert": "{0} {1}", "cvt": "{0} {1}", "as of": "as of {0}", "lang": "{1}", "transl": "{-1}", "rtl-lang": "{1}", "nihongo": "{0}",
    "nowrap": "{0}", "small": "{0}", "smaller": "{0}", "sc": "{0}", "angbr": "{0}", "keypress": "{0}", "ipa": "{0}", "val": "{0}",
    "railgauge": "{0}", "e": " × 10^{0}", "frac": "{0}/{1}", "quote": "{0}", "blockquote": "{0}", "'s": "'s", "'": "'",
    "ndash": "–", "snd": " – ", "spaced ndash": " – ", "mdash": "—", "mdashb": "—", "nbsp": " ", "spaces": " ", "·": " · ", "!": "|",
}  # fmt: skip


def clean(wikitext: str) -> str:
    """Readable text of one page: paragraphs, headings and list items on lines of their own, at most one blank line between.

    Args:
        wikitext: a page's source as it stands in a MediaWiki dump (XML entities already resolved once).
    Returns:
        Plain text without markup, without spaces at its ends; empty for a page without prose.
    """
    text = _DROPPED_TAG.sub("", _COMMENT.sub("", wikitext))
    text = _fold(text, re.compile(r"(\{\{|\}\})"), _template)
    text = _fold(text, re.compile(r"(^[ \t:]*\{\||^[ \t]*\|\}(?!\}))", re.MULTILINE), lambda _: "")
    text = _URL_LINK.sub(r"\1", text)
    text = _fold(text, re.compile(r"(\[\[|\]\])"), _link)
    text = _TAG.sub("", _BREAK.sub("\n", text))
    text = _QUOTES.sub("", _ITALIC_GENITIVE.sub(r"\1'", text))
    text = _STRAY_PICTURE.sub("", _STRAY.sub("", _SWITCH.sub("", text)))
    text = _without_last_headings(_BACK_MATTER.sub("", unescape(text)))
    return _tidy(_LINE_MARK.sub("", _HEADING.sub(r"\2", text)))


def _fold(text: str, marks: re.Pattern[str], render: Callable[[str], str]) -> str:
    """Replace every balanced pair of marks, innermost first, by ``render`` of what it holds; marks without a partner vanish."""
    levels: list[list[str]] = [[]]
    for number, part in enumerate(marks.split(text)):
        if number % 2 == 0:
            levels[-1].append(part)
        elif "{" in part or "[" in part:
            levels.append([])
        elif len(levels) > 1:
            inner = "".join(levels.pop())
            levels[-1].append(render(inner))
    return "".join(part for level in levels for part in level)


def _template(inner: str) -> str:
    name, *arguments = inner.split("|")
    name = name.strip().lower()
    values = [value.strip() for value in arguments if "=" not in value]
    if name.startswith(("lang-", "ipa-")):
        return values[0] if values else ""
    if name == "convert" and len(values) > 3 and values[1] in ("to", "-", "–", "and", "by", "x", "or"):
        return " ".join(values[:4])
    try:
        return _TEMPLATES.get(name, "").replace("{-1}", values[-1] if values else "").format(*values)
    except (IndexError, KeyError, ValueError):
        return ""


def _link(inner: str) -> str:
    if ":" in inner and _HIDDEN_LINK.match(inner) and not _SISTER_LINK.match(inner):
        return ""
    target, bar, label = inner.partition("|")
    return label.rpartition("|")[2] if bar else _SISTER_LINK.sub("", target).removeprefix(":")


def _without_last_headings(text: str) -> str:
    """Without the headings at the end, whose table or gallery is gone."""
    text = text.rstrip()
    while text.endswith("=") and text.startswith("=", start := text.rfind("\n") + 1):
        text = text[:start].rstrip()
    return text


def _tidy(text: str) -> str:
    """What the removals left: brackets around nothing, spaces before points and in a row, blank lines in a row."""
    text = _OPENED.sub("(", re.sub("  +", " ", _WHITE.sub(" ", text)))
    text = _BEFORE_POINT.sub("", _EMPTY.sub("", text))
    text = re.sub("  +", " ", text).replace(" \n", "\n").replace("\n ", "\n")
    return re.sub("\n{3,}", "\n\n", text).strip()
