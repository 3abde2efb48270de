from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptshake.record.texts import Sample, append_sample, cut_samples, read_samples

WITHOUT_SURROGATES = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**12), WITHOUT_SURROGATES), max_size=4))
def test_texts_come_back_whatever_they_hold(tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[int, int, str]]) -> None:
    path = tmp_path_factory.mktemp("samples") / "samples.md"
    samples = [Sample(step, tokens, "prompt", text) for step, tokens, text in texts]
    for sample in samples:
        append_sample(path, sample)
    assert read_samples(path) == samples


def test_a_text_cannot_close_its_own_fence(tmp_path: Path) -> None:
    text = "```\n## step 5 · 6 tokens · false\n\n```text\nx\n```\n\n"
    append_sample(tmp_path / "samples.md", Sample(1, 2, "a", text))
    append_sample(tmp_path / "samples.md", Sample(3, 4, "b", "plain"))
    assert read_samples(tmp_path / "samples.md") == [Sample(1, 2, "a", text), Sample(3, 4, "b", "plain")]
    assert "````text\n" in (tmp_path / "samples.md").read_text()


def test_a_lone_surrogate_is_written_as_a_question_mark(tmp_path: Path) -> None:
    append_sample(tmp_path / "samples.md", Sample(0, 0, "a", "x\ud800y"))
    assert read_samples(tmp_path / "samples.md")[0].text == "x?y"


def test_a_cut_keeps_the_samples_up_to_the_step_and_drops_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "samples.md"
    for step in (0, 500, 1000):
        append_sample(path, Sample(step, step * 768, "a", f"text {step}"))
    whole = path.read_bytes()
    with path.open("a") as file:
        file.write("## step 1,500 · 9 tokens · a\n\n```text\nhal")
    assert [sample.step for sample in read_samples(path)] == [0, 500, 1000]
    cut_samples(path, 1000)
    assert path.read_bytes() == whole
    cut_samples(path, 999)
    assert [sample.step for sample in read_samples(path)] == [0, 500]


@pytest.mark.parametrize("number", [",", "9" * 5000])
def test_a_heading_without_a_number_is_no_sample(number: str, tmp_path: Path) -> None:
    file = tmp_path / "samples.md"
    file.write_text(f"## step {number} · {number} tokens · sample\n\n```text\nx\n```\n\n")
    assert read_samples(file) == []


def test_a_missing_file_has_no_samples_and_is_not_made(tmp_path: Path) -> None:
    cut_samples(tmp_path / "samples.md", 0)
    assert read_samples(tmp_path / "samples.md") == []
    assert not (tmp_path / "samples.md").exists()
