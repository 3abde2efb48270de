"""Wikipedia: which source is chosen, what each yields, and that nothing falls back in silence."""

import bz2
import importlib.util
import io
import time
from hashlib import sha256
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest

from gptshake.data.source import hub, wiki
from gptshake.data.source.files import TextFiles
from gptshake.data.source.mediawiki import articles
from gptshake.data.source.protocol import Position
from gptshake.data.source.wiki import Excerpt, Wiki
from gptshake.errors import ConfigError, DataError, Unreachable

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
    assert (wiki.label, wiki.resolved()) == (label, {"source": source} | ({"revision": Wiki.revision} if source == "hub" else {}))
    assert wiki.fingerprint()["source"] == source
    assert "CC BY-SA" in wiki.licence


@pytest.mark.parametrize(
    "options",
    [
        {"source": "excerpt", "n_documents": 107},
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
    with pytest.raises(DataError, match=r"here\.xml is XML, but not a MediaWiki export: it starts with <html>"):
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
    (package / wiki.FILE).write_bytes(bz2.compress(DUMP))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match="SHA-256 differs"):
        next(Wiki().documents())
    monkeypatch.setattr(wiki, "SHA256", wiki.sha256(package / wiki.FILE))
    assert [(document.id, document.text) for document in Wiki().documents()] == [("12", "A & b"), ("15", "")]


def test_a_hub_out_of_reach_is_a_sentence_with_the_excerpt_as_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(dataset: str, revision: str | None) -> None:
        raise ConnectionError("Name or service not known\nand much more")

    monkeypatch.setattr(hub, "dataset_info", refuse)
    start = time.monotonic()
    with pytest.raises(Unreachable, match=r"\(ConnectionError: Name or service not known\).*Check the network.*data\.source=excerpt"):
        next(Wiki(n_documents=10).documents())
    assert time.monotonic() - start < 10


WIKIS = {  # language: names of files and of categories, and headings of sections of sources
    "de": ("Datei", "Kategorie", ["Einzelnachweise", "Weblinks", "Literatur", "Siehe auch"]),
    "fr": ("Fichier", "Catégorie", ["Notes et références", "Liens externes", "Voir aussi", "Bibliographie"]),
    "es": ("Archivo", "Categoría", ["Referencias", "Véase también", "Enlaces externos"]),
    "it": ("File", "Categoria", ["Note", "Voci correlate", "Collegamenti esterni"]),
    "pt": ("Ficheiro", "Categoria", ["Referências", "Ligações externas"]),
    "nl": ("Bestand", "Categorie", ["Zie ook", "Externe links", "Bronnen"]),
    "pl": ("Plik", "Kategoria", ["Przypisy", "Linki zewnętrzne", "Bibliografia"]),
    "ru": ("Файл", "Категория", ["Примечания", "Литература", "Ссылки", "См. также"]),
    "sv": ("Fil", "Kategori", ["Referenser", "Externa länkar", "Se även"]),
    "cs": ("Soubor", "Kategorie", ["Reference", "Externí odkazy"]),
    "tr": ("Dosya", "Kategori", ["Kaynakça", "Dış bağlantılar"]),
    "ja": ("ファイル", "Category", ["脚注", "関連項目", "外部リンク"]),
    "zh": ("File", "Category", ["参考文献", "外部链接", "參考資料"]),
    "ar": ("ملف", "تصنيف", ["مراجع", "وصلات خارجية"]),
    "xx": ("Bildo-dosiero", "Klaso", ["Anything that nobody has heard of"]),  # found by its list of references alone
}
SITE = """<siteinfo><namespaces><namespace key="-1">Special</namespace><namespace key="0" /><namespace key="1">Talk</namespace>
<namespace key="6">{file}</namespace><namespace key="14">{category}</namespace></namespaces></siteinfo>"""


def texts_of(tmp_path: Path, content: str, **options: Any) -> list[tuple[str, str]]:
    (tmp_path / "dump.xml").write_text(content, encoding="utf-8")
    return [(document.id, document.text) for document in TextFiles(str(tmp_path / "dump.xml"), **options).documents()]


@pytest.mark.parametrize("language", WIKIS)
def test_pictures_categories_and_sources_vanish_in_every_language(tmp_path: Path, language: str) -> None:
    file, category, headings = WIKIS[language]
    wikitext = (
        f"Text [[de:Haus]][[{file}:x.jpg|thumb|A caption with a [[link]].]][[{category}:X]][[Image:y.png|Another.]]stays: "
        f"[[CSI: Miami]], [[Re:Zero]], [[Go: A Memoir|her book]], [[It: Chapter Two]].\n== A ==\nMore [[:{category}:X]].\n"
        + "".join(f"== {heading} ==\n* x\n{{{{Reflist}}}}\n<references group='a' />\n" for heading in headings)
        + f"[[{category.lower()}: Y]]"
    )
    page = PAGE.format(t="A", ns=0, i=1, r="", x=escape(wikitext))
    content = EXPORT.format(SITE.format(file=file, category=category) + page)
    expected = f"Text stays: CSI: Miami, Re:Zero, her book, It: Chapter Two.\nA\nMore {category}:X."
    assert texts_of(tmp_path, content) == [("1", expected)]


def test_a_list_of_references_takes_no_prose_with_it(tmp_path: Path) -> None:
    page = PAGE.format(t="A", ns=0, i=1, r="", x=escape("== Life ==\nShe lived.\n<references />"))
    assert texts_of(tmp_path, EXPORT.format(page)) == [("1", "Life\nShe lived.")]


def test_the_newest_revision_of_a_history_is_read(tmp_path: Path) -> None:
    revision = "<revision><id>{0}</id><timestamp>20{0}-01-01T00:00:00Z</timestamp><text>in 20{0}</text></revision>"
    history = "".join(revision.format(year) for year in ("07", "12", "21", "19"))
    content = EXPORT.format(f"<page><title>A</title><ns>0</ns><id>1</id>{history}</page>")
    assert texts_of(tmp_path, content) == [("1", "in 2021")]
    assert texts_of(tmp_path, content, cleaning=1) == [("1", "in 2007")]


@pytest.mark.parametrize(
    "wikitext",
    [
        "#REDIRECT [[B]]",
        "#redirect: [[B]]",
        "#WEITERLEITUNG [[B]]",
        "#REDIRECCIÓN[[B]]",
        "# PATRZ [[B]]",
        "#перенаправление [[B]]",
        "#転送 [[B]]",
        "＃転送 [[B]]",
        "#TAM [[B]]",
        "#suuna [[B]]",
    ],
)
def test_a_redirect_is_known_by_its_word(tmp_path: Path, wikitext: str) -> None:
    pages = PAGE.format(t="A", ns=0, i=1, r="", x=wikitext) + PAGE.format(t="B", ns=0, i=2, r="", x="# one [[thing]]")
    assert texts_of(tmp_path, EXPORT.format(pages)) == [("2", "one thing")]


def test_talk_pages_of_an_old_export_are_known_by_their_titles(tmp_path: Path) -> None:
    old = PAGE.replace("<ns>{ns}</ns>", "")
    pages = "".join(old.format(t=title, i=i, r="", x="text") for i, title in enumerate(["A", "Talk:A", "CSI: Miami"]))
    assert texts_of(tmp_path, EXPORT.format(SITE.format(file="File", category="C") + pages)) == [("0", "text"), ("2", "text")]


def test_the_first_version_of_the_cleaning_is_kept_for_runs_that_began_with_it(tmp_path: Path) -> None:
    page = PAGE.format(t="A", ns=0, i=1, r="", x=escape("[[CSI: Miami]]{{transl|ar|set {a,b}}}\n== Weblinks ==\n* x"))
    assert texts_of(tmp_path, EXPORT.format(page), cleaning=1) == [("1", "}\nWeblinks\nx")]
    assert texts_of(tmp_path, EXPORT.format(page)) == [("1", "CSI: Miamiset {a,b}")]
    path = str(tmp_path / "dump.xml")
    assert TextFiles(path, cleaning=1).fingerprint() | {"cleaning": 2} == TextFiles(path, cleaning=2).fingerprint()
    with pytest.raises(ConfigError, match=r"data\.cleaning=4.*from 1 to 3"):
        TextFiles(path, cleaning=4)


@pytest.mark.parametrize(
    ("language", "file", "hidden", "kept"),
    [
        ("ar", "ملف", "[[\u200fملف:x.jpg|صورة]]", "صورة"),
        ("ru", "Файл", "__БЕЗ_ОГЛАВЛЕНИЯ__", "__БЕЗ_ОГЛАВЛЕНИЯ__"),
        ("nb", "Fil", "[[Bilde:x.jpg|thumb|A caption.]]", "A caption."),
        ("tr", "Dosya", "[[RESİM:x.jpg|thumb|A caption.]]", "A caption."),
    ],
)
def test_what_the_second_cleaning_kept_of_marks_in_other_languages_is_kept_for_its_runs_alone(
    tmp_path: Path, language: str, file: str, hidden: str, kept: str
) -> None:
    page = PAGE.format(t="A", ns=0, i=1, r="", x=escape(f"[[Re:Zero]] __init_x__ {hidden}"))
    content = EXPORT.format(SITE.format(file=file, category="C") + page).replace("<mediawiki", f'<mediawiki xml:lang="{language}"')
    assert texts_of(tmp_path, content) == [("1", "Re:Zero __init_x__")]
    assert texts_of(tmp_path, content, cleaning=2) == [("1", f"Re:Zero __init_x__ {kept}")]


@pytest.mark.usefixtures("excerpt_here")
def test_the_excerpt_of_the_first_cleaning_is_byte_for_byte_what_it_was() -> None:
    text = "\n\n".join(document.text for document in Excerpt(cleaning=1).documents())
    assert sha256(text.encode()).hexdigest() == "c9384c6e2dceef14b88d891a81bcdc77a5004a0e82cc0af480f25b647ff69a21"
