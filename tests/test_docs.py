"""The documentation against the program: commands compose and pass the checks, links lead somewhere, tables tell the truth.

Commands are those in ``sh`` blocks and those in single backticks that begin with the program's name. Nothing is trained: what a
command line would be refused for before torch is imported is what is tested here.
"""

import ast
import importlib
import json
import re
import shlex
import shutil
import sys
import tomllib
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from gptshake.config.arguments import parse
from gptshake.config.compose import compose
from gptshake.config.compose_errors import checked_compose, parse_overrides
from gptshake.config.experiments import expand_experiment_files
from gptshake.config.layout import GROUPS, options
from gptshake.config.multirun import first_choice
from gptshake.config.validate import check, check_groups, trains
from gptshake.estimate.formatting import short_count
from gptshake.model.config import GPTConfig
from gptshake.record.metrics import COLUMNS, read_rows
from gptshake.setup import resolve

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"(?<!`)`((?:python -m )?gptshake [^`\n]*=[^`\n]*|make [a-z]+[^`\n]*)`(?!`)")
EXAMPLE = re.compile(r"^`([\w/.]+\.(?:yaml|py))`:\n\n```\w+\n(.*?)^```", re.DOTALL | re.MULTILINE)  # a file that a page shows, and its text
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
OTHERS = {"source", "cd", "git", "pip"}  # programs that a page may call besides ours
VOCABULARY = 281  # of the excerpt, as docs/models.md says


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def commands(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    in_blocks = [line for block in BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in [*in_blocks, *INLINE.findall(text)] if shlex.split(line, comments=True)]


def ours(words: list[str]) -> list[str] | None:
    """The arguments of a gptshake command line, None for another program; variables in front of it are left out."""
    while re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    if (
        words[0].endswith(("python", "torchrun", "srun"))
        and (start := words.index("-m") if "-m" in words else 0)
        and words[start + 1] == "gptshake"
    ):
        return words[start + 2 :]
    return words[1:] if words[0].endswith("gptshake") else None


def there(override: str) -> str:
    """An override without the files and runs that a reader has and we have not."""
    return re.sub(r"^optimizer\.lr=from:.*$", "optimizer.lr=1e-3", re.sub(r"^experiment=.*\.yaml$", "experiment=demo", override))


def written(page: Path, folder: Path) -> list[Path]:
    """Put the files that a page shows into a folder, as its reader does."""
    files = []
    for where, text in EXAMPLE.findall(page.read_text(encoding="utf-8")):
        files.append(folder / where)
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        files[-1].write_text(text, encoding="utf-8")
    return files


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


FOUND = {command: page for page in reversed(PAGES) for command in commands(page)}  # each once, at its first page
ALL = [pytest.param(command, id=f"{name(page)}: {command}") for command, page in FOUND.items()]


def test_the_pages_hold_commands() -> None:
    assert len(ALL) > 40


@pytest.mark.parametrize("command", ALL)
def test_a_documented_command_is_accepted(command: str, book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(book, tmp_path)  # data.path=book.txt
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "lines.jsonl").write_text('{"content": "A text."}')
    if written(FOUND[command], tmp_path):
        monkeypatch.syspath_prepend(tmp_path)
    words = shlex.split(command, comments=True)
    arguments = ours(words)
    if arguments is None:
        _check_other(words)
        return
    parsed = parse(arguments)
    overrides = parse_overrides([there(text) for text in parsed.overrides])
    assert parsed.multirun or not any(override.is_sweep_override() for override in overrides), "several values need -m"
    if parsed.help or parsed.version:
        return
    if "init_from=hf:" in command:  # whose config.json gives the sizes
        overrides = [*parse_overrides(["model=gpt2"]), *overrides]
    cfg = checked_compose(expand_experiment_files([chosen for override in overrides if (chosen := first_choice(override)) is not None]))
    check(cfg)
    if cfg.resume is None and trains(cfg):
        check_groups(cfg)
        cfg.init_from = None  # names a run of the reader's
        resolve.preflight(cfg)


def _check_other(words: list[str]) -> None:
    if words[0] == "make":
        targets = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[0].split()
        assert {word for word in words[1:] if "=" not in word} <= set(targets)
    elif words[0].endswith("python"):
        assert (ROOT / words[1]).is_file(), f"there is no {words[1]}"
    else:
        assert words[0] in OTHERS


@pytest.mark.parametrize("page", [pytest.param(page, id=name(page)) for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        file, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{name(page)} links to {link}, which is not there"
        assert not anchor or anchor in anchors(target), f"{name(page)} links to {link}, but {file or 'the page'} has no such heading"


def test_every_page_is_linked_from_another() -> None:
    linked = {(page.parent / link.partition("#")[0]).resolve() for page in PAGES for link in LINK.findall(prose(page)) if "://" not in link}
    assert [name(page) for page in PAGES if page not in linked and page.name != "README.md"] == []


def test_the_table_of_groups_lists_every_option_of_every_group() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \| .* \|$", page, re.MULTILINE))
    assert {group: sorted(re.findall(r"`(\w+)`", names)) for group, names in rows.items()} == {group: options(group) for group in GROUPS}


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    sections = [*chain.from_iterable(entry.values() for entry in tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"])]
    listed = [page for section in sections for page in ([section] if isinstance(section, str) else section)]
    made = {"index.md", "reference.md", "CONTRIBUTING.md", "CHANGELOG.md", "decisions/README.md"}  # by the session docs, or in folders
    assert sorted(listed) == sorted(made | {page.name for page in (ROOT / "docs").glob("*.md")})


def test_the_readme_is_one_screen() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 60
    assert (ROOT / "docs" / "images" / "demo.png").stat().st_size < 200_000


def test_the_example_of_an_option_of_ones_own_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file,) = written(ROOT / "docs" / "configuration.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    cfg = checked_compose([f"model={file.stem}", "data=wiki_char"])
    check(cfg)
    assert cfg.optimizer.lr == cfg.preset.lr


@pytest.mark.parametrize("option", options("model"))
def test_the_table_of_models_is_true(option: str) -> None:
    row = re.search(rf"^\| `{option}` \| (.+) \|$", (ROOT / "docs" / "models.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert row, f"docs/models.md does not list {option}"
    layers, heads, width, block, dropout, parameters, lr, batch = (cell.replace(",", "") for cell in row[1].split(" | "))
    cfg = compose([f"model={option}"])
    model = GPTConfig(**{field.name: cfg.model[field.name] for field in fields(GPTConfig)} | {"vocab_size": VOCABULARY})
    assert [int(layers), int(heads), int(width), int(block)] == [model.n_layer, model.n_head, model.n_embd, model.block_size]
    assert float(dropout) == model.dropout and float(lr) == float(cfg.preset.lr)
    assert int(batch.split()[0]) == cfg.preset[{"sequences": "batch_size", "tokens": "batch_tokens"}[batch.split()[1]]]
    assert float(parameters[:-1]) * {"M": 1e6, "B": 1e9}[parameters[-1]] == pytest.approx(model.num_params(), rel=6e-3)


def test_every_column_of_the_record_is_described() -> None:
    text = (ROOT / "docs" / "records.md").read_text(encoding="utf-8")
    assert [column for column in COLUMNS if f"`{column}`" not in text] == []


def test_every_group_is_described() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    groups = [folder.name for folder in (ROOT / "conf").iterdir() if folder.is_dir() and folder.name != "hydra"]
    assert [group for group in groups if f"| `{group}` |" not in text] == []


# --- parts of one's own ---


def test_the_parts_on_the_page_train_from_a_folder_of_ones_own(commands: Any, tmp_path: Path) -> None:
    """One run with all of them, by a parent whose path of imports, like a console script's, lacks the folder."""
    written(ROOT / "docs" / "extending.md", tmp_path)
    parts = ("model=gru", "data=sums", "tokenizer=wordbook", "tokenizer.n_words=10", "scheduler=inverse_sqrt", "optimizer=adagrad")
    length = ("trainer.max_steps=4", "trainer.val_check_interval=2", "trainer.threads=1", "trainer=cpu", "~callbacks.plots", "logger=none")
    parts += ("callbacks=weights",)
    done = commands(tmp_path, *parts, *length, "callbacks.samples.n_tokens=20", "data.batch_size=4")
    assert done.code == 0 and done.err == "", done.err
    (run,) = (tmp_path / "runs").iterdir()
    info, rows = json.loads((run / "run.json").read_text()), read_rows(run / "metrics.csv")
    assert [row["train/lr"] for row in rows] == pytest.approx([0.01 * (0.4 / step) ** 0.5 for step in (1, 2, 3, 4)])
    assert rows[3]["val/loss"] < rows[1]["val/loss"] and all(row["weights/norm"] > 0 for row in rows)
    counted = 266 * 64 + 2 * 3 * 64 * 65 + 266 * 65  # embedding, GRU, head
    assert info["model"]["parameters"] == counted and f"plan: {short_count(counted)} parameters" in done.out
    assert {"gru.py", "sums.py", "wordbook.py", "adagrad.py", "inverse_sqrt.py", "weights.py", "conf/model/gru.yaml"} <= set(
        info["local_conf"]
    )
    assert (run / "code" / "gru.py").read_text() == (tmp_path / "gru.py").read_text()
    again = commands(tmp_path, f"resume={info['id']}")
    assert again.code == 0, again.err
    sampled = commands(tmp_path, "task=sample", f"task.run={info['id']}", "task.prompt='12+'", "task.n_tokens=20")
    assert sampled.code == 0 and sampled.out.startswith("12+"), sampled.err
    _taken_over_and_lost(commands, tmp_path, info, (*parts, *length))


def _taken_over_and_lost(commands: Any, folder: Path, info: dict[str, Any], words: tuple[str, ...]) -> None:
    """Another text takes over the tokenizer of a run; without its file, or its ``load``, that is told in a sentence."""
    about = ("tokenizer.path=latest", "data.documents.largest=500", f"init_from={info['id']}", "callbacks=none", "paths.run_dir=other")
    other = commands(folder, *(word for word in words if "callbacks" not in word), *about)
    assert other.code == 0, other.err
    assert json.loads((folder / "other" / "run.json").read_text())["data"]["tokenizer"] == info["data"]["tokenizer"]
    sample = ("task=sample", f"task.run={info['id']}")
    whole = (folder / "wordbook.py").read_text()
    (folder / "wordbook.py").write_text(whole.replace("def load(", "def read("))
    done = commands(folder, *sample)
    assert done.code == 2 and "is of the kind 'wordbook', which this version of gptshake does not have. One of your own" in done.error
    (folder / "wordbook.py").write_text(whole.replace('data["words"]', 'data["words"][1:]'))
    done = commands(folder, *sample)
    assert done.code == 2 and "wordbook.load makes another tokenizer of" in done.error
    (folder / "wordbook.py").unlink()
    for again in (sample, (f"resume={info['id']}",)):
        done = commands(folder, *again)
        assert done.code == 2 and "wordbook" in done.error and "no module" in done.error.lower()


def test_the_task_on_the_page_runs(commands: Any, tmp_path: Path) -> None:
    written(ROOT / "docs" / "extending.md", tmp_path)
    done = commands(tmp_path, "task=frequent", "data=sums", "tokenizer=char", "task.n=3")
    assert done.code == 0, done.err
    assert len([line for line in done.out.splitlines() if re.match(r" *[\d,]+  '", line)]) == 3


def test_a_sweep_runs_the_python_of_the_moment_when_it_began(commands: Any, tmp_path: Path) -> None:
    written(ROOT / "docs" / "extending.md", tmp_path)
    with (tmp_path / "gru.py").open("a") as file:
        file.write("\nopen(__file__, 'w').write('broken(')  # whoever imports it a second time finds this\n")
    whole = (tmp_path / "gru.py").read_text()
    argv = ("model=gru", "data=sums", "tokenizer=char", "optimizer.lr=1e-3,2e-3", "trainer.max_steps=2", "trainer=cpu", "trainer.threads=1")
    done = commands(tmp_path, "-m", *argv, "callbacks=none", "logger=none", "study=own")
    assert done.code == 0, done.out + done.err
    assert (tmp_path / "gru.py").read_text() == "broken("
    assert [(tmp_path / f"multirun/own/{number}/code/gru.py").read_text() for number in (0, 1)] == [whole, whole]


def test_the_tests_on_the_page_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    files = [file for file in written(ROOT / "docs" / "extending.md", tmp_path) if file.suffix == ".py"]
    tests = [getattr(importlib.import_module(file.stem), name) for file in files for name in _names(file) if name.startswith("test_")]
    for file in files:
        monkeypatch.delitem(sys.modules, file.stem, raising=False)
    assert len(tests) == len(files) / 2
    for test in tests:
        test()


def test_a_part_that_cannot_be_imported_is_told_in_a_sentence(light_commands: Any, tmp_path: Path) -> None:
    written(ROOT / "docs" / "extending.md", tmp_path)
    done = light_commands(tmp_path, "model=gru", "data=sums", "tokenizer=char", "scheduler=cosine", "scheduler._target_=missing.cosine")
    assert done.code == 2 and done.error.startswith("scheduler._target_: there is no module 'missing'.")


def test_a_network_that_does_not_say_its_sizes_is_refused(commands: Any, tmp_path: Path) -> None:
    written(ROOT / "docs" / "extending.md", tmp_path)
    done = commands(tmp_path, "model=gru", "data=sums", "tokenizer=char", "~model.block_size", "logger=none")
    assert done.code == 2 and "block_size" in done.error


# --- how the pages are read ---


def _names(file: Path) -> set[str]:
    """Functions, classes and methods of a source file."""
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef | ast.ClassDef)}


ORDER = ("source", "tokenizer", "token store", "blocks", "model", "training", "run record", "sweep")  # of the data


def test_the_files_to_read_are_there_in_the_order_of_the_data_and_hold_what_the_page_names() -> None:
    text = (ROOT / "docs" / "reading.md").read_text(encoding="utf-8")
    stations = re.findall(
        r"^\d\. \*\*(.+?)\*\*: \[`(.+?)`\]\(\.\./src/gptshake/(.+?)\)\. (.+?)(?=\n\d\.|\n\n|\Z)", text, re.DOTALL | re.MULTILINE
    )
    assert tuple(title for title, *_ in stations) == ORDER
    for title, shown, path, about in stations:
        file = ROOT / "src" / "gptshake" / path
        assert file.is_file() and shown == path, title
        named = set(re.findall(r"`(\w+)`", about))
        assert named and named <= _names(file), f"{path} does not define {named - _names(file)}"
