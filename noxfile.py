"""Checks as nox sessions: ``make test`` is ``nox --session tests``.

Sessions run in the one environment that ``make venv`` builds (.venv), or in one that sees its packages, because torch and
its companions are large and a second copy would prove nothing. Words after ``--`` go to the tool of the session.
"""

import re
import shutil
from pathlib import Path

import nox

ROOT = Path(__file__).parent
PYTHON = ROOT / ".venv" / "bin" / "python"

# Three test files at a time keep two cores busy, because many tests wait; `-- -n 8` after the session's name takes more. They begin in
# the order of tests/conftest.py, not with the files of most tests as xdist would have it.
WORKERS = ("-n", "3", "--dist", "loadfile", "--no-loadscope-reorder")

OTHERS = "".join(
    f" and not {marker}" for marker in ("export", "lm_eval", "ray", "skypilot", "slurm", "trackers")
)  # have sessions of their own

# What the extra `export` installs beside the packages of the environment.
EXPORT = ("transformers", "rich", "markdown-it-py", "mdurl", "typer", "shellingham", "annotated-doc", "gguf", "xllamacpp")
EXPORT += ("onnx", "onnx-ir", "ml_dtypes", "onnxscript", "onnxruntime", "flatbuffers")

# What the extras `mlflow` and `trackio` need for a database in a file; what they need for a server or a hub is left out.
TRACKERS = ("mlflow-skinny", "cachetools", "cffi", "cloudpickle", "cryptography", "databricks-sdk", "fastapi", "pycparser", "python-dotenv")
TRACKERS += ("importlib-metadata", "zipp", "sqlparse", "starlette", "annotated-doc", "trackio", "gradio-client", "orjson")
TRACKERS += ("python-multipart", "uvicorn")

# What the extra `ray` installs.
RAY = ("ray", "msgpack", "jsonschema", "jsonschema-specifications", "referencing", "rpds-py")

nox.options.sessions = ["lint", "types", "tests", "slow", "export", "trackers", "slurm"]
nox.options.default_venv_backend = "none"


def run(session: nox.Session, *command: str) -> None:
    """Run a Python module or script with the environment's interpreter, followed by the session's own words."""
    if not PYTHON.exists():
        session.error("there is no .venv yet: run `make venv` first")
    session.env["PYTHONDONTWRITEBYTECODE"] = None  # hundreds of processes would each compile the package and the tests
    session.run(str(PYTHON), *command, *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests, but for those marked slow."""
    run(session, "-m", "pytest", *WORKERS, "-m", f"not slow{OTHERS}")


@nox.session
def slow(session: nox.Session) -> None:
    """Run the tests marked slow: whole sweeps, kills, resumes, reproductions."""
    run(session, "-m", "pytest", *WORKERS, "-m", f"slow{OTHERS}")


@nox.session
def export(session: nox.Session) -> None:
    """Run the tests of ``task=export`` beside the programs that load what it writes.

    They lie in a folder of their own and not in .venv, because Lightning imports transformers at every start where it finds it.
    """
    beside(session, "export", EXPORT)


@nox.session
def trackers(session: nox.Session) -> None:
    """Run the tests of ``logger=mlflow`` and ``logger=trackio`` with these packages, which a plain installation lacks."""
    beside(session, "trackers", TRACKERS)


@nox.session
def slurm(session: nox.Session) -> None:
    """Run the tests of ``executor=slurm`` on a Slurm of two nodes that starts for them; as root, with Debian's slurmctld, slurmd, slurm-client, munge."""
    run(session, "-m", "pytest", *WORKERS, "-m", "slurm", "tests/sweep/test_executors.py", "tests/end_to_end/test_slurm.py")


@nox.session
def ray(session: nox.Session) -> None:
    """Run the tests of ``executor=ray`` on a Ray of two nodes that starts for them; Ray is 240 MB, so continuous integration does not."""
    beside(session, "ray", RAY)


def beside(session: nox.Session, marker: str, packages: tuple[str, ...]) -> None:
    """Run the tests of a marker with packages in a folder of .venv that nothing else sees."""
    folder = PYTHON.parents[1] / marker
    if not all(list(folder.glob(f"{name.replace('-', '_')}-*.dist-info")) for name in packages):
        pip = (str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--upgrade")
        session.run(*pip, "--no-deps", "--constraint", "constraints.txt", "--target", str(folder), *packages)
    session.env["PYTHONPATH"] = str(folder)
    run(session, "-m", "pytest", "-m", marker)


@nox.session
def lm_eval(session: nox.Session) -> None:
    """Compare ``task=evaluate`` with lm-evaluation-harness, which lies in an environment of its own on top of .venv (500 MB)."""
    on_top(session, "lm-eval", "lm_eval", "lm-eval[hf]==0.4.13", "--constraint", "constraints.txt")
    run(session, "-m", "pytest", "-m", "lm_eval")


@nox.session
def notebook(session: nox.Session) -> None:
    """Execute docs/notebook.ipynb cell by cell with Jupyter's kernel, which lies in an environment of its own on top of .venv (60 MB)."""
    program = on_top(session, "jupyter", "jupyter-execute", "ipykernel==7.4.0", "nbclient==0.11.0")
    folder = Path(session.create_tmp())
    shutil.rmtree(folder)  # of an earlier time: the notebook writes its runs beside itself
    folder.mkdir()
    session.run(str(program), "--timeout=600", shutil.copy(ROOT / "docs" / "notebook.ipynb", folder))


def on_top(session: nox.Session, name: str, program: str, *packages: str) -> Path:
    """The path of a program in an environment of its own, which also sees the sources and all packages of .venv."""
    folder = PYTHON.parents[1] / name
    if not (folder / "bin" / program).exists():
        session.run(str(PYTHON), "-m", "venv", "--clear", str(folder))
        seen, own = (next(place.glob("lib/python3*/site-packages")) for place in (PYTHON.parents[1], folder))
        (own / "packages.pth").write_text(f"{ROOT / 'src'}\n{seen}\n")
        pip = (str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
        session.run(*pip, *packages)
    return folder / "bin" / program


@nox.session
def skypilot(session: nox.Session) -> None:
    """Let SkyPilot's parser read what ``task=cloud`` writes; it lies in an environment of its own (460 MB) and is asked nothing about clouds."""
    folder = PYTHON.parents[1] / "skypilot"
    if not (folder / "bin" / "sky").exists():
        session.run(str(PYTHON), "-m", "venv", "--clear", str(folder))
        session.run(str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "skypilot==0.14.1")
    run(session, "-m", "pytest", "-m", "skypilot")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    run(session, "-m", "ruff", "check")
    run(session, "-m", "ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check the type hints."""
    run(session, "-m", "mypy")


@nox.session
def build(session: nox.Session) -> None:
    """Build the source archive and the wheel into dist/."""
    run(session, "-m", "build", "--no-isolation")


@nox.session(venv_backend="venv")
@nox.parametrize("archive", ["wheel", "sdist"])
def release(session: nox.Session, archive: str) -> None:
    """Build an archive, install it with all it needs into an empty environment of its own, and train a few steps in an empty folder."""
    folder = Path(session.create_tmp())
    session.run(str(PYTHON), "-m", "build", "--no-isolation", f"--{archive}", "--outdir", str(folder / archive), external=True)
    session.install("--constraint", "constraints.txt", *map(str, (folder / archive).iterdir()))
    session.chdir(folder)
    Path("text.txt").write_text("To be, or not to be, that is the question.\n" * 200, encoding="utf-8")
    session.run("gptshake", "model=tiny", "data=text_char", "data.path=text.txt", "trainer=cpu", "debug=smoke")


@nox.session(venv_backend="venv")
def docs(session: nox.Session) -> None:
    """Build the documentation as a site in build/site, with an API reference from the docstrings; a broken link is an error."""
    session.install("zensical==0.0.73", "mkdocstrings-python==2.0.11")  # newer pymdown-extensions than constraints.txt has
    pages = ROOT / "build" / "docs"
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(ROOT / "docs", pages)
    for name, copy in (("README", "index"), ("CHANGELOG", "CHANGELOG"), ("CONTRIBUTING", "CONTRIBUTING")):
        (pages / f"{copy}.md").write_text((ROOT / f"{name}.md").read_text(encoding="utf-8").replace("](docs/", "]("), encoding="utf-8")
    for page in pages.rglob("*.md"):  # source files are named, not linked: they are not on the site
        text = re.sub(r"\[([^\]]+)\]\((?:\.\./)*(?:src/[^)]*|LICENSE|NOTICE)\)", r"\1", page.read_text(encoding="utf-8"))
        page.write_text(
            text.replace("](../CHANGELOG.md", "](CHANGELOG.md").replace("](../CONTRIBUTING.md", "](CONTRIBUTING.md"), encoding="utf-8"
        )
    (pages / "reference.md").write_text("# API reference\n\n::: gptshake.api\n", encoding="utf-8")
    session.run("zensical", "build", "--strict", "--clean")
    for page in (ROOT / "build" / "site").rglob("*.html"):  # nothing is loaded from elsewhere; browsers of today search without this script
        page.write_text(re.sub(r'<script src="https://unpkg.com/[^>]*></script>', "", page.read_text(encoding="utf-8")), encoding="utf-8")


@nox.session
def bench(session: nox.Session) -> None:
    """Run every benchmark, one after the other."""
    for script in sorted((ROOT / "benchmarks").glob("[!_]*.py")):
        run(session, str(script))


@nox.session
def demo(session: nox.Session) -> None:
    """Train a small GPT on the Wikipedia excerpt."""
    run(session, "-m", "gptshake", "experiment=demo")
