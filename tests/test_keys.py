"""One table says which keys matter: the hash, the differences and the documentation agree with it, and only real keys have a row."""

import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from gptshake.config.compose import compose
from gptshake.config.layout import options
from gptshake.keys import CALLBACKS, RESULT, RESUME, STUDY, TABLE, is_free, not_free
from gptshake.record.index import flat
from gptshake.record.provenance import config_sha256
from gptshake.report.changes import changed_keys

CONFIG = ["model=tiny", "data=text_char", "data.path=a.txt", "callbacks=[noise_scale,notify]", "logger=wandb"]


def config(*overrides: str) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(compose([*CONFIG, *overrides]), resolve=True)
    return plain


def keys() -> list[str]:
    return [key for key in flat(config()) if not key.startswith("data.documents.") or key == "data.documents.cache"]


def changed(plain: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    cfg = OmegaConf.create(plain)
    OmegaConf.update(cfg, key, value, force_add=True)
    other: Any = OmegaConf.to_container(cfg)
    return other


@pytest.mark.parametrize("own", [False, True], ids=["packaged", "of the user's own"])
def test_hash_and_difference_agree_about_every_key_of_the_config(own: bool) -> None:
    base = config()
    for part in ("callbacks.samples", "data", "trainer") if own else ():
        base = changed(base, f"{part}._target_", "mine.Part")
    for key in keys():
        other = changed(base, key, "another")
        differs = bool(changed_keys(flat(base), flat(other)))
        assert (config_sha256(other) != config_sha256(base)) is differs, key
        part = next((part for part in ("callbacks.samples", "data", "trainer") if key.startswith(f"{part}.")), None)
        assert not (own and part) or differs, f"{key} of a part of the user's own may mean anything"


@pytest.mark.parametrize(
    ("key", "free"),
    [
        ("trainer.threads", {RESUME}),  # rounding
        ("data.micro_batch_size", set[str]()),  # rounding and the draws of dropout
        ("trainer.val_check_interval", set[str]()),  # which checkpoint is the best
        ("data.workers", {RESUME, RESULT, STUDY}),
        ("trainer.max_time", {RESUME}),
        ("trainer.limit_train_batches", set[str]()),  # added with +
        ("callbacks.mine.every", set[str]()),
        ("callbacks.samples.times", {RESUME, RESULT, STUDY}),
        ("noted", set[str]()),
    ],
)
def test_a_key_is_free_only_where_its_row_says_so(key: str, free: set[str]) -> None:
    assert {question for question in (RESUME, RESULT, STUDY) if is_free(key, question)} == free


def test_an_override_that_adds_code_of_the_users_own_is_part_of_a_study() -> None:
    free = ["callbacks=none", "callbacks.samples.times=1", "note=x", "paths.runs=r", "~callbacks.progress", "logger=none"]
    parts = ["callbacks=mine", "+callbacks.mine._target_=own.Mine", "callbacks.samples._target_=own.Samples", "notes=x", "optimizer.lr=1"]
    assert not_free([*free, *parts], STUDY) == parts


def test_every_row_names_a_key_of_the_config() -> None:
    there = {".".join(key.split(".")[:n]) for key in flat(config()) for n in (1, 2, 3)} | {"hydra"}
    assert set(TABLE) <= there
    assert sorted(CALLBACKS) == options("callbacks")


def test_the_page_about_records_lists_what_does_not_change_the_hash() -> None:
    page = (Path(__file__).parents[1] / "docs" / "records.md").read_text(encoding="utf-8")
    listed = re.search(r"leave out the same keys: (.*?)\.\n", page, re.DOTALL)
    assert listed and set(re.findall(r"`([^`]+)`", listed[1])) == {key for key, free in TABLE.items() if RESULT in free}
