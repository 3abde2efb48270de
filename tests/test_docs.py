"""The documentation against the program: commands compose and pass the checks, links lead somewhere, tables tell the truth.

Commands are those in ``sh`` blocks and those in single backticks that begin with the program's name. Nothing is trained: what a
command line would be refused for before torch is imported is what is tested here.
"""

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from gptshake import assemble
from gptshake.config.argv import parse
from gptshake.config.check import check, check_groups, trains
from gptshake.config.compose import compose
from gptshake.config.layout import options
from gptshake.config.suggest import checked_compose, first_choice, parse_overrides
from gptshake.estimate.cost import n_parameters
from gptshake.model.config import GPTConfig
from gptshake.record.metrics import COLUMNS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"(?<!`)`((?:python -m )?gptshake [^`\n]*=[^`\n]*|make [a-z]+[^`\n]*)`(?!`)")
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
    if words[0].endswith("python") and words[1:3] == ["-m", "gptshake"]:
        return words[3:]
    return words[1:] if words[0].endswith("gptshake") else None


def there(override: str) -> str:
    """An override without the files and runs that a reader has and we have not."""
    return re.sub(r"^optimizer\.lr=from:.*$", "optimizer.lr=1e-3", re.sub(r"^experiment=.*\.yaml$", "experiment=demo", override))


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
def test_a_documented_command_is_accepted(command: str, book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(book.parent)  # where data.path=book.txt is
    (book.parent / "texts").mkdir(exist_ok=True)
    (book.parent / "texts" / "lines.jsonl").write_text('{"content": "A text."}')
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
    cfg = checked_compose([chosen for override in overrides if (chosen := first_choice(override)) is not None])
    check(cfg)
    if cfg.resume is None and trains(cfg):
        check_groups(cfg)
        assemble.preflight(cfg)


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


def test_the_readme_is_one_screen() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 60
    assert (ROOT / "docs" / "images" / "demo.png").stat().st_size < 200_000


def test_the_example_of_an_option_of_ones_own_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    example = re.search(r"`(conf/\S+\.yaml)`:\n\n```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert example
    file = tmp_path / example[1]
    file.parent.mkdir(parents=True)
    file.write_text(example[2])
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
    shape = GPTConfig(**{field.name: cfg.model[field.name] for field in fields(GPTConfig)})
    assert [int(layers), int(heads), int(width), int(block)] == [shape.n_layer, shape.n_head, shape.n_embd, shape.block_size]
    assert float(dropout) == shape.dropout and float(lr) == float(cfg.preset.lr)
    assert int(batch.split()[0]) == cfg.preset[{"sequences": "batch_size", "tokens": "batch_tokens"}[batch.split()[1]]]
    assert float(parameters[:-1]) * {"M": 1e6, "B": 1e9}[parameters[-1]] == pytest.approx(n_parameters(shape, VOCABULARY), rel=6e-3)


def test_every_column_of_the_record_is_described() -> None:
    text = (ROOT / "docs" / "records.md").read_text(encoding="utf-8")
    assert [column for column in COLUMNS if f"`{column}`" not in text] == []


def test_every_group_is_described() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    groups = [folder.name for folder in (ROOT / "conf").iterdir() if folder.is_dir() and folder.name != "hydra"]
    assert [group for group in groups if f"| `{group}` |" not in text] == []
