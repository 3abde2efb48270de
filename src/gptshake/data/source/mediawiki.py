"""Articles out of a MediaWiki XML export, as a stream with flat memory, and their prose, cleaned by all cores.

Takes an open export file (already decompressed, any export version), gives the articles: pages of namespace 0 that are no
redirects. One core parses 300 MB/s of XML, unpacks 40 MB/s of bz2, but cleans 15 MB/s only: hence the processes.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import IO, NamedTuple
from xml.etree import ElementTree

from gptshake.data.clean import clean
from gptshake.data.in_order import in_order
from gptshake.errors import DataError
from gptshake.hardware import logical_cores

_CHUNK = 2 << 20  # characters of markup that a process cleans at once: 0.15 s


class Page(NamedTuple):
    """One article as it stands in the dump."""

    id: str
    title: str
    wikitext: str


def articles(stream: IO[bytes], name: str = "This file") -> Iterator[Page]:
    """The articles of an export, in its order; ``name`` is for the sentence.

    Raises:
        DataError: if the stream is not well-formed XML (cut off, or no export at all).
    """
    events = ElementTree.iterparse(stream, events=("start", "end"))
    try:
        _, root = next(events)
        if not _is(root, "mediawiki"):
            raise DataError(f"{name} is XML, but no MediaWiki export: it begins with <{root.tag}>.")
        for event, element in events:
            if event == "end" and _is(element, "page"):
                page = _article(element, element.tag.removesuffix("page"))
                root.clear()  # also lets go of the pages before: memory stays flat over a dump of any size
                if page:
                    yield page
    except (ElementTree.ParseError, StopIteration) as error:
        raise DataError(f"{name} is a MediaWiki export that is damaged or not one: {error or 'it is empty'}.") from error


def prose(pages: Iterable[Page], skip: int, *, parallel: bool) -> Iterator[tuple[str, str]]:
    """Ids and readable text of the pages after the first ``skip``, in their order.

    Args:
        pages: from ``articles``.
        skip: how many to leave out, uncleaned.
        parallel: whether to use all cores; worth it from seconds of cleaning on.
    """
    rest = islice(pages, skip, None)
    if parallel:
        for cleaned in in_order(_clean, _chunks(rest), logical_cores()):
            yield from cleaned
    else:
        yield from (pair for page in rest for pair in _clean([page]))


def _clean(pages: list[Page]) -> list[tuple[str, str]]:
    return [(page.id, clean(page.wikitext)) for page in pages]


def _chunks(pages: Iterable[Page]) -> Iterator[list[Page]]:
    chunk: list[Page] = []
    size = 0
    for page in pages:
        chunk.append(page)
        size += len(page.wikitext)
        if size >= _CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _is(element: ElementTree.Element, name: str) -> bool:
    return element.tag.rpartition("}")[2] == name


def _article(page: ElementTree.Element, namespace: str) -> Page | None:
    if page.find(f"{namespace}redirect") is not None or page.findtext(f"{namespace}ns", "0") != "0":
        return None
    text = page.findtext(f"{namespace}revision/{namespace}text")
    return Page(page.findtext(f"{namespace}id", ""), page.findtext(f"{namespace}title", ""), text or "")
