"""A run directory received from somebody else, a working directory of somebody else's: nothing of it is run. Every attack would make ``marker``."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gptshake.config.compose_errors import checked_compose
from gptshake.config.overrides import check_trial_overrides, freeze, resumed_overrides, stored_overrides
from gptshake.errors import RecordError
from gptshake.record.index import read_entry
from gptshake.record.run import Run
from gptshake.tasks.clean import items
from gptshake.tasks.sync import upload

pytestmark = pytest.mark.slow

MAKE = "import os\nos.makedirs(os.environ['MARKER'], exist_ok=True)\n"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, commands: Any, small: tuple[str, ...]) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("theirs")
    done = commands(folder, *small, "trainer.max_steps=4")
    assert done.code == 0, done.err
    return next((folder / "runs").iterdir())


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What no command may make."""
    path = tmp_path / "marker"
    monkeypatch.setenv("MARKER", str(path))
    yield path
    assert not path.exists()


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be tampered with."""
    return Path(shutil.copytree(original, tmp_path / "run"))


def tamper(run: Path, *overrides: str, **changes: Any) -> None:
    info = json.loads((run / "run.json").read_text())
    info["overrides"] += overrides
    info["resolved"] |= changes.pop("resolved", {})
    (run / "run.json").write_text(json.dumps(info | changes))


CODE = (
    ("+callbacks.x._target_=os.mkdir", "+callbacks.x.path={marker}"),
    ("++callbacks.x={{_target_:os.mkdir,path:'{marker}'}}",),
    ("++callbacks={{a:{{b:[{{_target_:os.mkdir,path:'{marker}'}}]}}}}",),
    ("model._target_=os.mkdir", "+model.path={marker}"),
    ("+optimizer._args_=[{marker}]",),
    ("task._target_=os.mkdir",),
    ("task=reproduce",),
    ("task=sync",),
    ("task=mine",),
    ("+task.run='{marker}'",),
    ("hydra.run.dir={marker}",),
    ("hydra/launcher=joblib",),
    ("+hydra.callbacks.x={{_target_:os.mkdir,path:'{marker}'}}",),
    ("+hydra@x=default",),
    ("model=../../../../..{run}/evil",),
    ("experiment={run}/evil",),
    ("note=${{oc.env:MARKER}}",),
    ("+data.x='${{oc.create:{{_target_:os.mkdir}}}}'",),
    ("data.text_key='a ${{oc.env:HOME}}'",),
)


@pytest.mark.parametrize("attack", CODE, ids=lambda attack: attack[0])
def test_what_a_record_says_beyond_values_is_refused_by_name(
    attack: tuple[str, ...], run: Path, marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (run / "evil.yaml").write_text(f"_target_: os.mkdir\npath: {marker}\n")
    texts = [text.format(marker=marker, run=run) for text in attack]
    tamper(run, *texts)
    with pytest.raises(RecordError, match="From a record come values only") as refused:
        stored_overrides(run)
    assert f"has {texts[0]}: " in str(refused.value)


@pytest.mark.parametrize("reader", [("resume={run}",), ("task=sample", "task.run={run}"), ("task=noise_scale", "task.run={run}")])
def test_so_does_every_command_that_composes_a_record(
    reader: tuple[str, ...], run: Path, marker: Path, commands: Any, tmp_path: Path
) -> None:
    tamper(run, "+callbacks.x._target_=os.mkdir", f"+callbacks.x.path={marker}", "model._target_=os.mkdir")
    config = (run / "config.yaml").read_text()  # a network of one's own, whose config is needed to sample from it
    (run / "config.yaml").write_text(config.replace("_target_: gptshake.model.gpt.GPT", "_target_: os.mkdir"))
    done = commands(tmp_path, *(word.format(run=run) for word in reader))
    assert done.code == 2 and "has +callbacks.x._target_=os.mkdir" in done.error


@pytest.mark.parametrize(
    "resolved",
    [
        {"task._target_": "os.mkdir"},
        {"model": {"_target_": "os.mkdir"}},
        {"data.source=x,hydra.run.dir": 1},
        {"data.source": "${oc.env:HOME}"},
    ],
)
def test_what_auto_became_is_a_value_too(resolved: dict[str, Any], run: Path, marker: Path, light_commands: Any, tmp_path: Path) -> None:
    tamper(run, resolved=resolved)
    assert light_commands(tmp_path, f"resume={run}").code == 2


def test_what_is_typed_again_is_the_users_own_choice(run: Path, light_commands: Any, tmp_path: Path, marker: Path) -> None:
    tamper(run, "+callbacks.x._target_=os.mkdir", "note=${oc.env:MARKER}")
    done = light_commands(tmp_path, f"resume={run}", "+callbacks.x._target_=mine.Callback", "note=mine", "model.n_layer=3")
    assert done.code == 2 and "model.n_layer: was 1, would be 3" in done.error


def test_a_config_yaml_is_read_as_text(run: Path, marker: Path, commands: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESAME", "planted")
    config = (run / "config.yaml").read_text().replace("n_head: 2", "n_head: ${oc.env:SESAME}")
    (run / "config.yaml").write_text(config + "evil: !!python/object/apply:os.mkdir ['marker']\n")
    for words in (("task=sample", f"task.run={run}"), (f"resume={run}",), ("task=diff", f"task.runs=[{run},{run}]")):
        done = commands(tmp_path, *words)
        assert "planted" not in done.out + done.err


def test_no_file_of_a_run_is_unpickled(run: Path, marker: Path, commands: Any, tmp_path: Path) -> None:
    import hashlib
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(marker),)

    (folder,) = list((run / "checkpoints").glob("step-*"))[-1:]
    sums = json.loads((folder / "checksums.json").read_text())
    for name in ("model.safetensors", "state.safetensors"):
        (folder / name).write_bytes(pickle.dumps(Evil()))
        sums[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "checksums.json").write_text(json.dumps(sums))
    tokenizer = next((run / "tokenizer").iterdir())
    for words in (("task=sample", f"task.run={run}"), (f"resume={run}",)):
        assert commands(tmp_path, *words).code != 0
    tokenizer.write_bytes(pickle.dumps(Evil()))
    assert commands(tmp_path, "task=sample", f"task.run={run}").code == 2


def test_a_foreign_record_is_reproduced_only_with_trust_after_a_list_of_what_would_run(
    run: Path, marker: Path, light_commands: Any, tmp_path: Path
) -> None:
    (run / "untracked/src").mkdir(parents=True, exist_ok=True)
    (run / "untracked/src/evil.py").write_text(MAKE)
    (run / "diff.patch").write_text("diff --git a/src/gptshake/errors.py b/src/gptshake/errors.py\n")
    done = light_commands(tmp_path, "task=reproduce", f"task.run={run}")
    assert done.code == 2 and "task.trust=true" in done.error
    assert "src/evil.py" in done.error and "src/gptshake/errors.py" in done.error
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("change", [{"overrides": []}, {"environment": {"cwd": "/"}}, {"git": {"unversioned": "x"}}, {"seal": None}])
def test_a_record_that_was_edited_is_not_the_users_own(change: dict[str, Any], run: Path, light_commands: Any, tmp_path: Path) -> None:
    tamper(run, **change)
    done = light_commands(tmp_path, "task=reproduce", f"task.run={run}")
    assert done.code == 2 and "task.trust=true" in done.error


def test_a_record_of_another_user_is_told_by_the_key(run: Path, light_commands: Any, tmp_path: Path) -> None:
    done = light_commands(tmp_path, "task=reproduce", f"task.run={run}", GPTSHAKE_CACHE=str(tmp_path / "cache"))
    assert done.code == 2 and "was not made by you on this machine" in done.error
    assert (tmp_path / "cache.key").stat().st_mode & 0o777 == 0o600


def test_somebody_elses_record_does_not_become_the_users_own_by_going_on(original: Path, tmp_path: Path) -> None:
    from gptshake.record.run import is_made_here

    own, theirs = (Path(shutil.copytree(original, tmp_path / name)) for name in ("own", "theirs"))
    tamper(theirs, "seed=2")
    for path in (own, theirs):
        Run.open(path).update(resolved={"trainer.threads": 2})
    assert is_made_here(Run.open(own).info) and not is_made_here(Run.open(theirs).info)


def test_a_foreign_study_runs_nothing_of_its_own(marker: Path, commands: Any, tmp_path: Path, small: tuple[str, ...]) -> None:
    words = (
        *small,
        "-m",
        "seed=1,2",
        "trainer.max_steps=2",
        "study=s",
        "hydra.sweeper.executor.slots=1",
        "hydra.sweeper.executor.threads=1",
    )
    assert commands(tmp_path, *words).code == 0
    study = tmp_path / "multirun/s"
    rows = json.loads((study / "study.json").read_text())
    rows["frozen"] += ["+callbacks.x._target_=os.mkdir", f"+callbacks.x.path={marker}"]
    (study / "study.json").write_text(json.dumps(rows))
    journal = (study / "journal.log").read_text().splitlines()
    (study / "journal.log").write_text("\n".join(line for line in journal if '"op_code":6' not in line) + "\n")  # no trial has ended
    for path in ("0", "1"):
        shutil.rmtree(study / path)
    done = commands(tmp_path, *words)
    assert done.code == 1 and "From a record come values only" in done.err
    rows["trials"][0]["runs"][0]["path"] = "../../theirs"
    (study / "study.json").write_text(json.dumps(rows))
    done = commands(tmp_path, *words)
    assert done.code == 2 and "not a path inside of the study" in done.error


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """A working directory with plugins for Hydra, as a module and as a package."""
    (tmp_path / "here/hydra_plugins/more").mkdir(parents=True)
    for name in ("evil.py", "more/__init__.py", "more/evil.py"):
        (tmp_path / "here/hydra_plugins" / name).write_text(MAKE)
    return tmp_path / "here"


@pytest.mark.parametrize("first", ["", "import sys; sys.path.insert(0, '')", "import os, sys; sys.path.insert(0, os.getcwd())"])
@pytest.mark.parametrize(
    "words",
    [
        ("--cfg", "job"),
        ("--info", "plugins"),
        ("model=tiny", "data=wiki_char", "--cfg", "job"),
        ("model=tinny",),
        ("task=runs",),
        ("--shell-completion", "query=bash"),
        ("-m", "seed=1,2"),
    ],
)
def test_plugins_in_the_working_directory_are_never_loaded(
    first: str, words: tuple[str, ...], plugins: Path, marker: Path, light_commands: Any
) -> None:
    light_commands(plugins, *words, before=first, COMP_LINE="gptshake model=", COMP_POINT="15")


@pytest.mark.parametrize(
    "python",
    [[sys.executable, "-m", "gptshake"], [sys.executable, "-P", "-m", "gptshake"], [str(Path(sys.executable).with_name("gptshake"))]],
)
def test_no_entry_point_loads_them_and_files_of_the_users_own_are_found_all_the_same(
    python: list[str], plugins: Path, marker: Path
) -> None:
    (plugins / "mine.py").write_text("def run(context):\n    print('mine ran')\n")
    (plugins / "conf/task").mkdir(parents=True)
    (plugins / "conf/task/mine.yaml").write_text("_target_: mine.run\ntrains: false\n")
    done = subprocess.run([*python, "task=mine"], cwd=plugins, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and "mine ran" in done.stdout, done.stderr


def test_places_in_a_record_are_not_written_to(run: Path, marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tamper(run, f"paths.run_dir={marker}", f"paths.cache={marker}", f"++data.documents.cache={marker}", f"paths.runs={marker}")
    places = {"paths.run_dir": str(marker), "paths.cache": str(marker), "data.documents.cache": str(marker)}
    tamper(run, f"data.documents={{cache:{marker}}}", resolved=places, extended=places)
    assert not any(str(marker) in text for text in resumed_overrides(run))
    cfg = checked_compose(["model=tiny", "data=text_char", "data.path=book.txt"])
    freeze(cfg, run)
    assert str(marker) not in str(cfg)
    with pytest.raises(RecordError, match="where a run writes is not taken from its files"):
        check_trial_overrides([f"paths.cache={marker}"], run, ())


@pytest.mark.parametrize("line", ["callbacks: {x: {_target_: os.mkdir}}", "note: ${oc.env:HOME}", "paths: {cache: /marker}"])
def test_the_best_yaml_of_a_study_holds_values_only(line: str, light_commands: Any, tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("{}")
    (tmp_path / "best.yaml").write_text(f"optimizer: {{lr: 1e-3}}\n{line}\n")
    words = ("model=tiny", "data=wiki_char", f"experiment={tmp_path}/best.yaml")
    done = light_commands(tmp_path, *words)
    assert done.code == 2 and "From a record come values only" in done.error


@pytest.mark.parametrize(
    "key, value", [("id", "x/../../marker"), ("name", "../marker"), ("id", "x,hydra.run.dir=y"), ("id", "${oc.env:HOME}")]
)
def test_a_name_in_a_record_is_no_path(key: str, value: str, run: Path, light_commands: Any, tmp_path: Path) -> None:
    tamper(run, **{key: value})
    done = light_commands(tmp_path, f"resume={run}")
    assert done.code == 2 and f"{key} cannot be part of a path" in done.error


def test_nothing_is_written_or_removed_through_a_link(run: Path, original: Path, light_commands: Any, tmp_path: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").symlink_to(original / "checkpoints")
    kept = sorted(path.name for path in (original / "checkpoints").iterdir())
    for words in ((f"resume={run}", "trainer.max_steps=8"), ("task=note", f"task.run={run}", "task.text=x")):
        done = light_commands(tmp_path, *words)
        assert done.code == 2 and f"checkpoints is a link to {original / 'checkpoints'}" in done.error
    assert sorted(path.name for path in (original / "checkpoints").iterdir()) == kept


@pytest.mark.parametrize("place", [".", "work", "work/file"])
def test_a_folder_with_other_files_is_refused_before_anything_is_written(
    place: str, light_commands: Any, tmp_path: Path, small: tuple[str, ...]
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/file").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    done = light_commands(tmp_path, *small, f"paths.run_dir={place}")
    assert done.code == 2 and f"paths.run_dir={place} is " in done.error
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / "work/file").read_text() == "mine"


def test_a_study_is_not_put_among_other_files(commands: Any, tmp_path: Path, small: tuple[str, ...]) -> None:
    (tmp_path / "multirun/mine").mkdir(parents=True)
    (tmp_path / "multirun/mine/file").write_text("mine")
    done = commands(tmp_path, *small, "-m", "seed=1,2", "study=mine")
    assert done.code == 2 and "is neither empty nor a study: it holds file" in done.error
    assert [path.name for path in (tmp_path / "multirun/mine").iterdir()] == ["file"]


@pytest.mark.parametrize("text", ["5\n", "- a\n", "a: b: c\n"])
def test_a_config_of_no_keys_is_a_sentence(text: str, run: Path, light_commands: Any, tmp_path: Path, small: tuple[str, ...]) -> None:
    for file in (run / "config.yaml", tmp_path / "recipe.yaml"):
        file.write_text(text)
    assert "config.yaml is missing or damaged (" in light_commands(tmp_path, f"resume={run}").error
    assert "recipe.yaml is not a config: " in light_commands(tmp_path, *small, f"experiment={tmp_path}/recipe.yaml").error


def test_no_text_of_a_record_commands_a_terminal(run: Path, commands: Any, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "other")
    tamper(run, git={"commit": "\x1b[2J" * 9, "untracked": {"a": "\x1b[2J"}}, id="x1")
    done = commands(tmp_path, "task=diff", f"task.runs=[{run},{tmp_path}/other]")
    assert done.code == 0 and "\x1b" not in done.out + done.err


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)  # 9 ** 9 values
DEEP = "a: " + 20_000 * "[" + 20_000 * "]" + "\n"


@pytest.mark.parametrize(
    "text, why", [(BOMB, "most of them through aliases"), (DEEP, "nested more than 50 deep"), ((1 << 20) * "x: ", "more than 1,048,576")]
)
def test_a_config_that_would_take_all_memory_is_refused_with_a_sentence(
    text: str, why: str, run: Path, light_commands: Any, tmp_path: Path, small: tuple[str, ...]
) -> None:
    (run / "config.yaml").write_text(text)
    done = light_commands(tmp_path, f"resume={run}")
    assert done.code == 2 and why in done.error
    assert light_commands(tmp_path, "task=runs", f"paths.runs={tmp_path}").code == 0
    (tmp_path / "recipe.yaml").write_text(text)
    done = light_commands(tmp_path, *small, f"experiment={tmp_path}/recipe.yaml")
    assert done.code == 2 and "recipe.yaml" in done.error and why in done.error
    (tmp_path / "conf/model").mkdir(parents=True)
    (tmp_path / "conf/model/big.yaml").write_text(text)
    for words in ((*small, "model=big"), ("model=big", "--cfg", "job")):
        done = light_commands(tmp_path, *words)
        assert done.code == 2 and "conf/model/big.yaml cannot be loaded" in done.error and why in done.error


@pytest.mark.parametrize(("text", "why"), [("\ufeff# @package _global_\n", "byte order mark"), ('a: "\0"\n', "control character '\\x00'")])
def test_a_config_that_hydra_would_read_otherwise_or_not_at_all_is_refused(
    text: str, why: str, light_commands: Any, tmp_path: Path
) -> None:
    (tmp_path / "conf/model").mkdir(parents=True)
    (tmp_path / "conf/model/mine.yaml").write_text(text, encoding="utf-8")
    done = light_commands(tmp_path, "model=mine", "data=wiki_char")
    assert done.code == 2 and "conf/model/mine.yaml" in done.error and why in done.error


def test_a_record_that_never_ends_is_broken_and_not_waited_for(run: Path, light_commands: Any, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    run = run.rename(tmp_path / "runs/one")
    for name in ("config.yaml", "run.json"):
        (run / name).unlink()
        os.mkfifo(run / name)
        assert light_commands(tmp_path, "task=runs").code == 0


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_in_a_record_is_neither_waited_for_nor_a_traceback(
    make: Any, run: Path, light_commands: Any, tmp_path: Path
) -> None:
    (tmp_path / "runs").mkdir()
    run = run.rename(tmp_path / "runs/one")
    for name in ("notes.jsonl", "samples.md", "metrics.csv", "lease.json", "run.lock", "diff.patch"):
        (run / name).unlink(missing_ok=True)
        make(run / name)
    for words in (("task=runs",), ("task=journal",), ("task=diff", "task.runs=[one,one]"), ("task=report", "task.run=one")):
        done = light_commands(tmp_path, *words)
        assert "Traceback" not in done.err, done.err
    for words in (("task=note", "task.run=one", "task.text=x"), ("task=reproduce", "task.run=one")):
        assert light_commands(tmp_path, *words).error


@pytest.mark.parametrize("name", ["tokenizer/tokenizer.json", "checkpoints/step-00000004/model.safetensors"])
def test_nor_is_it_where_weights_are_read(name: str, run: Path, commands: Any, tmp_path: Path) -> None:
    (run / name).unlink()
    os.mkfifo(run / name)
    for task in ("sample", "export"):
        assert "is not a regular file" in commands(tmp_path, f"task={task}", f"task.run={run}").error


@pytest.mark.parametrize(
    "key, value", [("n_layer", "1000000"), ("n_layer", "x"), ("n_head", "null"), ("n_embd", "64"), ("block_size", "0")]
)
def test_a_shape_that_its_weights_do_not_have_is_a_sentence(key: str, value: str, run: Path, commands: Any, tmp_path: Path) -> None:
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(re.sub(rf"{key}: \d+", f"{key}: {value}", config))
    assert "config.yaml" in commands(tmp_path, "task=sample", f"task.run={run}").error


def test_what_a_link_of_a_record_points_to_is_not_uploaded(run: Path, tmp_path: Path) -> None:
    (tmp_path / "id_rsa").write_text("mine")
    (run / "plots").mkdir(exist_ok=True)
    (run / "plots/x.png").symlink_to(tmp_path / "id_rsa")
    with pytest.raises(RecordError, match=r"x\.png is a link"):
        upload(read_entry(run))


def test_a_run_that_is_linked_to_is_not_offered_for_removal(run: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/theirs").symlink_to(run)
    assert items(tmp_path / "runs", tmp_path / "multirun", tmp_path / "cache") == []
    shutil.copytree(run, tmp_path / "runs/own")
    assert [item.path for item in items(tmp_path / "runs", tmp_path / "multirun", tmp_path / "cache")] == [
        tmp_path / "runs/own/checkpoints"
    ]
