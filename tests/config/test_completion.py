"""Tab: what a shell is answered, in its own way."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gptshake.config.arguments import parse
from gptshake.config.layout import options
from gptshake.config.show import asked, complete, readable

PAGE = Path(__file__).parents[2] / "docs" / "getting-started.md"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the console script on the PATH, as pip makes it."""
    script = tmp_path / "bin" / "gptshake"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom gptshake.__main__ import main\nsys.exit(main())\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def asked_by(shell: str, folder: Path, lines: list[str], press: str) -> list[list[str]]:
    """Proposals for each line, asked through the line that the page has for this shell; ``press`` is Tab in its language."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    found = re.search(rf"^{shell} +(.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    script = "\n".join([found[1], *(press.replace("TYPED", line) for line in lines)])
    done = subprocess.run([program, "-c", script], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == ""
    return [part.split() for part in done.stdout.split("--\n")[:-1]]


BASH = """COMP_LINE="TYPED"; COMP_POINT=${#COMP_LINE}; COMP_WORDS=($COMP_LINE); COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 )); COMPREPLY=()
hydra_bash_completion; printf '%s\\n' "${COMPREPLY[@]}" --"""
FISH = "complete -C 'TYPED'; echo; printf '%s\\n' --"
LINES = ["gptshake model=", "gptshake model=tiny data=wiki_char optimizer.b"]


@pytest.mark.parametrize(("shell", "press"), [("bash", BASH), ("fish", FISH)])
def test_a_shell_is_told_options_and_keys_yours_among_them(shell: str, press: str, folder: Path) -> None:
    (folder / "conf/model").mkdir(parents=True)
    (folder / "conf/model/mine.yaml").write_text("# @package _global_\n")
    models, betas = asked_by(shell, folder, LINES, press)
    assert sorted(models) == sorted(f"model={option}" for option in {*options("model"), "mine"})
    assert betas == ["optimizer.beta1=", "optimizer.beta2="]


@pytest.mark.parametrize(
    "line", ["gptshake model=", "gptshake optimizer.", "gptshake ", "gptshake -m model=tiny,baby optimizer.lr=range model.n_"]
)
def test_tab_prints_proposals_and_nothing_else(line: str, folder: Path) -> None:
    done = subprocess.run(
        ["gptshake", "-sc", "query=bash"], cwd=folder, env={**os.environ, "COMP_LINE": line}, capture_output=True, text=True
    )
    words = done.stdout.split()
    assert done.stderr == "" and words and all(word.startswith(line.rpartition(" ")[2]) for word in words)


def test_nothing_is_said_about_a_line_that_cannot_be_completed(light_commands: Any, tmp_path: Path) -> None:
    for line in ("gptshake note='a b", "gptshake --di", "gptshake model=[", "gptshake model=nosuch model.", "gptshake optimizer.lr.x"):
        done = light_commands(tmp_path, "-sc", "query=bash", COMP_LINE=line)
        assert (done.code, done.out.strip(), done.err) == (0, "", ""), line


def test_only_chosen_options_of_a_line_are_handed_on() -> None:
    line = "gptshake -m --dirty model=tiny,baby note='it is, so' optimizer.lr=range task=runs task.filter='lr>1' mod"
    assert readable(line) == "gptshake model=tiny task=runs mod"
    assert readable("gptshake model=tiny ") == "gptshake model=tiny "
    assert readable("gptshake note='half") is not None and readable("gptshake note='half a") is None


@pytest.mark.parametrize("separator", [" ", "\n"])
def test_internals_are_not_proposed(separator: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_LINE", "gptshake ")
    complete(lambda: print(separator.join(["model=tiny", "optimizer._target_=", "optimizer.lr="])))
    assert capsys.readouterr().out == f"model=tiny{separator}optimizer.lr=\n"


def test_installing_is_no_question() -> None:
    assert asked(parse(["-sc", "query=bash"])) and not asked(parse(["-sc", "install=bash"])) and not asked(parse(["--cfg", "job"]))
