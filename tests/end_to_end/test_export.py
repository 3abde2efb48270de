"""``task=export`` as it is typed: a folder beside the run, checked before it is there, never half-written."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.export
WITH_PROGRAMS = f"import sys; sys.path[:] = {sys.path!r}"  # the tests lie beside the programs, the commands' parent does not


@pytest.fixture(scope="module")
def trained(commands: Any, small: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    done = commands(folder, *small, "callbacks=default")
    assert done.code == 0, done.err
    return folder


def test_the_folder_is_loaded_by_transformers_and_never_written_over(commands: Any, trained: Path, the_run: Callable[[Path], Any]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    done = commands(trained, "task=export", "task.run=latest", before=WITH_PROGRAMS)
    assert done.code == 0, done.err
    folder = the_run(trained).path / "export" / "hf"
    assert "checked with transformers" in done.out and f"exported: {folder.relative_to(trained)}" in done.out
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer("the of and", return_tensors="pt").input_ids
    assert tokenizer.decode(model.generate(ids, max_new_tokens=3, do_sample=False)[0]).startswith("the of and")
    card = (folder / "README.md").read_text()
    assert "data=text_char" in card and "bits per byte" in card and "![loss" in card and (folder / "loss.png").is_file()
    again = commands(trained, "task=export", "task.run=latest")
    assert again.code == 2 and "is there already" in again.err


def test_what_cannot_be_expressed_leaves_nothing_behind(commands: Any, trained: Path) -> None:
    done = commands(trained, "task=export", "task.run=latest", "task.to=gguf", "task.folder=out/gguf", before=WITH_PROGRAMS)
    assert done.code == 2 and "task.to=hf" in done.err
    assert not (trained / "out").exists() or not any((trained / "out").iterdir())


@pytest.mark.parametrize("option", ["task.run=nosuch", "task.to=pickle"])
def test_a_mistake_is_one_sentence(commands: Any, trained: Path, option: str) -> None:
    done = commands(trained, "task=export", "task.run=latest", option)
    assert done.code == 2 and "Traceback" not in done.err and len(done.err.strip().splitlines()) == 1
