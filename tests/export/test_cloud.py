"""The files for rented machines, by claims about what they say and by running the scripts that they hold; SkyPilot's own parser reads them too."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from gptshake.errors import ConfigError
from gptshake.export.cloud import CLOUDS, GPUS, Job, check, sky_task, sky_text, start_command, vast_script
from gptshake.hardware import KNOWN_GPUS
from gptshake.record.metrics import read_rows
from gptshake.tasks.cloud import _check_start, _priced

COMMIT = "0123456789abcdef0123456789abcdef01234567"
JOB = Job(
    name="gptshake-tiny-wiki-char-0a1b2c3d",
    cloud="vast",
    gpu="rtx4090",
    gpus=2,
    spot=False,
    command=["model=tiny", "data=wiki_char", "note='it\\'s für $HOME'", "resume=auto"],
    root=Path("/sources"),
    origin=("https://git.example.org/gptshake.git", COMMIT),
    files={"gptshake-inputs/0-book.txt": Path("/texts/my book.txt")},
    secrets=("WANDB_API_KEY",),
    sync="s3://bucket/gpts/",
    sync_key=None,
    sync_minutes=5,
    idle_minutes=10,
    hours=3,
    disk_gb=55,
    price="2 x rtx4090 at vast: at most 3.2 h = $2.56.",
    confirm="2.56",
    longest=3.2,
)
PYTHON = Path(sys.prefix) / "skypilot" / "bin" / "python"
READ = """
import json, sys, sky
for file in sys.argv[1:]:
    task = sky.Task.from_yaml(file)
    found = list(task.resources)
    print(json.dumps({
        "clouds": sorted({str(one.cloud).lower() for one in found}), "spot": found[0].use_spot, "gpus": [one.accelerators for one in found],
        "disk": found[0].disk_size, "down": found[0].autostop_config.down, "minutes": found[0].autostop_config.idle_minutes,
        "nodes": task.num_nodes, "workdir": task.workdir, "run": task.run,
        "mounts": {place: store.mode.value for place, store in task.storage_mounts.items()},
    }))
"""
EVERYWHERE = [*CLOUDS, "slurm/cluster/gpus", "kubernetes/context"]


def on(cloud: str, **changes: Any) -> Job:
    """The job at a cloud, with all that the cloud can do."""
    can = CLOUDS[cloud.partition("/")[0]]
    return replace(JOB, cloud=cloud, spot=can.spot, **changes)


@pytest.mark.parametrize("cloud", EVERYWHERE)
def test_a_task_file_says_what_the_job_says_at_every_cloud(cloud: str) -> None:
    job = on(cloud)
    check(job)
    task = yaml.safe_load(sky_text(job))
    assert task == sky_task(job) and "\nrun: |\n" in sky_text(job)
    resources = task["resources"]
    assert resources["infra"] == cloud and set(resources["accelerators"].values()) == {2} and resources["disk_size"] == 55
    assert resources["autostop"] == {"idle_minutes": 10, "down": True}
    assert ("use_spot" in resources) == ("job_recovery" in resources) == job.can.spot
    assert task["workdir"] == {"url": JOB.origin[0], "ref": COMMIT} if JOB.origin else False
    assert task["file_mounts"]["~/gptshake-inputs/0-book.txt"] == "/texts/my book.txt"
    assert task["secrets"]["WANDB_API_KEY"] is None and not any((task["secrets"] | {}).values())
    assert "resume=auto" in task["run"] and "limit=180m" in task["run"] and "seconds=300" in task["run"]
    assert "make venv" in task["setup"] and "torch.cuda.is_available()" in task["setup"]
    mounted = task["file_mounts"].get("/gptshake-bucket")
    assert (mounted == {"source": "s3://bucket", "mode": "MOUNT_CACHED"}) == job.can.mounts
    assert ("AWS_SECRET_ACCESS_KEY" in task["secrets"]) == ("RCLONE_CONFIG_OUT_TYPE" in task.get("envs", {})) == (not job.can.mounts)
    assert task.get("envs", {}).get("RCLONE_CONFIG_OUT_NO_CHECK_BUCKET") == (None if job.can.mounts else "true")
    assert f"place={'/gptshake-bucket/' if job.can.mounts else 'out:bucket/'}gpts/{job.name}\n" in task["run"]


@pytest.mark.parametrize(("hours", "limit"), [(0.001, "1m"), (0.26, "16m"), (1.1, "66m")])
def test_the_shortest_limit_is_not_none(hours: float, limit: str) -> None:
    assert f"limit={limit}\n" in sky_task(replace(JOB, hours=hours))["run"]


def test_uncommitted_sources_are_uploaded() -> None:
    job = replace(JOB, origin=None)
    assert sky_task(job)["workdir"] == "/sources"


def test_results_go_to_a_host_by_a_key_that_the_file_names_and_does_not_hold(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("PRIVATE")
    job = on("lambda", sync="me@host.org:gpts", sync_key=str(key))
    check(job)
    task = sky_task(job)
    assert task["file_mounts"]["~/.ssh/gptshake-sync"] == str(key) and f"place=out:gpts/{job.name}" in task["run"]
    assert {key[18:]: value for key, value in task["envs"].items()} == {
        **{"TYPE": "sftp", "HOST": "host.org", "USER": "me", "KEY_FILE": "~/.ssh/gptshake-sync"}
    }
    assert "PRIVATE" not in sky_text(job) and "AWS" not in sky_text(job)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"cloud": "vats"}, "did you mean vast?"),
        ({"gpu": "RTX-4090"}, "did you mean rtx4090?"),
        ({"gpu": "A1000"}, "did you mean a100?"),
        ({"gpu": "v100"}, "too old for the CUDA"),
        ({"command": []}, "nothing to run"),
        ({"cloud": "slurm", "spot": True}, "slurm has no spot machines"),
        ({"cloud": "ssh/pool", "spot": True}, "ssh has no spot machines"),
        ({"sync": "gs://bucket"}, "vast cannot mount buckets"),
        ({"sync": "bucket/folder"}, "neither a bucket"),
        ({"sync": "me@host:folder"}, "needs task.sync_key="),
        ({"cloud": "lambda", "sync": None}, "task.sync= is missing"),
    ],
)
def test_what_the_parser_accepts_and_the_cloud_cannot_do_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=r".\.$") as error:
        check(replace(JOB, **changes))
    assert sentence in str(error.value)


def test_every_gpu_has_a_memory_and_a_price_for_the_plan() -> None:
    assert set(GPUS) <= set(KNOWN_GPUS)
    vast = {gpu: list(sky_task(replace(JOB, gpu=gpu))["resources"]["accelerators"]) for gpu in GPUS}
    assert vast["a100"] == ["A100"] and vast["t4"] == ["T4"] and vast["rtx4090"] == ["RTX4090"] and vast["h100"] == ["H100"]


def test_spot_machines_are_recovered_by_a_managed_job_and_secrets_are_passed_by_name() -> None:
    assert start_command(on("runpod"), "x.yaml")[:4] == ["sky", "jobs", "launch", "--name"]
    words = start_command(on("lambda"), "x.yaml")
    assert words == ["sky", "launch", "--cluster", JOB.name, "--secret", "WANDB_API_KEY", "x.yaml"]


# --- the scripts


def shell(script: str, home: Path, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"HOME": str(home)} | env
    return subprocess.run(["bash", "-s", *arguments], input=script, env=environment, cwd=home, capture_output=True, text=True, timeout=200)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The home of a machine on which gptshake is installed."""
    (tmp_path / "sky_workdir").mkdir()
    (tmp_path / "sky_workdir" / ".venv").symlink_to(sys.prefix)
    return tmp_path


def test_the_scripts_are_bash_and_their_words_arrive_as_they_were_typed(home: Path) -> None:
    for cloud in CLOUDS:
        for text in (sky_task(on(cloud))["setup"], sky_task(on(cloud))["run"], vast_script(on(cloud))):
            assert subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True).stderr == ""
    assigned = sky_task(JOB)["run"].partition("linked()")[0]
    assert shell(f'{assigned}printf "%s\\n" "${{train[@]:1}}"', home).stdout.splitlines() == JOB.command


@pytest.mark.parametrize(("version", "shown"), [("570.86.10", "570.86.10"), ("", "none")])
def test_an_old_driver_is_found_before_anything_is_installed(home: Path, version: str, shown: str) -> None:
    (home / "bin").mkdir()
    for name, text in {"nvidia-smi": f"echo {version}", "apt-get": "touch ~/installed", "curl": "touch ~/installed"}.items():
        (home / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (home / "bin" / name).chmod(0o755)
    done = shell(sky_task(JOB)["setup"], home, PATH=f"{home / 'bin'}:{os.environ['PATH']}")
    assert (
        done.returncode == 1 and f"version 580 or newer, and this machine has {shown}:" in done.stderr and not (home / "installed").exists()
    )


def test_tools_are_installed_though_a_machine_that_starts_has_locked_its_packages(home: Path) -> None:
    (home / "bin").mkdir()
    (home / "sky_workdir/.venv").unlink()
    (home / "sky_workdir/.venv/bin").mkdir(parents=True)
    tools = dict.fromkeys(("nvidia-smi", "git", "make", "curl", "rsync", "flock", "uv", "sleep"), "") | {"nvidia-smi": "echo 590.1"}
    tools |= {
        "sudo": '"$@"',
        "apt-get": f"""echo "$1" >> ~/asked
        [ "$1" != update ] && [ "$(grep -c install ~/asked)" = 3 ] && touch {home}/bin/rclone && chmod +x {home}/bin/rclone""",
    }
    for name, text in tools.items():
        (home / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
    shutil.copy(home / "bin/git", home / "sky_workdir/.venv/bin/python")  # torch finds a GPU
    for file in (*(home / "bin").iterdir(), home / "sky_workdir/.venv/bin/python"):
        file.chmod(0o755)
    for name in ("bash", "head", "id", "touch", "chmod", "grep"):
        (home / "bin" / name).symlink_to(str(shutil.which(name)))
    done = shell(sky_task(JOB)["setup"], home, PATH=str(home / "bin"))
    assert done.returncode == 0 and (home / "asked").read_text().split() == ["update", "install"] * 3, done.stderr
    (home / "bin/rclone").unlink()
    done = shell(sky_task(JOB)["setup"], home, PATH=str(home / "bin"))
    assert done.returncode == 1 and "rclone and flock could not be installed" in done.stderr


@pytest.mark.parametrize("there", ["rsync", "git"])
def test_vasts_image_gets_what_the_script_copies_with(there: str, home: Path) -> None:
    (command,) = re.findall(r"remote '(.*command -v.*)'", vast_script(JOB))
    (home / "bin").mkdir()
    for name, text in {there: "", "apt-get": 'echo "$*" >> ~/asked'}.items():
        (home / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (home / "bin" / name).chmod(0o755)
    (home / "bin/mkdir").symlink_to(str(shutil.which("mkdir")))
    subprocess.run([str(shutil.which("bash")), "-c", command], cwd=home, env={"HOME": str(home), "PATH": str(home / "bin")}, check=True)
    assert (home / "asked").read_text() == "update -qq\ninstall -y -qq rsync git\n" and (home / "gptshake-work").is_dir()


def test_a_finished_run_is_not_begun_again_and_a_failed_one_is(home: Path) -> None:
    run = sky_task(replace(JOB, command=["--version"]))["run"].replace(f"place=out:bucket/gpts/{JOB.name}", "place=")
    done = shell(run, home)
    assert done.returncode == 0 and done.stdout.startswith("gptshake"), done.stderr
    assert (home / "gptshake-work" / "finished").exists()
    assert shell(run, home).stdout == "finished earlier: nothing to do\n"
    (home / "gptshake-work" / "finished").unlink()
    failed = shell(run.replace("--version", "--verison"), home)
    assert failed.returncode == 2 and not (home / "gptshake-work" / "finished").exists()


@pytest.fixture
def program(home: Path) -> Path:
    """What stands for gptshake on a machine: it saves and ends when it is asked to."""
    (home / "sky_workdir" / ".venv").unlink()
    file = home / "sky_workdir" / ".venv" / "bin" / "gptshake"
    file.parent.mkdir(parents=True)
    file.write_text("#!/bin/bash\ntrap 'touch ~/saved; exit 143' TERM\ntouch ~/started\nwhile :; do sleep 0.05; done\n")
    file.chmod(0o755)
    return file


def test_a_request_to_end_reaches_the_training_and_its_exit_code_comes_back(home: Path, program: Path) -> None:
    run = sky_task(JOB)["run"].replace(f"place=out:bucket/gpts/{JOB.name}", "place=")
    script = subprocess.Popen(["bash", "-c", run], env=os.environ | {"HOME": str(home)}, cwd=home, start_new_session=True)
    until = time.monotonic() + 60
    while not (home / "started").exists():
        assert script.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    script.terminate()
    assert script.wait(60) == 143 and (home / "saved").exists() and not (home / "gptshake-work" / "finished").exists()
    stopped = shell(run.replace("limit=180m", "limit=0.3"), home)
    assert stopped.returncode == 124 and "as task.hours says; the same command continues it" in stopped.stderr


def test_results_alone_are_copied_and_newer_ones_are_not_replaced(home: Path, program: Path) -> None:
    if shutil.which("rclone") is None:
        pytest.skip("rclone is not installed")
    program.write_text("#!/bin/sh\nexit 0\n")
    results = {
        "runs/a/metrics.csv": "new",
        "runs/a/checkpoints/step-1/w": "1",
        "multirun/s/0/checkpoints/step-2/w": "2",
        "multirun/s/x": "3",
    }
    others = ("conf/mine.yaml", "runs/a/lease.json", "runs/a/run.lock", "runs/a/checkpoints/.step-3.0a1b2c3d/w")
    work, bucket = home / "gptshake-work", home / "bucket"
    for name, text in {**results, **dict.fromkeys(others, "4")}.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text)
    (work / "restored").touch()
    (bucket / "runs/a").mkdir(parents=True)
    (bucket / "runs/a/metrics.csv").write_text("an older copy")
    run = sky_task(JOB)["run"].replace(f"place=out:bucket/gpts/{JOB.name}", "place=out:")
    remote = {"RCLONE_CONFIG_OUT_TYPE": "alias", "RCLONE_CONFIG_OUT_REMOTE": str(bucket)}
    done = shell(run, home, **remote)
    assert done.returncode == 0 and (work / "runs/a/metrics.csv").read_text() == "new", done.stderr
    assert {str(file.relative_to(bucket)): file.read_text() for file in bucket.rglob("*") if file.is_file()} == results | {"finished": ""}
    for fresh in (work, home / ".gptshake-running"):
        shutil.rmtree(fresh) if fresh.is_dir() else fresh.unlink()
    assert shell(run, home, **remote).stdout == "finished earlier: nothing to do\n" and (work / "runs/a/metrics.csv").read_text() == "new"


def test_a_checkpoint_that_comes_while_rows_are_copied_waits_for_the_next_copy(home: Path, program: Path) -> None:
    """Its rows may not be in this one, and a machine may be lost at any time."""
    if (rclone := shutil.which("rclone")) is None:
        pytest.skip("rclone is not installed")
    program.write_text("#!/bin/sh\nls ~/bucket/runs/a/checkpoints > ~/seen\n")  # the first copy ends before the training begins
    checkpoints = home / "gptshake-work/runs/a/checkpoints"
    (checkpoints / "step-1").mkdir(parents=True)
    (checkpoints / "step-1/w").write_text("1")
    (home / "bin").mkdir()
    wrapped = f'[ "$2" != . ] || {{ mkdir -p {checkpoints}/step-2; touch {checkpoints}/step-2/w; }}\nexec {rclone} "$@"\n'
    (home / "bin/rclone").write_text(f"#!/bin/bash\n{wrapped}")
    (home / "bin/rclone").chmod(0o755)
    run = sky_task(JOB)["run"].replace(f"place=out:bucket/gpts/{JOB.name}", "place=out:")
    remote = {"RCLONE_CONFIG_OUT_TYPE": "alias", "RCLONE_CONFIG_OUT_REMOTE": str(home / "bucket")}
    done = shell(run, home, PATH=f"{home / 'bin'}:{os.environ['PATH']}", **remote)
    assert done.returncode == 0 and (home / "seen").read_text() == "step-1\n", done.stderr
    assert sorted(folder.name for folder in (home / "bucket/runs/a/checkpoints").iterdir()) == ["step-1", "step-2"]


# --- the script for Vast: everything behind vastai, ssh and rsync costs money, so they stand at the boundary and write down what they are asked

FAKES = {
    "vastai": """case "$*" in
        search*) echo "$OFFERS" ;;
        create*) echo '{"new_contract": 7}' ;;
        show*) echo '{"actual_status": "'"$STATUS"'"}' ;;
        ssh-url*) echo ssh://root@10.0.0.1:2200 ;;
        esac""",
    "ssh": """for last; do :; done
        case "$last" in
        *gptshake-install*) cat > /dev/null; exit "$INSTALL" ;;
        *stdin*) cat > "$HOME/secrets"; touch "$HOME/running" ;;
        *cat* | 'bash -s') cat > /dev/null ;;
        *flock*) [ ! -e "$HOME/running" ] ;;
        esac""",
    "rsync": "",
    "sleep": 'rm -f "$HOME/running"',
}

OFFER = "vastai search offers id=12 --storage 55 --raw"


@pytest.fixture
def vast(home: Path) -> Callable[..., tuple[int, str, list[str]]]:
    """Run the script, at a terminal if something is ``typed``: exit code, what it printed, what was asked."""
    (home / "bin").mkdir()
    for name, text in FAKES.items():
        (home / "bin" / name).write_text(f'#!/bin/bash\necho "{name} $*" >> "$HOME/asked"\n{text}\n')
        (home / "bin" / name).chmod(0o755)
    (home / "cloud").mkdir()
    (home / "cloud/vast.sh").write_text(vast_script(JOB))

    def run(*words: str, typed: str | None = None, piped: str = "", **env: str) -> tuple[int, str, list[str]]:
        (home / "asked").write_text("")
        env = {
            "STATUS": "running",
            "INSTALL": "0",
            "OFFERS": '[{"id": 12, "dph_total": 0.8}]',
            "WANDB_API_KEY": "a $ecret's",
            "HOME": str(home),
        } | env
        env["PATH"] = f"{home / 'bin'}:{os.environ['PATH']}"
        keyboard, terminal = pty.openpty()
        os.write(keyboard, f"{typed}\n".encode())
        given: dict[str, Any] = {"stdin": terminal} if typed is not None else {"input": piped}
        command = ["bash", "cloud/vast.sh", *words]
        done = subprocess.run(command, env=os.environ | env, cwd=home, text=True, capture_output=True, timeout=60, **given)
        os.close(keyboard)
        os.close(terminal)
        return (
            done.returncode,
            done.stdout + done.stderr,
            [line for line in (home / "asked").read_text().splitlines() if line[:5] != "sleep"],
        )

    return run


def test_vast_lists_offers_and_rents_nothing_without_a_terminal_a_price_and_the_secrets(vast: Any) -> None:
    code, _, asked = vast()
    assert code == 0 and len(asked) == 1 and asked[0].startswith("vastai search offers gpu_name in")
    assert "num_gpus=2" in asked[0] and "cuda_vers>=13.0" in asked[0]
    assert vast("rent", "12", piped="2.56\n")[::2] == (1, [])
    code, said, asked = vast("rent", "12", typed="2.5")
    assert code == 1 and said.startswith("nothing is rented") and asked == [OFFER]
    code, said, asked = vast("rent", "12", typed="2.56", WANDB_API_KEY="")
    assert code == 1 and "WANDB_API_KEY is not set" in said and asked == []
    assert vast("destroy")[0] == 2 and vast("destroy", "7")[2] == ["vastai destroy instance 7"]


def test_what_is_typed_is_the_price_of_the_offer_and_not_of_the_plan(vast: Any) -> None:
    dearer = '[{"id": 12, "dph_total": 2.4}]'  # three times what was planned
    code, said, asked = vast("rent", "12", typed="2.56", OFFERS=dearer)
    assert code == 1 and "Offer 12: $2.40 per hour, at most 3.2 h = $7.68. Type 7.68 to rent: " in said
    assert "nothing is rented" in said and asked == [OFFER]
    _, _, asked = vast("rent", "12", typed="7.68", OFFERS=dearer)
    assert asked[0] == OFFER and asked[1].startswith("vastai create instance 12 ")


@pytest.mark.parametrize("answer", ["[]", "no such offer"])
def test_an_offer_that_is_gone_is_not_rented(vast: Any, answer: str) -> None:
    code, said, asked = vast("rent", "12", typed="2.56", OFFERS=answer)
    assert code == 1 and said == "offer 12 cannot be rented now: list the offers again, and take another\n" and asked == [OFFER]


def test_a_rented_machine_is_sent_everything_once_and_destroyed_when_the_results_are_here(vast: Any, home: Path) -> None:
    (home / "cloud" / JOB.name / "runs").mkdir(parents=True)
    code, said, asked = vast("rent", "12", typed="$2.56")
    assert code == 1 and "rent again to continue it" in said  # the fake rsync brought no `finished`
    copies = [line for line in asked if line.startswith("rsync")]
    to = [line.rpartition(" ")[2].removeprefix("root@10.0.0.1:") for line in copies]
    assert to[:3] == ["gptshake/", "gptshake-inputs/0-book.txt", "gptshake-work/"] and set(to[3:]) == {f"{JOB.name}/"}
    assert "--exclude=.env* --exclude=/.git/config" in copies[0] and copies[0].endswith("/sources/ root@10.0.0.1:gptshake/")
    assert asked[-1] == "vastai destroy instance 7" and [line for line in asked if "destroy" in line] == asked[-1:]
    started = [place for place, line in enumerate(asked) if "setsid nohup" in line]
    assert started and all(asked.index(line) < started[0] for line in copies[:3])
    secret = subprocess.run(["bash", "-c", '. ./secrets; printf %s "$WANDB_API_KEY"'], cwd=home, capture_output=True, text=True).stdout
    assert secret == "a $ecret's" and "ecret" not in "".join(asked) and "ecret" not in said


def test_connecting_again_sends_nothing(vast: Any, home: Path) -> None:
    (home / "cloud" / JOB.name / "runs").mkdir(parents=True)
    (home / "cloud" / JOB.name / "finished").touch()
    (home / "running").touch()
    code, said, asked = vast("fetch", "7")
    assert code == 0, said
    assert len([line for line in asked if line.startswith("rsync")]) == 4  # twice, in two passes
    assert not any(line.startswith("rsync") and "10.0.0.1" in line.rpartition(" ")[2] for line in asked)
    assert not any("cat" in line or "stdin" in line or "create" in line for line in asked) and asked[-1] == "vastai destroy instance 7"


@pytest.mark.parametrize("fault", [{"STATUS": "loading"}, {"INSTALL": "1"}])
def test_a_machine_on_which_nothing_could_be_started_is_destroyed(vast: Any, fault: dict[str, str]) -> None:
    code, said, asked = vast("rent", "12", typed="2.56", **fault)
    assert code == 1 and "nothing was started, and instance 7 is destroyed" in said
    assert asked[-1] == "vastai destroy instance 7" and not any("setsid" in line for line in asked)


@pytest.mark.slow
def test_a_lost_machine_is_continued_by_another_from_what_was_copied(tmp_path: Path, book: Path) -> None:
    """The first is killed with all its processes; the second restores a copy, which was taken while the run wrote, and ends with the same rows."""
    if shutil.which("rclone") is None:
        pytest.skip("rclone is not installed")
    words = "model=tiny model.n_layer=1 model.n_head=2 model.n_embd=16 model.block_size=16 data=text_char data.batch_size=8 trainer=cpu logger=none"
    words += (
        f" trainer.threads=1 trainer.precision=32-true trainer.max_steps=1500 trainer.val_check_interval=50 callbacks=none data.path={book}"
    )
    job = replace(JOB, command=[*words.split(), "trainer.limit_val_batches=2", "resume=auto"], sync_minutes=1 / 120)
    run = sky_task(job)["run"].replace(f"place=out:bucket/gpts/{job.name}", "place=out:")
    remote = {"RCLONE_CONFIG_OUT_TYPE": "alias", "RCLONE_CONFIG_OUT_REMOTE": str(tmp_path / "bucket")}

    def machine(name: str) -> Path:
        (tmp_path / name / "sky_workdir").mkdir(parents=True)
        (tmp_path / name / "sky_workdir" / ".venv").symlink_to(sys.prefix)
        return tmp_path / name

    def rows(folder: Path) -> list[tuple[Any, ...]]:
        (file,) = folder.glob("runs/*/metrics.csv")
        return [tuple(row.get(key) for key in ("step", "train/loss", "val/loss", "train/lr")) for row in read_rows(file)]

    first = machine("first")
    env = os.environ | remote | {"HOME": str(first)}
    lost = subprocess.Popen(["bash", "-c", run], env=env, cwd=first, start_new_session=True, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120

    def copied(pattern: str, known: Any = frozenset()) -> set[Any]:
        while not (new := {(path.parent.name, path.stat().st_size) for path in tmp_path.glob(f"bucket/runs/*/{pattern}")} - known):
            assert lost.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        return new

    # The first copy has ended when the second begins with the rows; rclone's folders, unlike its buckets, show files that are half there.
    copied("checkpoints/step-*/state.json")
    copied("metrics.csv", copied("metrics.csv"))
    copied("checkpoints/step-*/state.json", copied("checkpoints/step-*/state.json"))
    os.killpg(lost.pid, signal.SIGKILL)
    lost.wait()
    done = shell(run, machine("second"), **remote)
    assert done.returncode == 0 and "resuming after step" in done.stdout, done.stderr
    assert (tmp_path / "bucket/finished").exists() and len(rows(tmp_path / "bucket")) == 1500
    whole = shell(run, machine("third"), RCLONE_CONFIG_OUT_TYPE="alias", RCLONE_CONFIG_OUT_REMOTE=str(tmp_path / "other"))
    assert whole.returncode == 0 and rows(tmp_path / "bucket") == rows(tmp_path / "other")


# --- SkyPilot


@pytest.mark.skypilot
def test_skypilots_own_parser_reads_the_same_from_the_files(tmp_path: Path) -> None:
    if not PYTHON.exists():
        pytest.skip("SkyPilot is not installed: nox --session skypilot")
    jobs = {cloud.replace("/", "-"): on(cloud) for cloud in EVERYWHERE}
    (tmp_path / "book.txt").write_text("a text")
    for name, job in jobs.items():
        file = tmp_path / f"{name}.yaml"
        file.write_text(sky_text(replace(job, files={"gptshake-inputs/0-book.txt": tmp_path / "book.txt"})))
    env = os.environ | {"HOME": str(tmp_path), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    words = [PYTHON, "-c", READ, *(f"{name}.yaml" for name in jobs)]
    done = subprocess.run(words, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for job, read in zip(jobs.values(), map(json.loads, done.stdout.splitlines()), strict=True):
        assert read["clouds"] == [job.cloud.partition("/")[0]] and bool(read["spot"]) == job.spot and read["disk"] == 55
        assert all(count == 2 for gpus in read["gpus"] for count in gpus.values())
        assert read["down"] and read["minutes"] == 10 and read["nodes"] == 1 and read["workdir"]["ref"] == COMMIT
        assert read["mounts"] == ({"/gptshake-bucket": "MOUNT_CACHED"} if job.can.mounts else {}) and "resume=auto" in read["run"]


@pytest.mark.parametrize(
    ("changes", "terminal", "sky", "key", "sentence"),
    [
        ({}, False, True, "k", "asks for its price to be typed, and there is no terminal here: leave it out"),
        ({"sync": None}, True, True, "k", r"needs task\.sync=; without it there are plain commands for Vast only"),
        ({}, True, False, "k", "calls `sky`, which is not installed"),
        ({}, True, True, None, "WANDB_API_KEY is not set, and the machine needs it: export it in this shell"),
        ({}, True, True, "k", ""),
    ],
)
def test_what_cannot_be_started_is_refused_before_anything_is_written(
    changes: dict[str, Any], terminal: bool, sky: bool, key: str | None, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sky").write_text("#!/bin/sh\n")
    (tmp_path / "sky").chmod(0o755 if sky else 0o644)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: terminal))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: True))
    for name, value in {"WANDB_API_KEY": key, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=sentence) if sentence else nullcontext():
        _check_start(replace(JOB, **changes))


def test_the_highest_price_counts_idle_minutes_only_where_skypilot_waits_for_them() -> None:
    assert _priced(JOB, 1.0, 0.8).longest == pytest.approx(3 + 0.2 + 15 / 60)
    assert _priced(replace(JOB, sync=None), 1.0, 0.8).longest == pytest.approx(3 + 0.2 + 5 / 60)
