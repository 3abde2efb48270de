"""The page of a run: whole, escaped, and in need of nothing but itself."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gptshake.record.index import Entry, read_entry
from gptshake.record.run import Run
from gptshake.report.pages import run_page, write_run_page

EVIL = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>& 日本語"


class Tags(HTMLParser):
    """The tags of a page, and the names of attributes that load something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [name for name, value in attrs if name in ("src", "href", "onerror") and not str(value).startswith("#")]


def test_a_page_tells_results_curves_samples_config_and_provenance(record: Callable[..., Entry]) -> None:
    path = record(
        "k0000000",
        note=EVIL,
        config="optimizer: {lr: 0.0003}\nmodel: {n_embd: 64}\n",
        git={"commit": "a" * 40, "branch": EVIL, "dirty": True},
        environment={"python": "3.11", "packages": {"torch": EVIL}},
        overrides=["model=tiny", f"note='{EVIL}'"],
    ).path
    Run.open(path).sample(2, 200, EVIL, title=EVIL)
    entry = read_entry(path)
    text = write_run_page(entry).read_text(encoding="utf-8")
    for words in (
        "<h2>Curves</h2>",
        "<svg",
        "val/bpb",
        "<h2>Samples</h2>",
        "optimizer.lr",
        "3e-4",
        f"{'a' * 40} with uncommitted changes",
        "日本語",
    ):
        assert words in text, words
    page = Tags()
    page.feed(text)
    assert not {"script", "img", "link", "iframe"} & set(page.tags) and page.loads == []
    assert "alert(1)" in text and "http" not in re.sub("http-equiv", "", text)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        '{"id": "a", "name": "a", "status": "ok"}',
        '{"id": "a", "name": "a", "status": "ok", "overrides": null, "model": {}, "sittings": null}',
        '{"id": "a", "name": "a", "status": "failed", "git": null}',
    ],
)
def test_a_page_of_little_is_a_page(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    assert "</html>" in run_page(read_entry(tmp_path))
