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
from itertools import chain, islice
from typing import IO, NamedTuple, TypeVar
from xml.etree import ElementTree

from gptshake.data.clean import CLEANING_VERSION, clean
from gptshake.data.wiki_names import HIDDEN, MORE_NAMES, OLD_NAMES, REDIRECTS
from gptshake.errors import DataError, GptshakeError
from gptshake.hardware import logical_cores

_CHUNK = 2 << 20  # characters of markup that a process cleans at once: 0.15 s
_REDIRECT = re.compile(rf"\s*[#＃]\s*(?:{'|'.join(map(re.escape, REDIRECTS))})\s*:?\s*\[\[", re.IGNORECASE)
_HIDDEN_NAMESPACES = ("-2", "6", "14")  # media, files, categories
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
Given = TypeVar("Given")
Result = TypeVar("Result")


class Page(NamedTuple):
    """One article as it stands in the dump."""

    id: str
    title: str
    wikitext: str


@dataclass
class Site:
    """How the pages of a wiki are read and cleaned."""

    version: int = CLEANING_VERSION  # 1 takes each page's first revision, and for redirects only pages with an element that says so
    hidden: frozenset[str] = HIDDEN  # as ``clean`` takes it; the dump says which


def articles(stream: IO[bytes], name: str = "This file", site: Site | None = None) -> Iterator[Page]:
    """The articles of an export, in its order; what it says of its wiki is put into ``site`` first. DataError if it is no well-formed XML."""
    site = site or Site()
    events = ElementTree.iterparse(stream, events=("start", "end"))
    try:
        _, root = next(events)
        namespace, _, kind = root.tag.rpartition("}")
        if kind != "mediawiki":
            raise DataError(f"{name} is XML, but not a MediaWiki export: it starts with <{root.tag}>.")
        prefix = f"{namespace}}}" if namespace else ""
        names: dict[str, str] = {}
        language = root.get(_LANGUAGE, "")
        site.hidden |= {*OLD_NAMES.get(language, "").split(), *(MORE_NAMES.get(language, "").split() if site.version > 2 else ())}
        text: str | None = None  # of the newest revision of a page so far
        newest = ""  # its time as in the dump, which sorts as a text
        for event, element in events:
            kind = element.tag.rpartition("}")[2] if event == "end" else ""
            if kind == "namespaces":
                names = {(child.text or "").lower(): child.get("key", "") for child in element}
                site.hidden |= {title for title, key in names.items() if key in _HIDDEN_NAMESPACES}
            elif kind == "revision":
                time = element.findtext(f"{prefix}timestamp", "").strip()
                if text is None or (site.version > 1 and time >= newest):
                    text, newest = element.findtext(f"{prefix}text") or "", time
                element.clear()  # a page history has thousands
            elif kind == "page":
                page = _article(element, prefix, text or "", names, site.version)
                text, newest = None, ""
                root.clear()  # also frees the pages before: memory stays flat over a dump of any size
                if page:
                    yield page
    except (ElementTree.ParseError, StopIteration) as error:
        raise DataError(f"{name} is a MediaWiki export that is damaged or not one: {error or 'it is empty'}.") from error


def _article(page: ElementTree.Element, prefix: str, text: str, names: dict[str, str], version: int) -> Page | None:
    """None for a redirect, and for a page of another namespace than that of articles."""
    title, key = page.findtext(f"{prefix}title", ""), page.findtext(f"{prefix}ns")
    if key is None:  # of an old export
        key = names.get(title.partition(":")[0].lower(), "0") if ":" in title and version > 1 else "0"
    if page.find(f"{prefix}redirect") is not None or key != "0" or (version > 1 and _REDIRECT.match(text)):
        return None
    return Page(page.findtext(f"{prefix}id", ""), title, text)


def prose(pages: Iterable[Page], skip: int, *, parallel: bool, site: Site) -> Iterator[tuple[str, str]]:
    """Ids and readable text of the pages of ``articles`` after the first ``skip``, in their order; if worth it, cleaned by all cores."""
    work = ((site, chunk) for chunk in _chunks(islice(pages, skip, None), _CHUNK if parallel else 0))
    return chain.from_iterable(in_order(_clean, work, logical_cores()) if parallel else map(_clean, work))


def _chunks(pages: Iterable[Page], least: int) -> Iterator[list[Page]]:
    """The pages in lists of at least so many characters."""
    chunk: list[Page] = []
    size = 0
    for page in pages:
        chunk.append(page)
        size += len(page.wikitext)
        if size >= least:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _clean(work: tuple[Site, list[Page]]) -> list[tuple[str, str]]:
    site, pages = work
    return [(page.id, clean(page.wikitext, site.version, site.hidden)) for page in pages]


def in_order(function: Callable[[Given], Result], chunks: Iterable[Given], processes: int) -> Iterator[Result]:
    """``map(function, chunks)`` in spawned processes (0.3 s; never forked, as this one may have threads), ``2 * processes`` chunks ahead."""
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

    def watch() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
