"""The page of all runs, opened in a real browser and used as a person would: with the pointer and with the keyboard."""

import json
import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gptshake.record.index import Entry, read_index
from gptshake.record.metrics import COLUMNS
from gptshake.record.run import Run
from gptshake.report.runs_page import INTERVALS, runs_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"))), None)
EVIL = "<img src=x onerror='window.hacked=1'></script><script>window.hacked=1</script>&amp;\u202e\u0000"


class Browser:
    """A page in headless Chromium, over its debugging pipe: pointer, keys, what is visible, and everything that went wrong."""

    def __init__(self, profile: Path) -> None:
        flags = (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
        )
        pipe = ("sh", "-c", 'exec "$@" 3<&0 4>&1 >/dev/null', "sh", str(CHROMIUM), *flags, "about:blank")
        self._process = subprocess.Popen(pipe, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._n, self._rest, self._session = 0, b"", ""
        self.events: list[dict[str, Any]] = []
        page = next(target for target in self.send("Target.getTargets")["targetInfos"] if target["type"] == "page")
        self._session = self.send("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        self._n += 1
        message = {"id": self._n, "method": method, "params": params} | ({"sessionId": self._session} if self._session else {})
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\0")
        self._process.stdin.flush()
        while (answer := self._read()).get("id") != self._n:
            self.events.append(answer)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while b"\0" not in self._rest:
            assert select.select([self._process.stdout], [], [], 60)[0], "the browser does not answer"
            more = self._process.stdout.read1()
            assert more, "the browser is gone"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def open(self, page: Path, width: int = 1280) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=1400, deviceScaleFactor=1, mobile=width < 600)
        self.events.clear()
        self.send("Page.navigate", url=page.as_uri())
        limit = time.monotonic() + 60
        while self.js("document.readyState") != "complete":
            assert time.monotonic() < limit
        self.js("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")  # it knows its width by then

    def js(self, expression: str) -> Any:
        done = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def click(self, selector: str) -> None:
        """Press the pointer in the middle of the first visible element that matches."""
        found = f"[...document.querySelectorAll({json.dumps(selector)})].find((node) => node.offsetParent)"
        self.js(f"{found}.scrollIntoView({{block: 'center'}})")
        place = self.js(f"(({{x, y, width, height}}) => ({{x: x + width / 2, y: y + height / 2}}))({found}.getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def press(self, key: str, code: int) -> None:
        text = {"text": " "} if key == " " else {}
        for kind in ("keyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **(text if kind == "keyDown" else {})
            )

    def fill(self, selector: str, text: str) -> None:
        self.js(f"document.querySelector({json.dumps(selector)}).select()")
        self.send("Input.insertText", text=text) if text else self.press("Backspace", 8)

    def choose(self, selector: str, value: str) -> None:
        node = f"document.querySelector({json.dumps(selector)})"
        self.js(f"{node}.value = {json.dumps(value)}; {node}.dispatchEvent(new Event('change'))")

    def texts(self, selector: str) -> list[str]:
        """The visible text of every visible element that matches."""
        found: list[str] = self.js(
            f"[...document.querySelectorAll({json.dumps(selector)})].filter((node) => node.getClientRects().length)"
            ".map((node) => node.innerText ?? node.textContent)"
        )
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def made(
    path: Path, id: str, bpb: float, n: int = 50, status: str = "ok", note: str = "", text: str = "Text.", lr: float = 1e-3, **fields: Any
) -> None:
    """A run of ``n`` steps whose loss falls to ``bpb``."""
    config = f"seed: 1\noptimizer: {{lr: {lr}}}\nmodel: {{n_layer: 4}}\nnote: x\n"
    name = f"20261124-0031-tiny-wiki_char-excerpt106-lr{lr:.0e}-{id}"
    overrides = ["model=tiny", f"optimizer.lr={lr}"]
    provenance = {"choices": {"model": "tiny", "data": "wiki_char"}, "data": {"label": "excerpt106"}}
    run = Run.create(path, id=id, name=name, task="train", config_yaml=config, overrides=overrides, provenance=provenance)
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


@pytest.fixture(scope="module")
def page(entries: list[Entry], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "runs.html"
    file.write_text(runs_page(entries), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def browser(chromium: Browser, page: Path) -> Iterator[Browser]:
    chromium.open(page)
    yield chromium
    assert wrong(chromium) == []


SHOWN = "#runs tbody tr:not([hidden])"


def column(browser: Browser, name: str) -> list[str]:
    """Cells of the table's visible rows."""
    n = [head.strip("↑↓ ") for head in browser.texts("#runs thead th")].index(name) + 1
    return browser.texts(f"{SHOWN} > :nth-child({n})")


def wrong(browser: Browser) -> list[dict[str, Any]]:
    """Errors of the script, and requests for anything but the page itself."""
    bad = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
    requests = [event for event in browser.events if event["method"] == "Network.requestWillBeSent"]
    return [event for event in browser.events if event["method"] in bad] + requests[1:]


def test_the_table_holds_every_run_the_newest_first_and_folds_trials(browser: Browser) -> None:
    assert [text for text in column(browser, "id") if text] == ["rccccccc", "rbbbbbbb", "raaaaaaa", "torn"]
    assert column(browser, "status") == ["failed", "", "ok", "ok", "broken"]
    (study,) = browser.texts("tr.study th")
    assert study.startswith("rates <img src=x") and "3 trials · 2 ok, 1 pruned" in study
    assert browser.texts("tr.study td.number")[0] == "2.0000", "a pruned trial is not the best"
    assert browser.texts("tr.broken small")[0].endswith(
        "is damaged: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)."
    )
    assert browser.texts("tr.failed td.why") == ["It went wrong."]
    assert browser.texts("tr.ok .name small") == ["lr 0.002", "lr 0.001"]
    assert browser.texts("#count")[0].startswith("7 runs · 1 study · as of 20")
    browser.click(".fold")
    assert browser.texts("tr.trial .name span") == ["trial 2", "trial 1", "trial 0"]
    browser.click(".fold")
    assert browser.texts("tr.trial") == []


def test_a_head_sorts_and_sorts_back(browser: Browser) -> None:
    browser.click("#runs thead th:nth-child(5) button")
    assert column(browser, "val/bpb") == ["2.0000", "2.1000", "2.5000", "3.0000", ""]
    assert browser.js("document.querySelector('#runs thead th:nth-child(5)').ariaSort") == "ascending"
    browser.click("#runs thead th:nth-child(5) button")
    assert column(browser, "val/bpb") == ["3.0000", "2.5000", "2.1000", "2.0000", ""], "what has no value stays last"
    browser.click(".fold")
    assert [text for text in column(browser, "val/bpb") if text not in ("3.0000", "2.5000", "2.1000")] == [
        "2.0000",
        "2.3000",
        "2.0000",
        "1.9000",
        "",
    ]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", ["raaaaaaa", "rbbbbbbb", "rccccccc", "t0tttttt", "t1tttttt", "t2tttttt", "torn"]),
        ("BASE", ["raaaaaaa"]),
        ("note=the*", ["raaaaaaa"]),
        ("status=ok excerpt106", ["raaaaaaa", "rbbbbbbb", "t0tttttt", "t2tttttt"]),
        ("optimizer.lr>1e-2", ["rccccccc", "t0tttttt", "t1tttttt"]),
        ("lr=0.002", ["rbbbbbbb"]),
        ("val/bpb<=2.1 status!=pruned", ["rbbbbbbb", "t2tttttt"]),
        ("model=TINY lr=1", ["t0tttttt"]),
        ("status=failed,pruned tokens>1k", ["rccccccc", "t1tttttt"]),
        ("started>2002 study=null", ["rbbbbbbb", "rccccccc"]),
        ("status=ok lr=", ["raaaaaaa", "rbbbbbbb", "t0tttttt", "t2tttttt"]),
        ("status=broken", ["torn"]),
        ("nothing-has-this", []),
        ("__proto__=1 constructor=x", []),
    ],
)
def test_the_filter_asks_words_config_and_figures(browser: Browser, text: str, ids: list[str]) -> None:
    if browser.texts(".fold"):
        browser.click(".fold")
    browser.fill("#filter", text)
    assert sorted(filter(None, column(browser, "id"))) == ids
    assert (f"{len(ids)} of 7 runs" if text else "7 runs") in browser.texts("#count")[0]


def test_the_best_and_the_newest_run_are_compared_at_first(browser: Browser) -> None:
    assert browser.texts("#legend li output") == ["2.0000", "3.0000"]
    assert len(browser.texts("#plot .curve")) == 2
    assert browser.js("document.querySelector('.study input').indeterminate") is True


def test_ticked_runs_are_laid_over_each_other(browser: Browser) -> None:
    browser.click("#clear")
    assert (
        browser.texts("#plot text") == ["Tick runs in the table to lay their curves over each other."] and browser.texts("#legend li") == []
    )
    for name in ("raaaaaaa", "rbbbbbbb", "torn"):
        browser.click(f'input[aria-label$="{name}"]')
    assert len(browser.texts("#plot .curve")) == 2 and browser.texts("#legend output") == ["2.5000", "2.1000", "no curve"]
    assert browser.js("new Set([...document.querySelectorAll('#plot .curve')].map((line) => line.getAttribute('stroke'))).size") == 2
    browser.click("tr.study input")
    assert len(browser.texts("#plot .curve")) == 5
    browser.click("#legend li button")
    assert len(browser.texts("#plot .curve")) == 4 and not browser.js("document.querySelector('input[aria-label$=raaaaaaa]').checked")


@pytest.mark.parametrize(("axis", "last"), [("tokens", "3k"), ("steps", "50"), ("time", "5 s")])
def test_curves_go_over_tokens_steps_and_time(browser: Browser, axis: str, last: str) -> None:
    browser.choose("#x", axis)
    assert browser.texts("#plot .xtick")[-1] == last
    browser.choose("#y", "train/loss")
    for box in ("#logx", "#logy"):
        browser.click(box)
    assert len(browser.texts("#plot .curve")) == 2 and len(browser.texts("#plot .ytick")) > 1
    assert "NaN" not in browser.js("document.getElementById('plot').outerHTML")


def test_the_pointer_reads_the_curves(browser: Browser) -> None:
    place = browser.js(
        "$('plot').scrollIntoView(); (({left, top, width}) => ({x: left + 50 + (width - 64) * 0.41, y: top + 100}))($('plot').getBoundingClientRect())"
    )
    browser.send("Input.dispatchMouseEvent", type="mouseMoved", **place)
    assert browser.texts("#legend li output") == ["2.6000", "3.6000"]
    assert browser.js("document.getElementById('legend').dataset.at") == "at 1.28k"


def test_only_the_keys_that_differ_are_told(browser: Browser) -> None:
    browser.click("#clear")
    for name in ("raaaaaaa", "rbbbbbbb"):
        browser.click(f'input[aria-label$="{name}"]')
    rows = {row.split("\t")[0]: row.split("\t")[1:] for row in browser.texts("#differences tbody tr")}
    assert rows["val/bpb"] == ["2.5000", "2.1000"] and browser.texts("#differences td.least") == ["2.1000", "2.1200"]
    assert {key: rows[key] for key in rows.keys() - {"val/bpb", "val/loss", "tokens", "time", "tokens/s"}} == {
        "optimizer.lr": ["1e-3", "2e-3"],
        "code": ["–", "9.9"],
    }


def test_samples_stand_side_by_side(browser: Browser) -> None:
    assert browser.texts("#samples pre") == ["Text. After 50.", "Text. After 50."]
    browser.choose("#when", "0")
    assert browser.texts("#samples pre") == ["Text. After 0.", "Text. After 0."]


def test_the_keyboard_reaches_everything(browser: Browser) -> None:
    browser.click("#clear")
    reached = []
    browser.js("document.getElementById('filter').focus()")
    for _ in range(40):
        browser.press("Tab", 9)
        reached.append(browser.js("(({id, ariaLabel, textContent}) => id || ariaLabel || textContent)(document.activeElement)"))
    assert {"frame", "val/bpb", "Compare tiny · wiki_char · excerpt106 raaaaaaa", "y", "x", "logx", "logy", "when"} <= set(reached)
    browser.js("document.querySelector('input[aria-label$=raaaaaaa]').focus()")
    browser.press(" ", 32)
    assert browser.texts("#legend output") == ["2.5000"]
    browser.js("document.querySelector('.fold').focus()")
    browser.press(" ", 32)
    assert len(browser.texts("tr.trial")) == 3


def test_texts_that_want_to_be_html_stay_texts(browser: Browser) -> None:
    for name in ("#clear", "tr.study input", 'input[aria-label$="rbbbbbbb"]', ".fold"):
        browser.click(name)
    assert EVIL[:40] in browser.texts("#samples pre")[-1] and EVIL[:40] in browser.texts("tr.ok td.why")[-2]
    assert browser.js("window.hacked") is None and browser.js("document.querySelectorAll('img').length") == 0
    assert browser.js("document.scripts.length") == 2


@pytest.mark.parametrize("width", [1280, 400])
def test_a_page_asks_for_nothing_and_fits_its_window(chromium: Browser, page: Path, width: int) -> None:
    chromium.open(page, width)
    assert wrong(chromium) == []
    assert chromium.js("document.documentElement.scrollWidth") <= width
    assert chromium.js("document.getElementById('plot').getBoundingClientRect().width") > width / 2
    assert chromium.js(
        "[...document.querySelectorAll('#plot .axis, #plot .curve')].every((line) => getComputedStyle(line).fill === 'none')"
    )


def test_without_runs_the_page_says_so(chromium: Browser, tmp_path: Path) -> None:
    (tmp_path / "runs.html").write_text(runs_page([]), encoding="utf-8")
    chromium.open(tmp_path / "runs.html")
    assert chromium.texts("#count")[0].startswith("0 runs") and wrong(chromium) == []


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
