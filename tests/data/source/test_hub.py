"""Data sets of the hub: what is selected and in which order, resuming after a stop, and every refusal as a sentence.

The hub itself is never asked here: the data sets are local folders in its layout, its answers are put in.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet, table

from gptshake.data.config import Selection
from gptshake.data.source import hub
from gptshake.data.source.hub import DatasetInfo, Hub, select
from gptshake.data.source.protocol import START, Document, Position
from gptshake.errors import DataError, Unreachable

CARD = "---\nlicense: cc-by-4.0\nconfigs:\n- config_name: 20231101.xx\n  data_files:\n  - split: train\n    path: 20231101.xx/*\n---\n"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the layout of wikimedia/wikipedia, with two shards of one language, two row groups each."""
    folder = tmp_path_factory.mktemp("hub")
    (folder / "20231101.xx").mkdir()
    (folder / "README.md").write_text(CARD)
    for shard in (0, 1):
        ids = [str(10 * shard + number) for number in range(5)]
        columns = {"id": ids, "url": ids, "title": ids, "text": [f"Text {number}." for number in ids]}
        parquet.write_table(table(columns), folder / "20231101.xx" / f"train-0000{shard}-of-00002.parquet", row_group_size=3)
    return folder


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """A data set of JSON lines without ids, in one file."""
    rows = [{"content": f"Line {number}.", "stars": number} for number in range(10)]
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return tmp_path


def ids(source: Hub, start: Position = START) -> list[str]:
    return [document.id for document in source.documents(start)]


@pytest.mark.parametrize(
    ("n", "found"), [(3, "0 1 2"), (7, "0 1 2 3 4 10 11"), (None, "0 1 2 3 4 10 11 12 13 14"), (99, "0 1 2 3 4 10 11 12 13 14")]
)
def test_the_first_documents_come_in_the_order_of_the_shards(local: Path, n: int | None, found: str) -> None:
    source = Hub(str(local), "20231101.xx", n_documents=n)
    assert ids(source) == found.split()
    assert next(source.documents()).text == "Text 0."


def test_spread_takes_as_many_from_each_row_group_of_few_shards(local: Path) -> None:
    assert ids(Hub(str(local), n_documents=4, order="spread")) == ["0", "3", "10", "13"]
    assert ids(Hub(str(local), n_documents=9, order="spread")) == ["0", "1", "2", "3", "4", "10", "11", "13", "14"]
    assert ids(Hub(str(local), max_bytes=30, order="spread")) == ["0", "3", "10", "13"]


def test_shuffle_is_a_permutation_that_its_seed_decides(local: Path) -> None:
    orders = [ids(Hub(str(local), order="shuffle", order_seed=seed)) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == sorted(ids(Hub(str(local))))


def test_bytes_are_a_limit_in_whole_documents(local: Path) -> None:
    assert ids(Hub(str(local), max_bytes=7 * 3 + 6)) == ["0", "1", "2"]
    assert ids(Hub(str(local), max_bytes=1)) == ["0"]


def test_rows_without_ids_are_named_by_shard_and_row(lines: Path) -> None:
    source = Hub(str(lines), text_key="content", n_documents=2)
    assert [(document.id, document.text) for document in source.documents()] == [("0:0", "Line 0."), ("0:1", "Line 1.")]


PARTS = st.lists(st.lists(st.text(max_size=5), max_size=7), min_size=1, max_size=70)
SELECTIONS = st.builds(
    Selection,
    n_documents=st.none() | st.integers(1, 40),
    max_bytes=st.none() | st.integers(1, 90),
    order=st.sampled_from(("first", "spread", "shuffle")),
    order_seed=st.integers(0, 3),
)


def taken(chosen: Selection, parts: list[list[str]], start: Position = START) -> list[Document]:
    return list(select(chosen, lambda part: [(f"{part}:{n}", text) for n, text in enumerate(parts[part])], len(parts), start))


def position_after(documents: list[Document]) -> Position:
    part = documents[-1].part if documents else 0
    before = [document for document in documents if document.part < part]
    return Position(part, len(documents) - len(before), len(before), sum(len(document.text.encode()) for document in before))


@given(SELECTIONS, PARTS, st.integers(0, 60))
def test_a_selection_keeps_its_limits_and_goes_on_wherever_it_was_stopped(chosen: Selection, parts: list[list[str]], stop: int) -> None:
    whole = taken(chosen, parts)
    assert len({document.id for document in whole}) == len(whole)
    n_bytes = sum(len(document.text.encode()) for document in whole)
    assert chosen.n_documents is None or len(whole) == min(chosen.n_documents, len(whole))
    assert chosen.max_bytes is None or n_bytes <= chosen.max_bytes or sum(document.text != "" for document in whole) == 1
    if chosen.max_bytes is None:
        assert len(whole) == min(chosen.n_documents or 1000, sum(map(len, parts)))
    assert whole[:stop] + taken(chosen, parts, position_after(whole[:stop])) == whole


def test_spread_reads_a_few_of_very_many_shards_before_the_others() -> None:
    read: list[int] = []
    chosen = Selection(n_documents=128, order="spread")
    documents = list(select(chosen, lambda part: read.append(part) or [(f"{part}:{n}", "x") for n in range(10)], 10_000))  # type: ignore[func-returns-value]
    assert len(documents) == 128 and len(read) == 64 and max(read) > 9_000


def test_what_a_folder_holds_decides_its_fingerprint(lines: Path) -> None:
    first = Hub(str(lines), text_key="content").fingerprint()
    assert Hub(str(lines), text_key="content").fingerprint() == first
    file = lines / "data.jsonl"
    file.write_text(file.read_text().replace("Line 7", "Line 8"))
    assert Hub(str(lines), text_key="content").fingerprint() != first


def test_the_licence_is_that_of_the_card(local: Path, lines: Path) -> None:
    assert Hub(str(local)).licence.endswith(", licence cc-by-4.0")
    assert Hub(str(lines)).licence.endswith(", licence not stated on its card")


def test_the_newest_commit_is_asked_for_and_kept_for_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "dataset_info", lambda dataset, revision: DatasetInfo("c" * 40, "licence mit"))
    source = Hub("some/stories", revision="main")
    assert source.resolved() == {"revision": "c" * 40} and source.fingerprint()["revision"] == "c" * 40
    assert source.licence == "some/stories, licence mit"


def test_a_commit_needs_no_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "dataset_info", lambda *_: pytest.fail("the hub was asked"))
    assert Hub("some/stories", revision="a" * 40).fingerprint()["revision"] == "a" * 40


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"config": "20231101.yy"}, r"\(20231101\.yy\) could not be read as asked: .*20231101\.xx.*data\.config"),
        ({"text_key": "body"}, r"has no column body, but .*title.*data\.text_key"),
    ],
)
def test_what_a_data_set_has_not_is_a_sentence(local: Path, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        ids(Hub(str(local), **options))


def test_a_column_that_is_no_text_is_a_sentence(lines: Path) -> None:
    with pytest.raises(DataError, match=r"row 0:0, has int in stars, not text"):
        ids(Hub(str(lines), text_key="stars"))


def test_spread_over_one_piece_is_refused(lines: Path) -> None:
    with pytest.raises(DataError, match=r"in one piece.*data\.order=shuffle"):
        ids(Hub(str(lines), text_key="content", n_documents=3, order="spread"))


def test_no_data_set_is_a_sentence() -> None:
    with pytest.raises(DataError, match=r"data\.dataset=…"):
        Hub(None)


def hub_error(kind: str) -> Callable[[], Exception]:
    def make() -> Exception:
        import httpx
        from huggingface_hub import errors

        response = httpx.Response(404, request=httpx.Request("GET", "https://hub"))
        made: Exception = getattr(errors, kind)("404 Not Found", response=response)
        return made

    return make


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (hub_error("GatedRepoError"), DataError, "a/b is gated: accept its terms.*hf auth login"),
        (hub_error("RepositoryNotFoundError"), DataError, r"no data set a/b on the hub, or it is private.*data\.dataset"),
        (hub_error("RevisionNotFoundError"), DataError, r"no such revision.*data\.revision"),
        (lambda: TimeoutError("timed out"), Unreachable, r"\(TimeoutError: timed out\)\. Check the network"),
    ],
)
def test_what_the_hub_refuses_is_a_sentence(
    make: Callable[[], Exception], error: type[Exception], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(dataset: str, revision: str | None) -> None:
        raise make()

    monkeypatch.setattr(hub, "dataset_info", refuse)
    with pytest.raises(error, match=sentence):
        Hub("a/b").fingerprint()


def test_a_hub_that_breaks_off_is_out_of_reach_and_what_came_is_kept(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Hub(str(local))
    monkeypatch.setattr(source, "_local", False)
    monkeypatch.setattr(hub, "dataset_info", lambda *_: DatasetInfo("c" * 40, ""))
    real = source._read

    def breaks(rows: Any, shard: int) -> Any:
        if shard == 1:
            raise ConnectionResetError("reset by peer")
        return real(rows, shard)

    monkeypatch.setattr(source, "_read", breaks)
    came = []
    with pytest.raises(Unreachable, match="the same command resumes there"):
        for document in source.documents():
            came.append(document.id)
    assert came == ["0", "1", "2", "3", "4"]
