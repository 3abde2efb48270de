import json
import random
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from omegaconf import OmegaConf
from PIL import Image

import gptshake
from gptshake.config.compose import compose
from gptshake.errors import ConfigError, GptshakeError, RecordError
from gptshake.record.lock import RunLock
from gptshake.report.pages import write_study_page
from gptshake.report.study_stats import best, differences
from gptshake.report.study_text import best_yaml
from gptshake.tasks import report as task

Make = Callable[..., dict[str, Any]]
Lay = Callable[[Path, dict[str, Any]], Path]


def names(files: list[Path]) -> set[str]:
    return {file.name for file in files}


def pictures(*stems: str) -> set[str]:
    return {f"{stem}.{suffix}" for stem in stems for suffix in ("png", "svg")}


def test_a_line_gives_basin_curves_timeline_page_and_recipe(tmp_path: Path, line: Make, lay: Lay) -> None:
    files = write_study_page(lay(tmp_path / "study", line()))
    assert names(files) == pictures("basin", "curves", "timeline") | {"report.html", "best.yaml"}
    assert all(file.is_file() for file in files) and not list(tmp_path.rglob(".*"))
    with Image.open(tmp_path / "study/plots/basin.png") as image:
        assert image.size[0] == 1600


def test_two_axes_give_a_map_too(tmp_path: Path, grid: Make, lay: Lay) -> None:
    assert pictures("basin", "map", "time") < names(write_study_page(lay(tmp_path / "study", grid())))


def test_a_comparison_gives_a_forest_and_no_basin(tmp_path: Path, compared: Make, lay: Lay) -> None:
    folder = lay(tmp_path / "study", compared())
    assert names(write_study_page(folder)) == pictures("ablate", "curves", "timeline") | {"report.html", "best.yaml"}
    page = (folder / "report.html").read_text()
    assert "<th>difference</th>" in page and "<td>-0.1050</td><td>0.0029</td>" in page


def test_the_same_study_is_the_same_report_byte_for_byte(tmp_path: Path, line: Make, lay: Lay) -> None:
    folder = lay(tmp_path / "study", line())
    before = {file: file.read_bytes() for file in write_study_page(folder)}
    assert {file: file.read_bytes() for file in write_study_page(folder)} == before


class Links(HTMLParser):
    """Collects what a page refers to, and whether its tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.targets += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data", "action")]
        self.ids += [found["id"] or ""] if "id" in found else []
        if tag not in ("meta", "br", "link", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_but_itself(tmp_path: Path, grid: Make, lay: Lay) -> None:
    folder = lay(tmp_path / "study", grid())
    write_study_page(folder)
    page = (folder / "report.html").read_text()
    links = Links()
    links.feed(page)
    assert links.open == [] and page.count("<svg") == 5
    assert len(links.ids) == len(set(links.ids))
    assert {target[0] for target in links.targets} == {"#"} and {target[1:] for target in links.targets} <= set(links.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", page)) <= set(links.ids)
    assert not re.search(r"https?:|<script|@import|<link", page)


def test_the_page_says_what_the_terminal_says_and_escapes_it(tmp_path: Path, line: Make, lay: Lay, rows: SimpleNamespace) -> None:
    more = [rows.trial(8, {"optimizer.lr": 1e-2}, [None], "failed", reason="<b>&'broken'")]
    folder = lay(tmp_path / "study", line(more=more, label="a <i> label", fixed=["note=<script>"]))
    write_study_page(folder)
    page = (folder / "report.html").read_text()
    assert "The best is trial 4" in page and "optimizer.lr=0.002" in page and "<td>2.2500</td>" in page
    assert "&lt;b&gt;&amp;&#x27;broken&#x27;" in page and "a &lt;i&gt; label" in page
    assert not re.search(r"<b>|<i>|<script", page)


def test_a_study_without_trials_has_a_page_and_no_recipe(tmp_path: Path, rows: SimpleNamespace, lay: Lay) -> None:
    assert names(write_study_page(lay(tmp_path / "study", rows.study([rows.LR], [], state="running")))) == {"report.html"}


@pytest.mark.parametrize("rates", [[1e-3], [1e-3, 2e-3]])
def test_a_study_of_few_trials_has_its_report(tmp_path: Path, line: Make, lay: Lay, rates: list[float]) -> None:
    assert {"basin.png", "best.yaml"} < names(write_study_page(lay(tmp_path / "study", line(rates=rates))))


def test_a_study_at_work_has_its_report(tmp_path: Path, line: Make, lay: Lay, rows: SimpleNamespace) -> None:
    waiting = rows.trial(9, {"optimizer.lr": 3e-3}, [None, None], "running", run_started=None, run_ended=None, run_state="waiting")
    running = rows.trial(8, {"optimizer.lr": 3e-3}, [None], "running", run_ended=None, run_tokens=None, run_tokens_per_s=None)
    folder = lay(tmp_path / "study", line(more=[running, waiting], state="running", n_trials=None))
    assert pictures("timeline", "curves", "basin") < names(write_study_page(folder))


def test_only_lost_trials_have_a_timeline_and_no_winner(tmp_path: Path, lay: Lay, rows: SimpleNamespace) -> None:
    trials = [rows.trial(n, {"optimizer.lr": 1e-3}, [None], state) for n, state in enumerate(("pruned", "diverged", "failed", "stopped"))]
    assert names(write_study_page(lay(tmp_path / "study", rows.study([rows.LR], trials)))) == pictures("curves", "timeline") | {
        "report.html"
    }


@pytest.mark.parametrize("content", [None, "a,b\n1,2\n", "step\nnonsense\n"])
def test_runs_of_another_app_are_left_out_of_the_curves(tmp_path: Path, line: Make, lay: Lay, content: str | None) -> None:
    folder = lay(tmp_path / "study", line(objective="cost"))
    for file in folder.rglob("metrics.csv"):
        file.unlink() if content is None else file.write_text(content)
    assert names(write_study_page(folder)) == pictures("basin", "timeline") | {"report.html", "best.yaml"}


def test_words_and_numbers_swept_together_are_drawn(tmp_path: Path, lay: Lay, rows: SimpleNamespace) -> None:
    axes = [rows.axis("scheduler", choices=["gpt3", "cosine"]), rows.axis("optimizer.lr", choices=[1e-3, 2e-3])]
    points = [(word, rate) for word in ("gpt3", "cosine") for rate in (1e-3, 2e-3)]
    trials = [rows.trial(n, {"scheduler": word, "optimizer.lr": rate}, [2.0 + n, 2.1 + n]) for n, (word, rate) in enumerate(points)]
    assert "basin.svg" in names(write_study_page(lay(tmp_path / "study", rows.study(axes, trials, repeats=2))))


def test_very_many_settings_of_another_axis_are_one_cloud(tmp_path: Path, lay: Lay, rows: SimpleNamespace) -> None:
    axes = [rows.LR, rows.axis("optimizer.weight_decay", low=0.0, high=1.0)]
    trials = [rows.trial(n, {"optimizer.lr": 1e-4 * 1.3**n, "optimizer.weight_decay": 0.017 * n}, [3.0 + n]) for n in range(50)]
    assert pictures("basin", "map") < names(write_study_page(lay(tmp_path / "study", rows.study(axes, trials))))


@pytest.mark.parametrize("text", [None, "{", "[]", '{"name": "x"}'])
def test_what_is_no_study_is_a_sentence(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "study.json").write_text(text)
    with pytest.raises(RecordError, match=r"study\.json"):
        write_study_page(tmp_path)


FIXED = [
    "model=tiny",
    "data=wiki_char",
    "scheduler=gpt3",
    "logger=null",
    "hydra.verbose=true",
    "paths.multirun=/somewhere",
    "dirty=true",
    "optimizer.betas=[0.9, 0.95]",
    "trainer.max_steps=200",
    "trainer.max_tokens=null",
    "++trainer.deep.er=1e-5",
    "note='a: \"b\", it\\'s'",
    "deterministic=true",
    "~callbacks.samples",
    "scheduler.warmup=0.5",
    "data.path='007'",
]


def test_the_recipe_holds_every_value_with_its_type(tmp_path: Path, line: Make, lay: Lay) -> None:
    folder = lay(tmp_path / "study", line(fixed=FIXED))
    write_study_page(folder)
    text = (folder / "best.yaml").read_text()
    assert text.startswith("# @package _global_\n# Study tiny-wiki_char-ab12, trial 4: val/bpb 2.2500, 1.2M tokens.\n")
    assert "# Cannot be said in a file, so add it to the command line: ~callbacks.samples" in text
    assert OmegaConf.to_container(OmegaConf.create(text)) == {
        "defaults": [
            {"override /model": "tiny"},
            {"override /data": "wiki_char"},
            {"override /scheduler": "gpt3"},
            {"override /logger": None},
        ],
        "optimizer": {"betas": [0.9, 0.95], "lr": 0.002},
        "trainer": {"max_steps": 200, "max_tokens": None, "deep": {"er": 1e-5}},
        "note": 'a: "b", it\'s',
        "deterministic": True,
        "scheduler": {"warmup": 0.5},
        "data": {"path": "007"},
    }


def test_the_recipe_names_the_schedule_of_its_run_which_nobody_typed(
    tmp_path: Path, line: Make, lay: Lay, record: Callable[..., Any]
) -> None:
    folder = lay(tmp_path / "study", line())
    shutil.copytree(record("a1b2c3d4", choices={"scheduler": "linear"}).path, folder / "4", dirs_exist_ok=True)
    write_study_page(folder)
    recipe = OmegaConf.load(folder / "best.yaml")
    assert {"override /scheduler": "linear"} in recipe.defaults


def test_the_recipe_is_an_experiment_of_hydras(tmp_path: Path, line: Make, lay: Lay, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = [
        "experiment=demo",
        "debug=smoke",
        "scheduler=gpt3",
        "trainer.max_steps=7",
        "data.batch_size=4",
        "note='off'",
        "scheduler.floor=0.2",
    ]
    folder = lay(tmp_path / "study", line(fixed=fixed))
    write_study_page(folder)
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (folder / "best.yaml").rename(tmp_path / "conf/experiment/best.yaml")
    monkeypatch.chdir(tmp_path)
    assert compose(["experiment=best"]) == compose([*fixed, "optimizer.lr=0.002"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-3", -3),
        ("1_000", 1000),
        ("1e-5", 1e-5),
        ("1.", 1.0),
        (".5", 0.5),
        ("inf", float("inf")),
        ("true", True),
        ("null", None),
        ("", ""),
        ("off", "off"),
        ("1.2.3", "1.2.3"),
        ("a b", "a b"),
        ("'1'", "1"),
        (r"'it\'s'", "it's"),
        (r"'C:\dir\\'", "C:\\dir\\"),
        ('"x"', "x"),
        ("[]", []),
        ("[1, a,'b,]',null]", [1, "a", "b,]", None]),
        ("[[1,2],[3]]", [[1, 2], [3]]),
        ("{a:1,b: [2,x],c:{e:f}}", {"a": 1, "b": [2, "x"], "c": {"e": "f"}}),
        ("${a.b}", "${a.b}"),
        ("[${oc.env:A,'x'},2]", ["${oc.env:A,'x'}", 2]),
    ],
)
def test_the_recipe_holds_values_as_hydra_reads_them(text: str, value: Any, line: Make) -> None:
    study = line(fixed=[f"x={text}"])
    winner = best(study)
    assert winner is not None
    read = yaml.safe_load(best_yaml(study, winner))["x"]
    assert read == value and type(read) is type(value)


@pytest.fixture
def asked(tmp_path: Path, line: Make, lay: Lay) -> Callable[[Any], None]:
    """Run the task for a name, with two studies to be found."""
    for name in ("tiny-wiki_char-ab12", "tiny-text-cd34"):
        lay(tmp_path / name, line(name=name))

    def ask(name: Any) -> None:
        task.run(cast(Any, SimpleNamespace(config=OmegaConf.create({"study": name, "paths": {"multirun": str(tmp_path)}}))))

    return ask


def test_the_task_prints_the_answer_and_its_files(asked: Callable[[Any], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked("tiny-text-cd34")
    out = capsys.readouterr().out
    for part in ("The best is trial 4", "*      4  ok", "optimizer.lr", "report.html", "best.yaml", "basin.png"):
        assert part in out
    asked(tmp_path / "tiny-text-cd34")
    assert capsys.readouterr().out == out


def test_the_task_wants_a_study(asked: Callable[[Any], None]) -> None:
    with pytest.raises(ConfigError, match="study="):
        asked(None)


def test_a_study_that_is_not_there_is_answered_with_the_nearest(asked: Callable[[Any], None], tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="did you mean tiny-text-cd34"):
        asked("tiny-text-cd3")
    with pytest.raises(RecordError, match="there is tiny-text-cd34, tiny-wiki_char-ab12"):
        asked("zzz")


def test_a_study_is_read_again_at_every_report(tmp_path: Path, line: Make, lay: Lay) -> None:
    folder = lay(tmp_path / "study", line())
    write_study_page(folder)
    (folder / "study.json").write_text(json.dumps(line(loss=lambda rate: 3.0 - rate)))
    write_study_page(folder)
    assert OmegaConf.load(folder / "best.yaml").optimizer.lr == 1.6e-2


@pytest.mark.parametrize(("changes", "seeds"), [(5, 3), (10, 3), (10, 5)])
def test_a_comparison_of_pure_noise_claims_a_difference_in_at_most_one_study_of_twenty(changes: int, seeds: int, rows: Any) -> None:
    """Without Holm's correction about 12 % of studies with 5 changes, and 21 % with 10, called one of them better."""
    draw, claimed, studies = random.Random(f"{changes} {seeds}"), 0, 400
    labels = ["base", *(f"a={n}" for n in range(changes))]
    for _ in range(studies):
        trials = [rows.trial(n, {"ablate": label}, [draw.gauss(2.3, 0.01) for _ in range(seeds)]) for n, label in enumerate(labels)]
        study = rows.study([rows.axis("ablate", choices=labels)], trials, ablate={"labels": labels}, repeats=seeds)
        claimed += any(row.verdict in ("better", "worse") for row in differences(study))
    assert claimed / studies <= 0.05 + 2 * (0.05 * 0.95 / studies) ** 0.5  # two standard errors of the simulation


def test_only_the_page_of_a_study_at_work_reloads_itself(tmp_path: Path, line: Make, lay: Lay) -> None:
    for name, state, reloads in (("at work", "running", True), ("killed", "running", False), ("done", "done", False)):
        lock = RunLock(lay(tmp_path / name, line(state=state)))
        if name == "killed":
            lock.release()
        write_study_page(tmp_path / name)
        assert ('http-equiv="refresh"' in (tmp_path / name / "report.html").read_text()) is reloads, name
        if name != "killed":
            lock.release()


def test_a_study_from_python_has_its_trials_its_best_and_its_interval(tmp_path: Path, line: Make, lay: Lay, rows: SimpleNamespace) -> None:
    failed = rows.trial(8, {"optimizer.lr": 3e-2}, [None], "failed")
    study = gptshake.load_study(lay(tmp_path / "study", line(more=[failed])))
    assert list(study.trials["optimizer.lr"][:2]) == [1.25e-4, 2.5e-4] and list(study.trials["state"][-2:]) == ["ok", "failed"]
    assert study.best == {"optimizer.lr": 2e-3, "value": 2.25, "number": 4}
    assert study.interval and study.interval[0] < 2e-3 < study.interval[1]
    assert study.run().path == study.path / "4" and study.run(0).path == study.path / "0"
    with pytest.raises(ConfigError, match="study has no trial 9 that has begun; it has 9 trials"):
        study.run(9)
    few = gptshake.load_study(lay(tmp_path / "few", rows.study([rows.LR], [failed])))
    assert few.interval is None
    for ask in (lambda: few.best, few.run):
        with pytest.raises(GptshakeError, match="No trial of few has finished with a value"):
            ask()
