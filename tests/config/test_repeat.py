import json
from pathlib import Path
from typing import Any

import pytest

from gptshake.config.overrides import refuse_another_config, repeated
from gptshake.errors import RecordError

CONFIG = "seed: 1\ninit_from: runs/a\noptimizer: {lr: 0.001}\ndata: {path: book.txt}\nlogger: {key: <secret>}\nmodel: {token: <secret>}\n"


def record(path: Path, config: str = CONFIG, **info: Any) -> Path:
    path.mkdir()
    (path / "config.yaml").write_text(config)
    (path / "run.json").write_text(json.dumps({"id": "x", "name": "x", "status": "ok", "overrides": []} | info))
    return path


def test_a_run_is_repeated_as_it_was_but_elsewhere_and_for_itself(tmp_path: Path) -> None:
    typed = [
        *("model=tiny", "data=text_char", "data.path='my book.txt'", "++optimizer.lr=1e-3", "paths.runs='there'", "paths.run_dir='x'"),
        *(
            "logger=wandb",
            "+logger.tags=[a]",
            "note='mine'",
            "dirty=true",
            "resume='x'",
            "study='s'",
            "pruner=none",
            "trainer.max_time=00:00:00:05",
        ),
    ]
    run = record(tmp_path / "run", overrides=typed, resolved={"trainer.threads": 2, "data.batch_size": 8})
    assert repeated(run, {"note": "it's a repetition", "paths.run_dir": "/new"}) == [
        *("model=tiny", "data=text_char", "data.path='my book.txt'", "++optimizer.lr=1e-3", "trainer.threads=2", "data.batch_size=8"),
        *("logger=none", "trainer.max_time=null", "note='it\\'s a repetition'", "paths.run_dir='/new'"),
    ]


def test_a_config_that_differs_in_a_number_is_refused_with_both(tmp_path: Path) -> None:
    other = record(tmp_path / "again", CONFIG.replace("lr: 0.001", "lr: 0.002"))
    with pytest.raises(RecordError, match=r"optimizer\.lr: was 0\.001, would be 0\.002"):
        refuse_another_config(record(tmp_path / "run"), other)


def test_places_and_hidden_secrets_are_no_difference(tmp_path: Path) -> None:
    other = CONFIG.replace("runs/a", "/elsewhere/a").replace("book.txt", "/moved/book.txt").replace("<secret>", "known")
    refuse_another_config(record(tmp_path / "run"), record(tmp_path / "again", other))


def test_a_damaged_config_is_told(tmp_path: Path) -> None:
    run = record(tmp_path / "run")
    for content in ("a: [", "- 1", ""):
        (run / "config.yaml").write_text(content)
        with pytest.raises(RecordError):
            refuse_another_config(run, record(tmp_path / f"again{len(content)}"))
    (run / "config.yaml").unlink()
    with pytest.raises(RecordError, match=r"missing or damaged"):
        refuse_another_config(run, run)
