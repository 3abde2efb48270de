"""MediaWiki markup to plain prose, with the standard library only.

What carries no prose (comments, references, tables, boxes, pictures, formulas, the sections of sources at the end) is dropped with
its content, the rest is unwrapped; only templates that stand inside sentences keep their words. Nested marks are folded from the
inside in one pass, so the time is linear however deep the nesting (about 10 MB/s). Any change of the text that comes out must raise
``CLEANING_VERSION``: token stores are keyed by it, and a run that began with an earlier version keeps it. Version 1 knew English only,
took ``[[CSI: Miami]]`` for a language, lost the text of templates with braces in it, and made ``[[Us: A Tale]]`` a page of another wiki.
Version 2 kept links behind a mark of direction, as in Arabic, and switches of several words, as in Russian; of English it gives the same.
"""

import re
from collections.abc import Callable, Container, Iterator
from functools import partial
from html import unescape

from gptshake.data.wiki_names import AND, HIDDEN, LANGUAGES, SOURCES
from gptshake.errors import ConfigError

CLEANING_VERSION = 3

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
_SISTER = re.compile(rf"{_SISTER_LINK.pattern}(?=\S)", re.IGNORECASE)
_ITALIC_GENITIVE = re.compile(r"(?<!')''(?!')([^'\n]+)'''(?=s\b)")
_QUOTES = re.compile(r"'{2,}")
_SWITCHES = [re.compile(rf"__{words}__") for words in ("[A-Z]{3,}", r"[^\W\da-z_]{2,}", r"[^\W\da-z_]{2,}(?:_[^\W\da-z_]+)*")]  # by version
_DIRECTION = re.compile(r"(?<=\[\[)[\u200e\u200f\u202a-\u202e]+")  # marks that a title does not have
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
_SOURCE_NAMES = "|".join(re.escape(name.strip()) for name in SOURCES.split("|"))
_SOURCE_SECTION = re.compile(rf"(?:{_SOURCE_NAMES})(?:,?\s*(?:{AND})\s*(?:{_SOURCE_NAMES}))*", re.IGNORECASE)
_REFERENCES = re.compile(r"<references\b[^<>]*>", re.IGNORECASE)
_MARK = "\0"  # stands where a list of references stood: XML knows no NUL
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
_ARGUMENT = re.compile(r"\{(-?\d)\}")
_PLAIN_LINK, _BAR = re.compile(r"\[\[[^\[\]]*\]\]"), "\1"  # a bar inside a link separates no arguments
_POSITIONS = {"1": 0, "2": 1, "3": 2, "text": 0}
_RANGES = ("to", "-", "–", "and", "by", "x", "or")
_REFERENCE_LIST = re.compile(r"^(?:reflist|references|references-small|références|listaref|примечания|notelist|viitteet|notes)\b")


def cleaning_version(version: int) -> int:
    """The version that is asked for; ConfigError if there is no such version."""
    if version not in range(1, CLEANING_VERSION + 1):
        raise ConfigError(f"data.cleaning={version}; it must be a version of the cleaning, from 1 to {CLEANING_VERSION}.")
    return version


def clean(wikitext: str, version: int = CLEANING_VERSION, hidden: Container[str] = HIDDEN) -> str:
    """Readable text of one page: paragraphs, headings and list items on lines of their own, at most one blank line between.

    Args:
        wikitext: a page's source as it stands in a MediaWiki dump (XML entities already resolved once).
        version: of the cleaning, 1 to 3.
        hidden: names of the namespaces to which a link shows no text, in lower case; from version 2 on.
    Returns:
        Plain text without markup, without spaces at its ends; empty for a page without prose.
    """
    old = version == 1
    text = _DROPPED_TAG.sub("", _COMMENT.sub("", wikitext))
    text = text if old else _REFERENCES.sub(_MARK, text)
    text = text if version < 3 else _DIRECTION.sub("", text)
    text = _fold(text, re.compile(r"(\{\{|\}\})"), partial(_template, old=old))
    text = _fold(text, re.compile(r"(^[ \t:]*\{\||^[ \t]*\|\}(?!\}))", re.MULTILINE), lambda _: "")
    text = _URL_LINK.sub(r"\1", text)
    text = _fold(text, re.compile(r"(\[\[|\]\])"), _link_1 if old else partial(_link, hidden))
    text = _TAG.sub("", _BREAK.sub("\n", text))
    text = _QUOTES.sub("", _ITALIC_GENITIVE.sub(r"\1'", text))
    text = _STRAY_PICTURE.sub("", _STRAY.sub("", _SWITCHES[version - 1].sub("", text)))
    text = (_BACK_MATTER.sub("", unescape(text)) if old else _without_sources(unescape(text))).rstrip()
    while text.endswith("=") and text.startswith("=", start := text.rfind("\n") + 1):  # headings whose table or gallery is gone
        text = text[:start].rstrip()
    text = _LINE_MARK.sub("", _HEADING.sub(r"\2", text))
    # What the removals left: brackets around nothing, spaces before points and in a row, blank lines in a row.
    text = _OPENED.sub("(", re.sub("  +", " ", _WHITE.sub(" ", text)))
    text = _BEFORE_POINT.sub("", _EMPTY.sub("", text))
    text = re.sub("  +", " ", text).replace(" \n", "\n").replace("\n ", "\n")
    return re.sub("\n{3,}", "\n\n", text).strip()


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


def _template(inner: str, *, old: bool = False) -> str:
    """What is read in the place of a template: a constant of ours with the arguments put in, which are never patterns themselves.

    ``old`` is version 1, which knew no links in arguments and put arguments in with ``str.format``.
    """
    if old:
        name, *arguments = inner.split("|")
        values = [value.strip() for value in arguments if "=" not in value]
    else:
        name, *arguments = _PLAIN_LINK.sub(lambda link: link[0].replace("|", _BAR), inner).split("|")
        values = _positional([argument.replace(_BAR, "|") for argument in arguments])
    name = name.strip().lower()
    if name.startswith(("lang-", "ipa-")):
        return values[0] if values else ""
    if name == "convert" and len(values) > 3 and values[1] in _RANGES:
        return " ".join(values[:4])
    pattern = _TEMPLATES.get(name, "" if old or not _REFERENCE_LIST.search(name) else _MARK)
    try:
        if old:
            return pattern.replace("{-1}", values[-1] if values else "").format(*values)
        return _ARGUMENT.sub(lambda found: values[int(found[1])], pattern)
    except (IndexError, KeyError, ValueError):
        return ""


def _positional(arguments: list[str]) -> list[str]:
    """The arguments without names, and those that are named after their position, as in ``1=a = b``."""
    values: list[str] = []
    for argument in arguments:
        key, sign, value = argument.partition("=")
        if not sign:
            values.append(argument.strip())
        elif (position := _POSITIONS.get(key.strip())) is not None:
            values += [""] * (position + 1 - len(values))
            values[position] = value.strip()
    return values


def _link_1(inner: str) -> str:
    if ":" in inner and _HIDDEN_LINK.match(inner) and not _SISTER_LINK.match(inner):
        return ""
    target, bar, label = inner.partition("|")
    return label.rpartition("|")[2] if bar else _SISTER_LINK.sub("", target).removeprefix(":")


def _link(hidden: Container[str], inner: str) -> str:
    """What is read of a link: nothing of a picture, a category or the article in another language; else its label, or its target."""
    target, _, label = inner.partition("|")
    prefix, colon, title = target.partition(":")
    prefix = prefix.replace("_", " ").strip()
    # A code of a language is small and stands close to its colon; "It: Chapter Two" and "Go: A Memoir" are titles.
    if colon and (prefix.lower() in hidden or (prefix in LANGUAGES and title[:1].strip())):
        return ""
    sister = _SISTER.match(target)  # "V: The Series" is a title, too
    return label.rpartition("|")[2] or target[sister.end() if sister else 0 :].removeprefix(":")


def _without_sources(text: str) -> str:
    """Without the sections of sources and links: those with such a name, and those that hold a list of references and no prose."""
    kept: list[str] = []
    skipped = 0  # level of the heading whose section is left out
    for level, title, lines in _sections(text):
        if skipped and level > skipped:
            continue
        named = level == 2 and _SOURCE_SECTION.fullmatch(title) is not None
        bare = level > 1 and _MARK in "".join(lines) and all(line[0] in "*#:;" for line in lines[1:] if line.strip(" \t\0"))
        skipped = level if named else 0
        kept += [] if named or bare else lines
    return "\n".join(kept).replace(_MARK, "")


def _sections(page: str) -> Iterator[tuple[int, str, list[str]]]:
    """Level and name of each heading, and the lines from it to the next; what stands before the first one has level 0."""
    level, title, lines = 0, "", list[str]()
    for line in page.split("\n"):
        text = line.strip()
        equals = min(len(text) - len(text.lstrip("=")), 6)
        if equals > 1 and text.endswith("=" * equals) and len(text) > 2 * equals:
            yield level, title, lines
            level, title, lines = equals, text[equals:-equals].strip(), []
        lines.append(line)
    yield level, title, lines
