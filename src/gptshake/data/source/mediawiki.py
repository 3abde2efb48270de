"""Articles out of a MediaWiki XML export, as a stream with flat memory, and their prose, cleaned by all cores.

Takes an open export file (already decompressed, any export version), gives the articles: pages of namespace 0 that are no
redirects, each in its newest revision. Which links show no text, the dump says
itself: its ``siteinfo`` names the namespaces. One core parses 300 MB/s of XML, unpacks 40 MB/s of bz2, but cleans 15 MB/s
only: hence the processes.
"""

import multiprocessing
import os
import re
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import wait
from typing import IO, NamedTuple, TypeVar
from xml.etree import ElementTree

from gptshake.data.clean import CLEANING_VERSION, clean
from gptshake.data.wiki_names import HIDDEN, OLD_NAMES, REDIRECTS
from gptshake.errors import DataError, GptshakeError
from gptshake.hardware import logical_cores

_CHUNK = 2 << 20  # characters of markup that a process cleans at once: 0.15 s
_REDIRECT = re.compile(rf"\s*[#＃]\s*(?:{'|'.join(map(re.escape, REDIRECTS))})\s*:?\s*\[\[", re.IGNORECASE)
_HIDDEN_NAMESPACES = ("-2", "6", "14")  # media, files, categories
Given = TypeVar("Given")
Result = TypeVar("Result")
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


class Page(NamedTuple):
    """One article as it stands in the dump."""

    id: str
    title: str
    wikitext: str


@dataclass
class Site:
    """How the pages of a wiki are read and cleaned.

    Attributes:
        version: of the cleaning; 1 takes each page's first revision, and for redirects only pages with an element that says so.
        hidden: as ``clean`` takes it; the dump says which.
    """

    version: int = CLEANING_VERSION
    hidden: frozenset[str] = HIDDEN


def articles(stream: IO[bytes], name: str = "This file", site: Site | None = None) -> Iterator[Page]:
    """The articles of an export, in its order.

    Args:
        stream: the export, decompressed.
        name: of the file, for the sentence.
        site: what is known of its wiki; what the export says of it is put there before the first article comes.
    Raises:
        DataError: if the stream is not well-formed XML (cut off, or no export at all).
    """
    site = site or Site()
    events = ElementTree.iterparse(stream, events=("start", "end"))
    try:
        _, root = next(events)
        if not _is(root, "mediawiki"):
            raise DataError(f"{name} is XML, but not a MediaWiki export: it starts with <{root.tag}>.")
        namespace = root.tag.removesuffix("mediawiki")
        names: dict[str, str] = {}
        site.hidden |= {*OLD_NAMES.get(root.get(_LANGUAGE, ""), "").split()}
        newest = _Revision()
        for event, element in events:
            if event == "start":
                continue
            if _is(element, "namespaces"):
                names = {(child.text or "").lower(): child.get("key", "") for child in element}
                site.hidden |= {title for title, key in names.items() if key in _HIDDEN_NAMESPACES}
            elif _is(element, "revision"):
                newest = newest.or_newer(element, namespace, site.version)
                element.clear()  # a page history has thousands
            elif _is(element, "page"):
                page = _article(element, namespace, newest.text, names, site.version)
                newest = _Revision()
                root.clear()  # also frees the pages before: memory stays flat over a dump of any size
                if page:
                    yield page
    except (ElementTree.ParseError, StopIteration) as error:
        raise DataError(f"{name} is a MediaWiki export that is damaged or not one: {error or 'it is empty'}.") from error


def prose(pages: Iterable[Page], skip: int, *, parallel: bool, site: Site | None = None) -> Iterator[tuple[str, str]]:
    """Ids and readable text of the pages after the first ``skip``, in their order.

    Args:
        pages: from ``articles``.
        skip: how many to leave out, uncleaned.
        parallel: whether to use all cores; worth it from seconds of cleaning on.
        site: the one that ``articles`` was given.
    """
    rest, site = islice(pages, skip, None), site or Site()
    if parallel:
        for cleaned in in_order(_clean, ((site, chunk) for chunk in _chunks(rest)), logical_cores()):
            yield from cleaned
    else:
        yield from (pair for page in rest for pair in _clean((site, [page])))


def in_order(function: Callable[[Given], Result], chunks: Iterable[Given], processes: int) -> Iterator[Result]:
    """``map(function, chunks)`` in spawned processes (0.3 s; never forked, as this one may have threads), with flat memory.

    Args:
        function: one of a module, so that another process can import it.
        chunks: what is handed over, by pickling; read at most ``2 * processes`` ahead of the results.
        processes: at least 1.
    Raises:
        GptshakeError: if a process was killed.
        Exception: what the function raised, in its turn.
    """
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=_follow_parent)
    waiting: deque[Future[Result]] = deque()
    try:
        for chunk in chunks:
            waiting.append(pool.submit(function, chunk))
            if len(waiting) == 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise GptshakeError(
            "A process that helped to read the text was killed (out of memory?). Run the same command again: it resumes where it stopped."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _follow_parent() -> None:
    """In a process of the pool: Ctrl-C, which reaches all processes of a terminal, is the parent's to answer; end when the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()


def _clean(work: tuple[Site, list[Page]]) -> list[tuple[str, str]]:
    site, pages = work
    return [(page.id, clean(page.wikitext, site.version, site.hidden)) for page in pages]


class _Revision(NamedTuple):
    """The newest of the revisions of a page that were read so far; its time as in the dump, which sorts as a text."""

    text: str | None = None
    time: str = ""

    def or_newer(self, element: ElementTree.Element, namespace: str, version: int) -> "_Revision":
        """This one, or the one of the element if that is newer."""
        time = element.findtext(f"{namespace}timestamp", "").strip()
        if self.text is not None and (version == 1 or time < self.time):
            return self
        return _Revision(element.findtext(f"{namespace}text") or "", time)


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


def _article(page: ElementTree.Element, namespace: str, text: str | None, names: dict[str, str], version: int) -> Page | None:
    """None for a redirect, and for a page of another namespace than that of articles."""
    title, key = page.findtext(f"{namespace}title", ""), page.findtext(f"{namespace}ns")
    if key is None:  # of an old export
        key = names.get(title.partition(":")[0].lower(), "0") if ":" in title and version > 1 else "0"
    if page.find(f"{namespace}redirect") is not None or key != "0" or (version > 1 and _REDIRECT.match(text or "")):
        return None
    return Page(page.findtext(f"{namespace}id", ""), title, text or "")
