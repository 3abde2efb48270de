"""What a machine can keep of the architecture: layers, packages for heavy libraries, no config below setup, heads.

The tables say what is allowed; everything else is read from the sources without importing them.
"""

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "gptshake"

# From top to bottom. A package may import from the layers below it, never from its own layer's other packages or a layer above.
LAYERS = [
    {"__main__", "api"},
    {"cli", "child"},
    {"tasks", "trials", "notify"},
    {"setup", "config"},
    {"data", "training", "sweep", "report", "export", "preloaded"},
    {"context"},
    {"distributed"},
    {"tokenizer", "record"},
    {"model", "optim", "estimate", "processes", "markdown"},
    {"outcome"},
    {"torchrun", "hardware", "files", "signals", "energy", "redaction", "console", "keys"},
    {"errors", "__init__"},
]
# A package's schema holds plain values only: its neighbours on the same layer may read it too.
SCHEMA = "*.config"

# Heavy library -> modules that may name it. Everything else stays quick to import and testable without it.
HEAVY = {
    "torch": [
        *(
            "model.*",
            "optim.adamw",
            "optim.sgd",
            "training.*",
            "data.module",
            "hardware",
            "distributed",
            "energy",
            "setup.*",
            "tasks.*",
            "export.*",
        ),
        "record.trackers.tensorboard",
    ],
    "pytorch_lightning": ["training.*", "data.module", "setup.*"],
    "hydra": ["cli", "child", "config.*", "setup.*", "tasks.*", "trials", "sweep.space", "sweep.session", "report.study_text"],
    "omegaconf": ["api", "cli", "child", "config.*", "setup.*", "tasks.*", "trials"],
    "wandb": ["record.trackers.*"],
    "mlflow": ["record.trackers.*"],
    "trackio": ["record.trackers.*"],
    "optuna": ["sweep.*"],
    "ray": ["sweep.executor.ray"],
    "matplotlib": ["report.*"],
    "datasets": ["data.source.*"],
    "tiktoken": ["tokenizer.*"],
    "tokenizers": ["tokenizer.hf_bpe", "tokenizer.exchange", "export.tokenizers"],
    "transformers": ["export.*"],
    "sentencepiece": ["tokenizer.sentencepiece", "export.*"],
    "regex": ["tokenizer.pretokenizer"],
    "gensim": [],
    "pandas": ["api", "record.*", "report.*", "tasks.*"],
    "scipy": [],
}

# Earlier, home-made words, left in DESIGN's table of names; each thing has one name now: lock, heartbeat, stop request, session, tracker, ...
GONE = {
    "advice",
    "advise",
    "advised",
    "amidst",
    "assemble",
    "basin",
    "catalogue",
    "chapters",
    "courier",
    "declared",
    "floors",
    "house",
    "keeper",
    "lease",
    "letters",
    "recorder",
    "rewind",
    "rooms",
}
GONE |= {"settle", "settled", "settles", "sitting", "sittings", "stories", "told", "wings", "wish", "wishes"}
# Words that are English in a sentence, and no name of a function, a class or a module.
GONE_NAMES = GONE | {"about", "again", "agreed", "answer", "beat", "found", "launch", "mirror", "opening", "overlay", "plane"}
GONE_NAMES |= {"reach", "recipe", "recipes", "sinks"}
ON_DISK = r"lease\.json|sitting-2/|\bsittings\b|callbacks\.advice"  # names of files, keys and options, which old runs have

HEAD_LINES = 10
MOST_PARAMETERS = 6
PUBLIC = {"model.generate.stream"}  # its options are those of sampling


def module_name(file: Path) -> str:
    """``model.gpt`` for src/gptshake/model/gpt.py, ``model.__init__`` for a folder's own file."""
    return ".".join(file.relative_to(SOURCES).with_suffix("").parts)


TREES = {module_name(file): ast.parse(file.read_text(encoding="utf-8")) for file in sorted(SOURCES.rglob("*.py"))}


def imports(name: str) -> Iterator[str]:
    """Full dotted names of everything a module imports, inside functions too; ``from a import b`` gives ``a.b``."""
    package = ["gptshake", *name.split(".")[:-1]]
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) + 1 - node.level], *filter(None, [node.module])] if node.level else [node.module or ""]
            yield from (".".join([*base, alias.name]) for alias in node.names)


def own_imports(name: str) -> set[str]:
    """Our own modules that a module imports."""
    found = set()
    for target in imports(name):
        if target.split(".")[0] == "gptshake":
            parts = target.split(".")[1:]
            tries = [".".join(parts), ".".join(parts[:-1]), ".".join([*parts, "__init__"]), ".".join([*parts[:-1], "__init__"])]
            found.update(next(([module] for module in tries if module in TREES), [target]))
    return found


def layer(name: str) -> int:
    """Number of the layer a module is on; the top one is 0."""
    heights = [height for height, packages in enumerate(LAYERS) if name.split(".")[0] in packages]
    assert heights, f"{name} is not there, or its package is in none of the LAYERS"
    return heights[0]


def test_imports_point_only_downward() -> None:
    offenders = []
    for name in TREES:
        for target in own_imports(name):
            same_package = name.split(".")[0] == target.split(".")[0] != "tasks"  # tasks never import each other
            neighbours_schema = layer(target) == layer(name) and fnmatch(target, SCHEMA)
            if not (layer(target) > layer(name) or same_package or neighbours_schema):
                offenders.append(f"{name} must not import {target}")
    assert offenders == []


def test_no_import_goes_in_a_circle() -> None:
    graphlib.TopologicalSorter({name: own_imports(name) for name in TREES}).prepare()


def test_heavy_libraries_stay_in_their_packages() -> None:
    offenders = []
    for name in TREES:
        light = name.endswith("__init__") or fnmatch(name, SCHEMA)
        for library in {target.split(".")[0] for target in imports(name)} & set(HEAVY):
            if light or not any(fnmatch(name, package) for package in HEAVY[library]):
                offenders.append(f"{name} must not import {library}")
    assert offenders == []


def test_the_command_starts_without_torch_and_numpy() -> None:
    heavy = "{'torch', 'numpy', 'pytorch_lightning', 'wandb', 'matplotlib', 'datasets', 'tiktoken', 'tokenizers', 'sentencepiece', 'regex'}"
    code = f"import sys, gptshake.__main__, gptshake.cli; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("task", ["runs", "diff", "journal", "note", "report"])
def test_a_task_that_only_reads_records_imports_neither_setup_nor_torch(task: str) -> None:
    heavy = "{'torch', 'gptshake.setup', 'wandb'} | ({'matplotlib'} if task == 'runs' else set())"
    code = f"import sys; task = '{task}'; import gptshake.tasks.{task}; print(*({heavy}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_config_ends_in_setup() -> None:
    offenders = []
    for name, tree in TREES.items():
        if layer(name) <= layer("setup"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.arg):
                words = f"{node.arg}: {ast.unparse(node.annotation) if node.annotation else ''}"
                if node.arg == "cfg" or "DictConfig" in words:
                    offenders.append(f"{name}, line {node.lineno}: {words}")
    assert offenders == []


def test_no_function_takes_more_than_six_parameters() -> None:
    """Except constructors and what a config names as a ``_target_``: their parameters are the options."""
    yamls = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "conf").rglob("*.yaml"))
    targets = {text.rpartition(".")[2] for text in re.findall(r"_target_: *([\w.]+)", yamls)}
    offenders = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name not in targets | {"__init__"}:
                of = node.args
                names = [one.arg for one in [*of.posonlyargs, *of.args, *of.kwonlyargs, of.vararg, of.kwarg] if one]
                if len(set(names) - {"self", "cls"}) > MOST_PARAMETERS and f"{name}.{node.name}" not in PUBLIC:
                    offenders.append(f"{name}, line {node.lineno}: {node.name} takes {len(names)}")
    assert offenders == []


def test_every_file_opens_with_a_short_head() -> None:
    heads = {name: len((ast.get_docstring(tree) or "").splitlines()) for name, tree in TREES.items()}
    assert [name for name, lines in heads.items() if not 1 <= lines <= HEAD_LINES] == []


def test_earlier_words_are_gone_from_names_messages_docstrings_and_docs() -> None:
    texts, names = list[tuple[str, str]](), [(name, name) for name in TREES]
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.append((f"{name}, line {node.lineno}", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", node.name)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                texts.append((f"{name}, line {node.lineno}", node.value))
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        prose = re.sub(r"```.*?```|`[^`\n]*`|\]\([^)]*\)", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        texts += [(page.name, line) for line in prose.splitlines()]
    for file in (ROOT / "conf").rglob("*.yaml"):
        texts += [(file.name, line.partition("#")[2]) for line in file.read_text(encoding="utf-8").splitlines()]
    offenders = {(where, word) for where, text in texts for word in re.findall("[a-z]+", re.sub(ON_DISK, "", text).lower()) if word in GONE}
    offenders |= {(where, word) for where, name in names for word in re.findall("[a-z]+", name.lower()) if word in GONE_NAMES}
    assert sorted(offenders) == []


def test_every_yaml_explains_itself() -> None:
    silent = []
    for file in sorted((ROOT / "conf").rglob("*.yaml")):
        comments = [line for line in file.read_text(encoding="utf-8").splitlines() if "# " in line and "@package" not in line]
        silent += [] if comments else [str(file.relative_to(ROOT))]
    assert silent == []


def test_the_layers_are_drawn_as_they_are() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    layers = [{package.strip("/") for package in line.split()} for line in re.findall(r"^ *│(.+?)│", text, re.MULTILINE)]
    assert layers == [packages - {"__init__"} for packages in LAYERS]
    for height, packages in enumerate(layers):
        for package in packages:
            assert (ROOT / "src/gptshake" / package).is_dir() == (f"{package}/" in text), f"{package} on layer {height}"


def test_the_packages_of_heavy_libraries_are_those_that_the_tests_allow() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|$", text, re.MULTILINE))
    allowed = {library: {package.partition(".")[0] for package in packages} for library, packages in HEAVY.items() if packages}
    assert {library: set(re.findall(r"`(\w+)/?`", packages)) for library, packages in rows.items()} == allowed
