"""Wikipedia: which source is chosen, what each yields, and that nothing falls back in silence."""

import bz2
import importlib.util
import io
import time
from pathlib import Path
from typing import Any

import pytest

from gptshake.data.source import excerpt, hub
from gptshake.data.source.excerpt import Excerpt
from gptshake.data.source.mediawiki import articles
from gptshake.data.source.protocol import Position
from gptshake.data.source.wiki import REVISION, Wiki
from gptshake.errors import ConfigError, DataError, OutOfReach

PAGE = "<page><title>{t}</title><ns>{ns}</ns><id>{i}</id>{r}<revision><id>9</id><text>{x}</text></revision></page>"
EXPORT = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{}</mediawiki>'
DUMP = EXPORT.format(
    PAGE.format(t="A", ns=0, i=12, r="", x="'''A''' &amp;amp; b")
    + PAGE.format(t="R", ns=0, i=13, r='<redirect title="A"/>', x="#REDIRECT")
    + PAGE.format(t="Talk:A", ns=1, i=14, r="", x="talk")
    + PAGE.format(t="B", ns=0, i=15, r="", x="")
).encode()


@pytest.mark.parametrize(
    ("options", "label", "source"),
    [
        ({}, "excerpt106", "excerpt"),
        ({"n_documents": 10_000}, "hub10k", "hub"),
        ({"source": "hub", "n_documents": 1500}, "hub1500", "hub"),
        ({"source": "hub", "n_documents": 2_000_000}, "hub2m", "hub"),
        ({"source": "hub"}, "hub", "hub"),
        ({"source": "hub", "n_documents": 5, "config": "20231101.de"}, "hub5-de", "hub"),
        ({"max_bytes": 100_000_000, "order": "spread"}, "hub100mb-spread", "hub"),
        ({"n_documents": 1000, "order": "shuffle", "config": "20231101.de"}, "hub1k-shuffle-de", "hub"),
        ({"source": "excerpt"}, "excerpt106", "excerpt"),
        ({"source": "excerpt", "n_documents": 20}, "excerpt20", "excerpt"),
    ],
)
def test_the_source_is_the_one_the_keys_name(options: dict[str, Any], label: str, source: str) -> None:
    wiki = Wiki(**options)
    assert (wiki.label, wiki.resolved()) == (label, {"source": source} | ({"revision": REVISION} if source == "hub" else {}))
    assert wiki.fingerprint()["source"] == source
    assert "CC BY-SA" in wiki.licence


@pytest.mark.parametrize(
    "options",
    [
        {"source": "web"},
        {"n_documents": 0},
        {"source": "excerpt", "n_documents": 107},
        {"source": "hub", "n_documents": -1},
        {"order": "spread"},
    ],
)
def test_choices_without_sense_are_sentences(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"data\.(source|n_documents|max_bytes)"):
        Wiki(**options)


def test_fingerprints_tell_sources_apart() -> None:
    hubs = [
        Wiki(n_documents=5),
        Wiki(n_documents=5, config="20231101.de"),
        Wiki(n_documents=5, revision="0" * 40),
        Wiki(n_documents=5, order="spread"),
    ]
    assert len({str(source.fingerprint()) for source in [Wiki(), Wiki(source="excerpt", n_documents=5), *hubs]}) == 6
    assert Wiki().fingerprint() == Wiki(source="excerpt").fingerprint() == Wiki(source="excerpt", n_documents=106).fingerprint()


def test_only_articles_are_read_from_an_export() -> None:
    assert list(articles(io.BytesIO(DUMP))) == [("12", "A", "'''A''' &amp; b"), ("15", "B", "")]


def test_old_exports_without_namespaces_are_read_too() -> None:
    old = DUMP.decode().replace('xmlns="http://www.mediawiki.org/xml/export-0.10/"', "").replace("<ns>0</ns>", "")
    assert [page.id for page in articles(io.BytesIO(old.encode()))] == ["12", "15"]


def test_another_xml_file_is_no_export() -> None:
    with pytest.raises(DataError, match=r"here\.xml is XML, but no MediaWiki export: it begins with <html>"):
        list(articles(io.BytesIO(b"<html><page/></html>"), "here.xml"))


@pytest.mark.parametrize("content", [b"", b"no xml", DUMP[:-30], DUMP[:200]])
def test_a_damaged_export_is_a_sentence(content: bytes) -> None:
    with pytest.raises(DataError, match="damaged or not one"):
        list(articles(io.BytesIO(content)))


@pytest.mark.usefixtures("excerpt_here")
def test_the_excerpt_has_its_articles_in_order() -> None:
    documents = list(Excerpt(20).documents())
    assert len(documents) == len({document.id for document in documents}) == 20
    assert documents[0].id == "12"
    assert all(document.text for document in documents)


@pytest.mark.usefixtures("excerpt_here")
def test_the_excerpt_goes_on_after_any_document() -> None:
    whole = list(Excerpt(9).documents())
    assert list(Excerpt(9).documents(Position(inside=4))) == whole[4:]


def test_without_its_carrier_the_excerpt_names_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'gptshake\[excerpt\]'.*data\.source=hub"):
        next(Wiki().documents())


def test_a_changed_excerpt_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "gensim"
    (package / "test/test_data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('the carrier must not be imported')")
    (package / excerpt.FILE).write_bytes(bz2.compress(DUMP))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match="SHA-256 differs"):
        next(Wiki().documents())
    monkeypatch.setattr(excerpt, "SHA256", excerpt.sha256(package / excerpt.FILE))
    assert [(document.id, document.text) for document in Wiki().documents()] == [("12", "A & b"), ("15", "")]


def test_a_hub_out_of_reach_is_a_sentence_with_the_excerpt_as_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(dataset: str, revision: str | None) -> None:
        raise ConnectionError("Name or service not known\nand much more")

    monkeypatch.setattr(hub, "about", refuse)
    start = time.monotonic()
    with pytest.raises(OutOfReach, match=r"\(ConnectionError: Name or service not known\).*Check the network.*data\.source=excerpt"):
        next(Wiki(n_documents=10).documents())
    assert time.monotonic() - start < 10
