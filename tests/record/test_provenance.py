import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import gptshake
from gptshake.config.layout import packaged_conf
from gptshake.record import git
from gptshake.record.git import Code, code_sha256
from gptshake.record.provenance import collect, config_sha256, packages


def test_every_installed_distribution_is_listed() -> None:
    found = packages()
    for name in ("torch", "pytorch-lightning", "hydra-core", "omegaconf", "numpy", "pytest"):
        assert found[name] == metadata.version(name)
    assert list(found) == sorted(found) and len(found) > 50


def test_the_first_of_two_versions_on_the_path_is_the_one_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, name in (("a", "My_Pack.age-1.0.dist-info"), ("b", "my_pack_age-2.0.dist-info"), ("b", "old-3.0-py3.11.egg-info")):
        (tmp_path / folder / name).mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "a"), str(tmp_path / "none"), str(tmp_path / "b")])
    assert packages() == {"my-pack-age": "1.0", "old": "3.0"}


def test_nothing_is_imported_to_ask_its_version() -> None:
    code = (
        "import sys, json; from gptshake.record.git import Code; from gptshake.record.provenance import collect; d = collect(Code()); "
        "json.dumps(d); assert d['environment']['packages']['torch'], d; "
        "print([m for m in ('torch', 'wandb', 'numpy', 'matplotlib', 'pytorch_lightning') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_only_code_that_git_does_not_know_is_hashed() -> None:
    assert "code_sha256" not in collect(Code({"commit": "abc"}))["git"]
    unversioned = collect(Code({"unversioned": "installed from a wheel"}))["git"]
    assert unversioned == {"unversioned": "installed from a wheel", "code_sha256": code_sha256()}
    assert json.dumps(unversioned)


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package as a wheel installs it, conf inside, with compiled files beside; it believes that it runs from there."""
    package, source = tmp_path / "site-packages/gptshake", Path(gptshake.__file__).parent
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(source.parent / "hydra_plugins", package.parent / "hydra_plugins", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(packaged_conf(), package / "conf")
    (package / "__pycache__").mkdir()
    (package / "__pycache__/errors.cpython-311.pyc").write_bytes(b"compiled")
    monkeypatch.setattr(git, "__file__", str(package / "record/git.py"))
    return package


def test_a_wheel_has_the_hash_of_the_checkout_that_it_was_made_from(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = code_sha256()
    monkeypatch.undo()
    assert installed == code_sha256()


@pytest.mark.parametrize("file", ["errors.py", "conf/model/tiny.yaml", "../hydra_plugins/gptshake_sweeper/_app.py"])
def test_an_edited_installation_has_another_hash(wheel: Path, file: str) -> None:
    before = code_sha256()
    (wheel / file).write_text((wheel / file).read_text() + "# edited\n")
    assert code_sha256() != before


CONFIG: dict[str, Any] = {
    "seed": 1,
    "note": "why",
    "paths": {"runs": "a"},
    "data": {"batch_size": 8, "documents": {"path": "x", "cache": "c"}},
    "trainer": {"max_steps": 5, "price_per_hour": None},
}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"note": "another why", "dirty": True, "paths": {"runs": "b"}, "logger": None, "task": {"text": "x"}}, True),
        ({"trainer": {"price_per_hour": 2.0, "max_steps": 5}, "data": {"documents": {"path": "x", "cache": "d"}, "batch_size": 8}}, True),
        ({"seed": 2}, False),
        ({"trainer": {"max_steps": 6, "price_per_hour": None}}, False),
        ({"data": {"batch_size": 8, "documents": {"path": "y", "cache": "c"}}}, False),
    ],
)
def test_the_hash_of_a_config_is_about_what_decides_numbers(change: dict[str, Any], same: bool) -> None:
    assert (config_sha256(CONFIG) == config_sha256(CONFIG | change)) is same
