"""``optimizer.lr=from:<run>`` becomes a number at once, or a sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from gptshake.config.found import found_rates, other_terms
from gptshake.errors import RecordError

CONFIG = {"model": {"n_layer": 2}, "data": {"batch_size": 8, "documents": {"path": "a.txt", "cache": "here"}}, "optimizer": {"lr": 1e-3}}


@pytest.fixture
def finder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes records of finders below runs/."""
    monkeypatch.chdir(tmp_path)

    def make(run_id: str, **fields: Any) -> Path:
        path = tmp_path / "runs" / f"name-{run_id}"
        path.mkdir(parents=True)
        (path / "run.json").write_text(json.dumps({"id": run_id, "name": path.name, "status": "ok", **fields}))
        (path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
        return path

    return make


@pytest.mark.parametrize("typed", ["from:x0000001", "from:name-x0000001", "'from:x0000001'", "from:runs/name-x0000001"])
def test_a_found_rate_is_written_out_as_a_number(finder: Any, typed: str) -> None:
    finder("x0000001", find_lr={"lr": 2.1e-3})
    overrides, origin = found_rates(["model=tiny", f"optimizer.lr={typed}", "seed=1"])
    assert overrides == ["model=tiny", "optimizer.lr=0.0021", "seed=1"]
    assert origin["lr_from"]["run"] == "x0000001"


def test_runs_are_looked_for_where_the_command_keeps_them(finder: Any, tmp_path: Path) -> None:
    finder("x0000001", find_lr={"lr": 0.5})
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    overrides, _ = found_rates(["paths.runs='elsewhere'", "optimizer.lr=from:x0000001"])
    assert overrides[-1] == "optimizer.lr=0.5"


@pytest.mark.parametrize("text", ["optimizer.lr=1e-3", "optimizer.lr=choice(range)", "note='from:x'", "~optimizer.lr"])
def test_everything_else_is_left_alone(text: str) -> None:
    assert found_rates([text]) == ([text], {})


def test_a_run_that_found_nothing_is_a_sentence(finder: Any) -> None:
    finder("x0000001")
    finder("x0000002", find_lr={"start": 1e-3}, status="failed")
    with pytest.raises(RecordError, match=r"is no run of task=find_lr\. Find one with: gptshake task=find_lr"):
        found_rates(["optimizer.lr=from:x0000001"])
    with pytest.raises(RecordError, match=r"has not found a rate \(failed\)"):
        found_rates(["optimizer.lr=from:x0000002"])
    with pytest.raises(RecordError, match="There is no run 'x0000003'; did you mean"):
        found_rates(["optimizer.lr=from:x0000003"])


def test_a_rate_that_was_found_for_something_else_is_told(finder: Any) -> None:
    path = finder("x0000001", find_lr={"lr": 2e-3})
    origin = {"lr_from": {"run": "x0000001", "path": str(path)}}
    cfg = OmegaConf.create(CONFIG | {"optimizer": {"lr": 2e-3}})
    assert other_terms(origin, cfg) is None and other_terms({}, cfg) is None
    cfg.data.documents.cache, cfg.data.batch_size = "there", "auto"
    assert other_terms(origin, cfg) is None
    cfg.model.n_layer = 4
    assert other_terms(origin, cfg) == "note: optimizer.lr=0.002 was found by x0000001 for other terms: model.n_layer 2, here 4."
