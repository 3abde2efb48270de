"""Articles out of a MediaWiki XML export, as a stream with flat memory.

Takes an open export file (already decompressed, any export version), gives the wikitext of its articles: pages of
namespace 0 that are no redirects.
"""

from collections.abc import Iterator
from typing import IO, NamedTuple
from xml.etree import ElementTree

from gptshake.errors import DataError


class Page(NamedTuple):
    """One article as it stands in the dump."""

    id: str
    title: str
    wikitext: str


def articles(stream: IO[bytes]) -> Iterator[Page]:
    """The articles of an export, in its order.

    Raises:
        DataError: if the stream is not well-formed XML (cut off, or no export at all).
    """
    events = ElementTree.iterparse(stream, events=("start", "end"))
    try:
        _, root = next(events)
        for event, element in events:
            if event == "end" and element.tag.endswith("}page"):
                page = _article(element, element.tag.removesuffix("page"))
                root.clear()  # also lets go of the pages before: memory stays flat over a dump of any size
                if page:
                    yield page
    except (ElementTree.ParseError, EOFError, StopIteration) as error:
        raise DataError(f"This MediaWiki export is damaged or not one: {error or 'it is empty'}.") from error


def _article(page: ElementTree.Element, namespace: str) -> Page | None:
    if page.find(f"{namespace}redirect") is not None or page.findtext(f"{namespace}ns") != "0":
        return None
    text = page.findtext(f"{namespace}revision/{namespace}text")
    return Page(page.findtext(f"{namespace}id", ""), page.findtext(f"{namespace}title", ""), text or "")
