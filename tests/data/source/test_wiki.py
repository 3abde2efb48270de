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
from gptshake.data.source.hub import Hub
from gptshake.data.source.mediawiki import articles
from gptshake.data.source.wiki import Wiki
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
        ({"source": "excerpt"}, "excerpt106", "excerpt"),
        ({"source": "excerpt", "n_documents": 20}, "excerpt20", "excerpt"),
    ],
)
def test_the_source_is_the_one_the_keys_name(options: dict[str, Any], label: str, source: str) -> None:
    wiki = Wiki(**options)
    assert (wiki.label, wiki.resolved()) == (label, {"source": source})
    assert wiki.fingerprint()["source"] == source
    assert "CC BY-SA" in wiki.licence


@pytest.mark.parametrize(
    "options",
    [{"source": "web"}, {"n_documents": 0}, {"source": "excerpt", "n_documents": 107}, {"source": "hub", "n_documents": -1}],
)
def test_choices_without_sense_are_sentences(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"data\.(source|n_documents)="):
        Wiki(**options)


def test_fingerprints_tell_sources_apart() -> None:
    hubs = [Wiki(n_documents=5), Wiki(n_documents=5, config="20231101.de"), Wiki(n_documents=5, revision="main")]
    assert len({str(source.fingerprint()) for source in [Wiki(), Wiki(source="excerpt", n_documents=5), *hubs]}) == 5
    assert Wiki().fingerprint() == Wiki(source="excerpt").fingerprint() == Wiki(source="excerpt", n_documents=106).fingerprint()


def test_only_articles_are_read_from_an_export() -> None:
    assert list(articles(io.BytesIO(DUMP))) == [("12", "A", "'''A''' &amp; b"), ("15", "B", "")]


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


@pytest.fixture(scope="module")
def local_hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the layout of the hub's dataset, with two shards of one language."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = tmp_path_factory.mktemp("hub")
    (folder / "20231101.xx").mkdir()
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: 20231101.xx\n  data_files:\n  - split: train\n    path: 20231101.xx/*\n---\n"
    )
    for shard in (0, 1):
        ids = [str(10 * shard + number) for number in range(5)]
        table = {"id": ids, "url": ids, "title": ids, "text": [f"Text {number}." for number in ids]}
        parquet.write_table(pyarrow.table(table), folder / "20231101.xx" / f"train-0000{shard}-of-00002.parquet")
    return folder


@pytest.mark.parametrize(
    ("n", "ids"), [(3, "0 1 2"), (7, "0 1 2 3 4 10 11"), (None, "0 1 2 3 4 10 11 12 13 14"), (99, "0 1 2 3 4 10 11 12 13 14")]
)
def test_the_hub_yields_the_first_articles_over_its_shards(local_hub: Path, n: int | None, ids: str) -> None:
    documents = list(Hub(n, "20231101.xx", dataset=str(local_hub)).documents())
    assert [document.id for document in documents] == ids.split()
    assert documents[0].text == "Text 0."


def test_a_language_that_is_not_there_is_a_sentence(local_hub: Path) -> None:
    with pytest.raises(OutOfReach, match=r"\(20231101\.yy\) could not be read .*20231101\.xx.*data\.source=excerpt"):
        next(Hub(3, "20231101.yy", dataset=str(local_hub)).documents())


def test_a_hub_out_of_reach_is_a_sentence_and_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(dataset: str, revision: str) -> None:
        raise ConnectionError("Name or service not known\nand much more")

    monkeypatch.setattr(hub, "_reach", refuse)
    start = time.monotonic()
    with pytest.raises(
        OutOfReach, match=r"could not be read from the hub \(ConnectionError: Name or service not known\)\. Check the network"
    ):
        next(Wiki(n_documents=10).documents())
    assert time.monotonic() - start < 10
