"""One run on several nodes: what torchrun and srun set on two machines, set here for processes on one.

Every process costs its imports, so there are few real ones; the others are forked, with the variables that Slurm gives its tasks.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptshake.record.metrics import read_rows

pytestmark = pytest.mark.slow

OPTIONS = ("model.dropout=0", "logger=none", "data.test_fraction=0.05", "trainer.limit_val_batches=null")
DDP = ("trainer=ddp", "trainer.accelerator=cpu")
IN_STEP_6 = """
import os
from gptshake.training.module import GPTModule
def training_step(self, batch, number, own=GPTModule.training_step):
    if self.steps == 6:
        os.kill(os.getpid(), {signum})
    return own(self, batch, number)
GPTModule.training_step = training_step
"""
NO_MEMORY = "from gptshake.model.gpt import GPT\ndef forward(*_, **more):\n    raise MemoryError\nGPT.forward = forward"
OTHER_CODE = "from gptshake.record import git; git.code_sha256 = lambda: 'of an earlier version'"
OTHER_SEED = "import os, sys; os.environ['HUB_TOKEN'] = 'correct-horse'; sys.argv += ['seed=2', 'note=correct-horse']"
ABORTS = "import atexit, os\nif os.environ.get('RANK') == '1':\n    atexit.register(os.abort)"  # as threads of torch have done
FULL = """
import errno, shutil
def full(source, target):
    raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(target))
shutil.copyfile = full
"""
ELSEWHERE = "import gptshake.setup.run as run; from pathlib import Path; run.store_folder = lambda *_, **options: Path('elsewhere')"


@pytest.fixture(scope="module")
def text(small: tuple[str, ...]) -> tuple[str, ...]:
    """The small run without dropout, whose random numbers differ from rank to rank."""
    return (*small, *OPTIONS)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, commands: Any, text: tuple[str, ...], the_run: Callable[[Path], Any]) -> Any:
    """What one device does."""
    folder = tmp_path_factory.mktemp("alone")
    assert commands(folder, *text).code == 0
    return the_run(folder)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def same_curve(run: Any, alone: Any) -> bool:
    """Row by row within 1e-6, in every figure."""
    rows, others = run.numbers(), alone.numbers()
    return len(rows) == len(others) and all(row == pytest.approx(other, abs=1e-6) for row, other in zip(rows, others, strict=True))


def srun(commands: Any, folder: Path, *words: str, layout: tuple[int, ...] = (1, 1), before: dict[int, str] | None = None) -> list[Any]:
    """How the tasks of ``srun`` end, with so many on each node; ``before``: rank -> Python that runs first."""
    step = {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": str(sum(layout)), "SLURM_JOB_NODELIST": "here,there"}
    step |= {"SLURM_STEP_TASKS_PER_NODE": ",".join(map(str, layout)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    started = []
    for rank, (node, local) in enumerate((node, local) for node, n in enumerate(layout) for local in range(n)):
        own = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(local), "SLURM_NODEID": str(node)}
        started.append(commands.start(folder, *words, before=(before or {}).get(rank, ""), **step, **own))
    return [process.wait() for process in started]


def test_two_nodes_of_torchrun_learn_what_one_device_learns_each_from_its_copy_of_the_tokens(
    tmp_path: Path, text: tuple[str, ...], alone: Any, the_run: Callable[[Path], Any]
) -> None:
    cache, port = tmp_path / "node", free_port()
    (tmp_path / "sitecustomize.py").write_text(ABORTS)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    words = (*text, *DDP, f"paths.node_cache={cache}")
    started = []
    for node in (1, 0):
        launch = ["torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", f"--node_rank={node}", "--master_addr=127.0.0.1"]
        launch += [f"--master_port={port}", "-m", "gptshake", *words]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([sys.executable, "-m", *launch], cwd=tmp_path, env=environment, **pipes))
    (there, _), (here, errors) = (process.communicate(timeout=120) for process in started)
    assert [process.returncode for process in started] == [0, 0], errors
    run = the_run(tmp_path)
    assert same_curve(run, alone)
    assert run.info["summary"]["test/loss"] == pytest.approx(alone.info["summary"]["test/loss"], abs=1e-6)
    assert run.info["devices"] == {"count": 2, "strategy": "ddp"}
    assert run.info["data"]["node_cache"] == str(cache) and list(cache.glob("stores/*/manifest.json"))
    assert here.count("done:") == 1 and there == ""  # one rank speaks


def test_a_node_whose_disk_is_full_reads_the_tokens_where_they_are(
    commands: Any, tmp_path: Path, text: tuple[str, ...], alone: Any
) -> None:
    done = commands(tmp_path, *text, f"paths.node_cache={tmp_path}/node", f"paths.run_dir={tmp_path}/run", before=FULL)
    assert done.code == 0 and f"The disk is full: {tmp_path}/node/stores/" in done.out and " Tokens are read from " in done.out, done
    losses = [[row["train/loss"] for row in read_rows(path / "metrics.csv")] for path in (tmp_path / "run", alone.path)]
    assert losses[0] == losses[1]


def test_a_task_of_srun_that_is_killed_ends_the_others_and_the_run_goes_on_on_more_of_them(
    commands: Any, tmp_path: Path, text: tuple[str, ...], alone: Any, the_run: Callable[[Path], Any]
) -> None:
    first, second = srun(commands, tmp_path, *text, *DDP, before={1: IN_STEP_6.format(signum=int(signal.SIGKILL))})
    assert (first.code, second.code) == (1, -signal.SIGKILL)
    assert first.error.startswith("Rank 1 of 2 ended early, and the others cannot continue")
    broken = the_run(tmp_path)
    assert broken.info["status"] == "failed" and broken.saved()
    ended = srun(commands, tmp_path, f"resume={broken.info['id']}", layout=(1, 1), before={1: IN_STEP_6.format(signum=int(signal.SIGUSR1))})
    assert [done.code for done in ended] == [128 + signal.SIGUSR1] * 2, ended
    ended = srun(commands, tmp_path, f"resume={broken.info['id']}", layout=(2, 2))
    assert [done.code for done in ended] == [0] * 4, ended
    assert same_curve(the_run(tmp_path), alone)
    assert the_run(tmp_path).info["devices"] == {"count": 4, "strategy": "ddp"}


@pytest.mark.parametrize(
    ("words", "layout", "before", "sentence"),
    [
        (("data.batch_size=6",), (2, 1), "", "The nodes have 1 to 2 of the 3 processes: start equally many on each node"),
        (("data.batch_size=7",), (1, 1), "", "A batch of 7 sequences cannot be shared by 2 devices"),
        ((), (1, 1), OTHER_CODE, f"Rank 1 on {socket.gethostname()} runs other code than rank 0"),
        (
            *((), (1, 1), OTHER_SEED),
            f"Rank 1 on {socket.gethostname()} has another command than rank 0 on {socket.gethostname()}, and rank 0 alone decides: "
            "type the same on all nodes. They differ in note=<secret> seed=2",
        ),
    ],
)
def test_what_cannot_be_shared_ends_all_tasks_with_a_sentence(
    commands: Any, tmp_path: Path, text: tuple[str, ...], words: tuple[str, ...], layout: tuple[int, ...], before: str, sentence: str
) -> None:
    first, *others = srun(commands, tmp_path, *text, *DDP, *words, layout=layout, before={1: before})
    assert first.code == 2 and first.error.startswith(sentence)
    assert all(other.code == 1 and "Rank 0 of" in other.error for other in others)
    assert not (tmp_path / "runs").exists()


def test_a_node_without_the_tokens_is_named(commands: Any, tmp_path: Path, text: tuple[str, ...], the_run: Callable[[Path], Any]) -> None:
    sentence = f"On {socket.gethostname()} the token store elsewhere cannot be used: manifest.json is missing. Put paths.cache"
    first, second = srun(commands, tmp_path, *text, *DDP, before={1: ELSEWHERE})
    assert (first.code, second.code) == (2, 2)
    assert first.error.startswith(sentence) and second.error.startswith(f"rank 1: {sentence}")
    assert the_run(tmp_path).info["status"] == "failed" and the_run(tmp_path).steps == []


def test_a_node_with_another_file_of_the_users_own_python_is_named(commands: Any, tmp_path: Path, text: tuple[str, ...]) -> None:
    (tmp_path / "there").mkdir()
    for folder, value in ((tmp_path, 1), (tmp_path / "there", 2)):
        (folder / "mine.py").write_text(f"from pytorch_lightning import Callback\n\n\nclass Mine(Callback):\n    value = {value}\n")
    words = (*text, *DDP, "+callbacks.mine._target_=mine.Mine", f"paths.runs={tmp_path}/runs", f"paths.cache={tmp_path}/cache")
    first, second = srun(commands, tmp_path, *words, before={1: "import os; os.chdir('there')"})
    sentence = f"On {socket.gethostname()} {tmp_path}/there/mine.py is not the file that rank 0 runs: put the working directory on"
    assert (first.code, second.code) == (2, 2) and first.error.startswith(sentence) and second.error.startswith(f"rank 1: {sentence}")


def test_a_task_of_srun_that_alone_has_no_memory_says_so_and_ends_the_others(commands: Any, tmp_path: Path, text: tuple[str, ...]) -> None:
    first, second = srun(commands, tmp_path, *text, *DDP, before={1: NO_MEMORY})
    assert (first.code, second.code) == (1, 1)
    assert first.error.startswith("Rank 1 of 2 ended early") and second.error.startswith(
        "rank 1: There is not enough memory for 2 sequences"
    )


def test_in_a_batch_script_of_slurm_a_run_is_alone_and_lightning_does_not_take_its_signals(
    commands: Any, tmp_path: Path, text: tuple[str, ...], the_run: Callable[[Path], Any]
) -> None:
    job = {
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_NAME": "night",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0",
    }
    done = commands(tmp_path, *text, before=IN_STEP_6.format(signum=int(signal.SIGUSR1)), **job)
    assert done.code == 128 + signal.SIGUSR1, done.err
    run = the_run(tmp_path)
    assert run.info["status"] == "interrupted" and run.info["devices"] == {"count": 1, "strategy": None}
    assert run.saved()[-1] == "step-00000006"
