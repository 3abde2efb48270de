"""The page of all runs: what it embeds parses back and cannot end its script; and what a browser makes of it, where Chromium is installed."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from gptshake.record.index import Entry, read_index
from gptshake.record.metrics import COLUMNS
from gptshake.record.run import Run
from gptshake.report.runs_page import INTERVALS, runs_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"))), None)
EVIL = "<img src=x onerror='window.hacked=1'></script><script>window.hacked=1</script><!--<script>&amp;\u202e\u0000"
FILTERS = {
    "": ["raaaaaaa", "rbbbbbbb", "rccccccc", "t0tttttt", "t1tttttt", "t2tttttt", "torn"],
    "BASE": ["raaaaaaa"],
    "status=ok excerpt106": ["raaaaaaa", "rbbbbbbb", "t0tttttt", "t2tttttt"],
    "optimizer.lr=2e-3": ["rbbbbbbb"],
    "model=TINY status=failed": ["rccccccc"],
    "t1tt": ["t1tttttt"],
    "study=rates n_layer=4": ["t0tttttt", "t1tttttt", "t2tttttt"],
    "status=broken": ["torn"],
    "nothing-has-this": [],
    "__proto__ constructor": [],
}


def made(
    path: Path, id: str, bpb: float, n: int = 50, status: str = "ok", note: str = "", text: str = "Text.", lr: float = 1e-3, **fields: Any
) -> None:
    """A run of ``n`` steps whose loss falls to ``bpb``."""
    config = f"seed: 1\noptimizer: {{lr: {lr}}}\nmodel: {{n_layer: 4}}\nnote: x\n"
    name = f"20261124-0031-tiny-wiki_char-excerpt106-lr{lr:.0e}-{id}"
    overrides = ["model=tiny", f"optimizer.lr={lr}"]
    provenance = {"choices": {"model": "tiny", "data": "wiki_char"}, "data": {"label": "excerpt106"}}
    run = Run.create(path, id=id, name=name, task="train", config_yaml=config, overrides=overrides, **provenance)
    for step in range(1, n + 1):
        row = {"step": step, "train/tokens": 64 * step, "train/loss": bpb + 5 / step, "perf/step_ms": 100.0}
        run.append_row(row | ({"val/loss": bpb + 1 / step, "val/bpb": bpb + (n - step) / n} if step % 10 == 0 else {}))
    for step in (0, n // 2, n):
        run.sample(step, 64 * step, f"{text} After {step}.")
    run.update(note=note, **fields)
    run.finish(status, "It went wrong." if status == "failed" else None, {"val/bpb": bpb, "train/tokens": 64 * n})


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    """Three runs, a sweep of three trials, one torn record; texts that want to be HTML in every place."""
    root = tmp_path_factory.mktemp("record")
    made(root / "runs/a", "raaaaaaa", 2.5, started=1e9, note="the base")
    made(root / "runs/b", "rbbbbbbb", 2.1, started=2e9, note=EVIL, text=EVIL, lr=2e-3, version="9.9")
    made(root / "runs/c", "rccccccc", 3.0, started=3e9, status="failed", lr=1e-1)
    for number, (bpb, status) in enumerate(((2.3, "ok"), (1.9, "pruned"), (2.0, "ok"))):
        trial = {"study": f"rates {EVIL}", "number": number, "repeat": 0, "params": {"optimizer.lr": 10.0**-number, EVIL: EVIL}}
        made(
            root / f"multirun/rates/{number}",
            f"t{number}ttttttt"[:8],
            bpb,
            started=2.5e9 + number,
            status=status,
            lr=10.0**-number,
            trial=trial,
        )
    (root / "runs/torn").mkdir()
    (root / "runs/torn/run.json").write_text("{<b>")
    os.utime(root / "runs/torn", (1e8, 1e8))
    return read_index([root / "runs", root / "multirun"])


HELPERS = """
const texts = (selector) => [...document.querySelectorAll(selector)].filter((node) => node.getClientRects().length)
  .map((node) => node.innerText ?? node.textContent);
const column = (name) => {
  const n = texts("#runs thead th").map((head) => head.replace(/[\\u2191\\u2193\\s]/g, "")).indexOf(name) + 1;
  return texts(`#runs tbody tr:not([hidden]) > :nth-child(${n})`);
};
const click = (selector) => [...document.querySelectorAll(selector)].find((node) => node.getClientRects().length).click();
const filter = (text) => { $("filter").value = text; $("filter").dispatchEvent(new Event("input")); };
const choose = (id, value) => { $(id).value = value; $(id).dispatchEvent(new Event("change")); };
"""


def seen(page: str, script: str, folder: Path, width: int = 1280) -> dict[str, Any]:
    """What a script sees that runs after the page's own in headless Chromium: its ``see`` as JSON."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    report = "see.errors = errors; see.requests = performance.getEntriesByType('resource').map((entry) => entry.name);"
    report += (
        "const other = make('script', { textContent: 'window.other = 1' }); document.body.append(other); see.other = window.other ?? null;"
    )
    first = "const errors = []; onerror = (e) => errors.push(e);"
    last = f"const see = {{}};{HELPERS}{script};{report} document.body.replaceChildren(JSON.stringify(see));"
    policy = page[page.index('<meta http-equiv="Content-Security-Policy"') : page.index('<meta name="viewport"')]
    ours = policy.replace("script-src ", f"script-src '{sha256_of(first)}' '{sha256_of(last)}' ")  # it stays in force
    page = page.replace(policy, f"{ours}<script>{first}</script>").replace("</body>", f"<script>{last}</script></body>")
    (folder / "runs.html").write_text(page, encoding="utf-8")
    flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={folder / 'profile'}", "--dump-dom")
    command = [CHROMIUM, *flags, f"--window-size={width},1400", (folder / "runs.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    found: dict[str, Any] = json.loads(unescape(re.findall(r"<body>(.*)</body>", done.stdout, re.DOTALL)[0]))
    assert found["errors"] == [] and found["requests"] == [] and found["other"] is None, "a script that is not the page's own ran"
    return found


def sha256_of(script: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


SCRIPT = """
see.ids = column("id"); see.states = column("status"); see.study = texts("tr.study th")[0]; see.best = texts("tr.study td.number")[0];
see.broken = texts("tr.broken small")[0]; see.why = texts("tr.failed td.why"); see.below = texts("tr.ok .name small");
see.count = texts("#count")[0]; see.readings = texts("#legend li output"); see.lines = texts("#plot .curve").length;
see.some = document.querySelector(".study input").indeterminate;
click(".fold"); see.trials = texts("tr.trial .name span"); click(".fold"); see.folded = texts("tr.trial");
click("#runs thead th:nth-child(5) button"); see.rising = column("val/bpb");
see.sorted = document.querySelector("#runs thead th:nth-child(5)").ariaSort;
click("#runs thead th:nth-child(5) button"); see.falling = column("val/bpb"); click(".fold"); see.inside = column("val/bpb");
see.filtered = Object.fromEntries(FILTERS.map((text) => { filter(text); return [text, [column("id").filter(Boolean).sort(), texts("#count")[0]]]; }));
filter("");
see.axes = Object.fromEntries(["tokens", "steps", "time"].map((axis) => { choose("x", axis); return [axis, texts("#plot .xtick").at(-1)]; }));
choose("y", "train/loss"); click("#logx"); click("#logy");
see.logarithmic = [texts("#plot .curve").length, texts("#plot .ytick").length > 1, $("plot").outerHTML.includes("NaN")];
click("#logx"); click("#logy"); choose("y", "val/bpb"); choose("x", "tokens");
const box = $("plot").getBoundingClientRect();
$("plot").dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + 50 + (box.width - 64) * 0.41, clientY: box.top + 100 }));
see.pointed = [texts("#legend li output"), $("legend").dataset.at];
click("#clear"); see.empty = [texts("#plot text"), texts("#legend li")];
for (const id of ["raaaaaaa", "rbbbbbbb", "torn"]) click(`input[aria-label$="${id}"]`);
const strokes = [...document.querySelectorAll("#plot .curve")].map((line) => line.getAttribute("stroke"));
see.ticked = [strokes.length, texts("#legend output"), new Set(strokes).size];
click("tr.study input"); see.all = texts("#plot .curve").length; click("#legend li button");
see.less = [texts("#plot .curve").length, document.querySelector("input[aria-label$=raaaaaaa]").checked];
click("#clear"); for (const id of ["raaaaaaa", "rbbbbbbb"]) click(`input[aria-label$="${id}"]`);
see.differences = Object.fromEntries(texts("#differences tbody tr").map((row) => [row.split("\\t")[0], row.split("\\t").slice(1)]));
see.least = texts("#differences td.least"); see.samples = texts("#samples pre"); choose("when", "0"); see.first = texts("#samples pre");
see.evil = [texts("tr.ok td.why").some((text) => text.includes("<img src=x")), window.hacked ?? null, document.images.length];
see.unreached = [...document.querySelectorAll("button, input, select, [tabindex]")].filter((node) => {
  node.focus(); return node.getClientRects().length && !node.disabled && document.activeElement !== node;
}).length;
""".replace("FILTERS", json.dumps([*FILTERS])).replace("\\\\", "\\")


@pytest.fixture(scope="module")
def page(entries: list[Entry], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a person sees who uses the page from top to bottom."""
    return seen(runs_page(entries), SCRIPT, tmp_path_factory.mktemp("page"))


def test_the_table_holds_every_run_the_newest_first_and_folds_trials(page: dict[str, Any]) -> None:
    assert [text for text in page["ids"] if text] == ["rccccccc", "rbbbbbbb", "raaaaaaa", "torn"]
    assert page["states"] == ["failed", "", "ok", "ok", "broken"]
    assert page["study"].startswith("rates <img src=x") and "3 trials · 2 ok, 1 pruned" in page["study"]
    assert page["best"] == "2.0000", "a pruned trial is not the best"
    assert page["broken"].endswith("is damaged: Expecting property name enclosed in double quotes: line 1 column 2 (char 1).")
    assert page["why"] == ["It went wrong."] and page["below"] == ["lr 0.002", "lr 0.001"]
    assert page["count"].startswith("7 runs · 1 study · as of 20")
    assert page["trials"] == ["trial 2", "trial 1", "trial 0"] and page["folded"] == []


def test_a_head_sorts_and_sorts_back(page: dict[str, Any]) -> None:
    assert page["rising"] == ["2.0000", "2.1000", "2.5000", "3.0000", ""] and page["sorted"] == "ascending"
    assert page["falling"] == ["3.0000", "2.5000", "2.1000", "2.0000", ""], "what has no value stays last"
    assert page["inside"] == ["3.0000", "2.5000", "2.1000", "2.0000", "2.3000", "2.0000", "1.9000", ""]


def test_the_filter_looks_for_words_in_names_notes_and_settings(page: dict[str, Any]) -> None:
    assert {text: ids for text, (ids, _) in page["filtered"].items()} == FILTERS
    assert all((f"{len(ids)} of 7 runs" if text else "7 runs") in page["filtered"][text][1] for text, ids in FILTERS.items())


def test_ticked_runs_are_laid_over_each_other(page: dict[str, Any]) -> None:
    assert page["readings"] == ["2.0000", "3.0000"] and page["lines"] == 2 and page["some"], "the best and the newest run at first"
    assert page["empty"] == [["Tick runs in the table to lay their curves over each other."], []]
    assert page["ticked"] == [2, ["2.5000", "2.1000", "no curve"], 2]
    assert page["all"] == 5 and page["less"] == [4, False]


def test_curves_go_over_tokens_steps_and_time_and_the_pointer_reads_them(page: dict[str, Any]) -> None:
    assert page["axes"] == {"tokens": "3k", "steps": "50", "time": "5 s"} and page["logarithmic"] == [2, True, False]
    assert page["pointed"] == [["2.6000", "3.6000"], "at 1.28k"]


def test_only_the_keys_that_differ_are_listed(page: dict[str, Any]) -> None:
    rows = page["differences"]
    assert rows["val/bpb"] == ["2.5000", "2.1000"] and page["least"] == ["2.1000", "2.1200"]
    assert {key: rows[key] for key in rows.keys() - {"val/bpb", "val/loss", "tokens", "time", "tokens/s"}} == {
        "optimizer.lr": ["1e-3", "2e-3"],
        "code": ["–", "9.9"],
    }


def test_samples_stand_side_by_side_and_texts_that_want_to_be_html_stay_texts(page: dict[str, Any]) -> None:
    assert page["samples"][0] == "Text. After 50." and page["first"][0] == "Text. After 0."
    assert page["samples"][1].startswith(EVIL[:40]) and page["evil"] == [True, None, 0]


def test_everything_can_have_the_focus(page: dict[str, Any]) -> None:
    assert page["unreached"] == 0


@pytest.mark.parametrize("width", [1280, 500])
def test_a_page_fits_its_window(entries: list[Entry], tmp_path: Path, width: int) -> None:
    script = "see.fits = [document.documentElement.scrollWidth <= innerWidth, $('plot').getBoundingClientRect().width > innerWidth / 2]"
    assert seen(runs_page(entries), script, tmp_path, width)["fits"] == [True, True]


def test_without_runs_the_page_says_so(tmp_path: Path) -> None:
    assert seen(runs_page([]), "see.count = texts('#count')[0]", tmp_path)["count"].startswith("0 runs")


def test_what_is_embedded_parses_back_and_ends_no_script(entries: list[Entry]) -> None:
    html = runs_page(entries)
    notes = [run["cells"][-1][0] for run in data_of(html)["runs"]]
    assert any(note.startswith("<img src=x onerror=") for note in notes) and "<img" not in html
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) == html.count("<script") == html.count("</script") == 2 and "<!--" not in html
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src '{sha256_of(scripts[1])}'"
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    assert html.count("Content-Security-Policy") == 1 and meta in html[: html.index("<script")], "no other script runs"


def test_the_page_needs_nothing_that_its_policy_forbids(entries: list[Entry]) -> None:
    html = runs_page(entries)
    markup, script = (
        re.sub(r"<(script|style).*?</\1>", "", html, flags=re.DOTALL),
        re.findall(r"<script>(.*?)</script>", html, re.DOTALL)[0],
    )
    assert not re.search(r"<[^>]*\s(on\w+|src|href)\s*=|javascript:|<(img|link|iframe|base|form)\b", markup)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|\bFunction\(|\bfetch\b|XMLHttp|\bimport\b|\burl\(http", script
    )


def test_what_answers_the_pointer_is_a_button_or_a_box_which_the_keyboard_toggles_too(entries: list[Entry]) -> None:
    html = runs_page(entries)
    script = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)[0]
    assert re.findall(r"(\S+)\.addEventListener\(\"click\"", script) == ['$("clear")']
    assert re.findall(r".*onclick.*", script) == [
        'const button = (properties, onclick) => make("button", { type: "button", onclick, ...properties });'
    ]
    assert '<button type="button" id="clear">' in html
    toggled = re.findall(r"(\S+)\.addEventListener\(\"(change|input)\"", script)
    assert toggled == [('$("filter")', "input"), ("$(id)", "change"), ('$("when")', "change")]
    assert 'item.box = make("input", { type: "checkbox", ariaLabel: label, onchange: ' in script and "tabIndex: -1" not in script
    assert "study.open = !study.open; show();" in script and "study.fold.ariaExpanded = String(study.open)" in script
    scrolling = re.findall(r'<div [^>]*role="region"[^>]*>', html)
    assert (
        len(scrolling) == 2
        and all('tabindex="0"' in tag for tag in scrolling)
        and 'make("pre", { textContent: text, tabIndex: 0 })' in script
    )


def data_of(html: str) -> Any:
    return json.loads(re.findall(r'<script type="application/json" id="data">(.*?)</script>', html)[0])


def test_a_long_curve_is_thinned_and_keeps_its_lowest_point(tmp_path: Path) -> None:
    made(tmp_path / "run", "raaaaaaa", 2.5)
    rows = [f"{n},{64 * n},{3.0 if n != 777 else 1.25},{3.0 if n != 778 else 1.5}" for n in range(1, 5001)]
    (tmp_path / "run/metrics.csv").write_text("\n".join(["step,train/tokens,val/loss,val/bpb", *rows]) + "\n")
    curves = data_of(runs_page(read_index([tmp_path])))["runs"][0]["curves"]
    assert set(curves) == {"val/loss", "val/bpb"} and len(curves["val/loss"]["y"]) <= 2 * INTERVALS
    assert min(curves["val/loss"]["y"]) == 1.25 and min(curves["val/bpb"]["y"]) == 1.5


@pytest.mark.parametrize(
    "content", ["", "nonsense", f"{','.join(COLUMNS)}\n1,2\n", "step,train/loss\n1,x\n", "step,train/tokens,val/bpb\n1,64,nan\n"]
)
def test_damaged_metrics_are_a_run_without_curves(tmp_path: Path, content: str) -> None:
    made(tmp_path / "run", "raaaaaaa", 2.5)
    (tmp_path / "run/metrics.csv").write_text(content)
    assert data_of(runs_page(read_index([tmp_path])))["runs"][0]["curves"] == {}


@pytest.mark.parametrize("junk", [None, 1, "x", [], {}, {"a": [1]}, float("nan"), 1e300, True, "\ud800"])
def test_a_record_with_odd_values_has_its_row(tmp_path: Path, junk: Any) -> None:
    made(tmp_path / "run", "raaaaaaa", 2.5)
    file = tmp_path / "run/run.json"
    info = json.loads(file.read_text())
    for key in ("started", "finished", "wall_s", "summary", "choices", "git", "data", "hardware", "note", "reason", "version", "trial"):
        file.write_text(json.dumps(info | {key: junk}))
        (run,) = data_of(runs_page(read_index([tmp_path])))["runs"]
        assert run["id"] == "raaaaaaa" and len(run["cells"]) == 10
    (tmp_path / "run/config.yaml").write_text("a: 2026-01-01\nb: .nan\n1: {2: .inf}\n")
    assert data_of(runs_page(read_index([tmp_path])))["runs"][0]["id"] == "raaaaaaa"


def test_what_all_runs_have_in_common_is_told_once(tmp_path: Path) -> None:
    for n, rate in enumerate((1e-3, 2e-3)):
        made(tmp_path / str(n), f"r{n}aaaaaa", 2.5, lr=rate, overrides=["model=tiny", "seed=7", f"optimizer.lr={rate}"])
    data = data_of(runs_page(read_index([tmp_path])))
    assert data["common"] == "seed 7" and {run["below"] for run in data["runs"]} == {"lr 0.001", "lr 0.002"}
    assert data["shared"]["model.n_layer"] == "4" and all("model.n_layer" not in run["config"] for run in data["runs"])


def test_the_same_runs_are_the_same_page(entries: list[Entry]) -> None:
    assert runs_page(entries) == runs_page(entries)
