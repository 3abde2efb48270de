"""The user's own texts: many languages and odd encodings train; what cannot is told in one sentence."""

from pathlib import Path
from typing import Any

import pytest

from gptshake.data.source.files import TextFiles

QUICK = (
    *("model=tiny", "model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.block_size=16", "data=text_char", "trainer=cpu"),
    *("trainer.threads=1", "trainer.precision=32-true", "trainer.max_steps=2", "data.batch_size=4", "logger=none", "callbacks=none"),
)
LANGUAGES = {
    "english": "It was a bright cold day in April. ",
    "german": "Zwölf Boxkämpfer jagen Viktor quer über den großen Deich. ",
    "greek": "Ξεσκεπάζω τὴν ψυχοφθόρα βδελυγμία. ",
    "chinese": "天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。",
    "arabic": "صِف خَلقَ خَودٍ كَمِثلِ الشَمسِ إِذ بَزَغَت ",
    "emoji": "👩\u200d👩\u200d👧 🏴\U000e0067 e\u0301 𝔘𝔫𝔦 ",
}
ODD = {
    **{name: (text * 60).encode() for name, text in LANGUAGES.items()},
    "bom": b"\xef\xbb\xbf" + b"A line of text.\n" * 60,
    "crlf": b"A line of text.\r\n" * 60,
    "nul": b"A line\0 of text.\n" * 60,
    "utf16": "A line of text.\n".encode("utf-16") * 1 + ("A line of text.\n" * 60).encode("utf-16")[2:],
    "one character": b"a" * 900,
    "a line without end": b"x y" * 400,
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_text_trains_to_the_end(name: str, commands: Any, tmp_path: Path, the_run: Any) -> None:
    (tmp_path / "it's a (very) odd=näme, #1.txt").write_bytes(ODD[name])
    done = commands(tmp_path, *QUICK, "data.path=it's a (very) odd=näme, #1.txt")
    assert done.code == 0, done.err
    record = the_run(tmp_path)
    assert record.steps == [1, 2] and record.info["status"] == "ok"
    assert "of them unknown" not in done.out or name == "emoji"


def test_a_folder_of_texts_is_one_corpus(commands: Any, tmp_path: Path, the_run: Any) -> None:
    (tmp_path / "texts" / "more").mkdir(parents=True)
    for number in range(25):
        (tmp_path / "texts" / ("more" if number % 2 else ".") / f"{number}.txt").write_text(f"Text number {number}. " * 20)
    (tmp_path / "texts" / "empty.txt").write_text("")
    done = commands(tmp_path, *QUICK, "data.path=texts", "data.val_fraction=0.2", "data.test_fraction=0.2")
    assert done.code == 0, done.err
    assert the_run(tmp_path).info["data"]["label"] == TextFiles(str(tmp_path / "texts")).label


REFUSED = {
    "invalid UTF-8": (b"good text " * 50 + b"\xff\xfe\xfa" + b"more", ["book.txt", "500", "data.encoding=latin-1"]),
    "empty": (b"", ["book.txt", "empty"]),
    "shorter than a block": (b"abcdefgh", ["book.txt"]),
    "only a byte order mark": (b"\xef\xbb\xbf", ["book.txt"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_text_that_cannot_be_trained_on_is_one_sentence_and_leaves_nothing(name: str, light_commands: Any, tmp_path: Path) -> None:
    content, parts = REFUSED[name]
    (tmp_path / "book.txt").write_bytes(content)
    done = light_commands(tmp_path, *QUICK, "data.path=book.txt")
    assert done.code == 2, done.err
    for part in parts:
        assert part in done.error or name == "shorter than a block"
    assert [file.name for file in tmp_path.iterdir()] == ["book.txt"]


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (("data.path=book.txt", "data.encoding=utf8x"), "utf8x"),
        (("data.path=book.txt", "data.encoding=utf-16"), "book.txt is UTF-8 text and has no byte order mark, so it is no utf-16"),
        (("data.path=folder",), "no .txt file"),
        (("data.path=book.txt", "model.block_size=100000"), "100,000"),
    ],
)
def test_what_cannot_be_read_as_asked_is_one_sentence(overrides: tuple[str, ...], part: str, light_commands: Any, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("Some text. " * 100)
    (tmp_path / "folder").mkdir()
    done = light_commands(tmp_path, *QUICK, *overrides)
    assert done.code == 2 and (part in done.error or part.replace(",", "") in done.error), done.err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["book.txt", "folder"]


def test_a_run_in_its_own_directory_reads_the_text_beside_the_command_and_leaves_nothing_if_refused(
    commands: Any, tmp_path: Path, the_run: Any
) -> None:
    (tmp_path / "book.txt").write_text("A line of text.\n" * 60)
    inside = (*QUICK, "data.path=book.txt", "hydra.job.chdir=true")
    (tmp_path / "runs").mkdir()  # by a user, as a place that is mounted
    refused = commands(tmp_path, *inside, "model.block_size=100000")
    assert refused.code == 2 and "one block of 100,000" in refused.err
    assert (tmp_path / "runs").exists() and not list(tmp_path.glob("runs/*"))
    assert commands(tmp_path, *inside).code == 0
    assert the_run(tmp_path).steps == [1, 2]
