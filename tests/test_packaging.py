"""The wheel works by itself: built, installed where no checkout is, and run in an empty folder.

The fresh environment borrows the heavy libraries of this one through a .pth file, so nothing is downloaded.
"""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "gptshake"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("gptshake-*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment that holds the wheel."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, symlinks=True)
    interpreter = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(interpreter), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True)
    own = next((folder / "lib").glob("python*/site-packages"))
    (own / "borrowed.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return interpreter


def outside(tmp_path: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in an empty folder, as somebody without a checkout would."""
    alone = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True)


def test_the_wheel_carries_every_config_the_pages_script_and_both_licences(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"gptshake/{file.relative_to(ROOT).as_posix()}" for file in (ROOT / "conf").rglob("*.yaml")}
    assert configs
    assert configs <= inside
    beside = {f"gptshake/{file.relative_to(SOURCES).as_posix()}" for suffix in ("css", "js") for file in SOURCES.rglob(f"*.{suffix}")}
    assert beside
    assert beside <= inside
    assert {name.rpartition("/licenses/")[2] for name in inside if "/licenses/" in name} == {"LICENSE", "NOTICE"}


def test_an_installed_wheel_shows_its_help_in_an_empty_folder(python: Path, tmp_path: Path) -> None:
    done = outside(tmp_path, str(python), "-m", "gptshake", "--help")
    assert done.returncode == 0, done.stderr
    assert "gpt3_small" in done.stdout and "wiki_char" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_installed_wheel_composes_its_own_configs(python: Path, tmp_path: Path) -> None:
    script = python.with_name("gptshake")
    done = outside(tmp_path, str(script), "model=tiny", "data=wiki_char", "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert "n_layer: 4" in done.stdout


def test_an_installed_wheel_runs_its_own_code(python: Path, tmp_path: Path) -> None:
    done = outside(tmp_path, str(python), "-c", "import gptshake; print(gptshake.__file__)")
    assert Path(done.stdout.strip()).is_relative_to(python.parents[1])
