"""A Slurm of two nodes on this machine, in a folder and on ports of its own: munged, slurmctld and a slurmd for each node."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
NODES = ("n1", "n2")
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
MessageTimeout=2
KillWait=2
ReturnToService=2
SlurmdTimeout=3
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=1000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def lacking() -> str:
    """Why there can be no such cluster on this machine; empty if there can."""
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        return f"a Slurm of its own needs {missing[0]} (Debian: slurmctld, slurmd, slurm-client, munge)"
    return "" if os.getuid() == 0 else "a Slurm of its own needs root"


def until(happened: Callable[[], object], seconds: float = 60.0) -> None:
    limit = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < limit, "it never happened"
        time.sleep(0.05)


class Cluster:
    """Runs from its construction to ``close``; its commands find it by SLURM_CONF."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: it holds a socket
        sockets = [socket.socket() for _ in range(3)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
        for one in sockets:
            one.close()
        for name in ("state", *NODES):
            (self.folder / name).mkdir()
        self.conf = self.folder / "slurm.conf"
        self.conf.write_text(CONF.format(host=socket.gethostname().partition(".")[0], folder=self.folder, ports=ports))
        (self.folder / "munge.key").write_bytes(os.urandom(128))
        (self.folder / "munge.key").chmod(0o600)
        files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log", "seed-file": "seed"}
        self.run("munged", "--force", *(f"--{option}={self.folder / name}" for option, name in files.items()))
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        until(lambda: self.run("sinfo", "-h", "-t", "idle", "-o", "%D").strip() == "2")

    def run(self, *command: str) -> str:
        """What a command prints that finds this cluster."""
        return subprocess.run(command, env=os.environ | {"SLURM_CONF": str(self.conf)}, capture_output=True, text=True, check=True).stdout

    def start_controller(self) -> None:
        self.run("slurmctld", "-f", str(self.conf))

    def stop_controller(self) -> None:
        os.kill(int((self.folder / "slurmctld.pid").read_text()), signal.SIGKILL)

    def start_node(self, node: str) -> None:
        self.run("slurmd", "-N", node, "-f", str(self.conf))

    def kill_node(self, node: str) -> None:
        """End a node's daemon and all that it runs, as a machine that loses its power does."""
        os.kill(int((self.folder / f"{node}.pid").read_text()), signal.SIGKILL)
        for pid in self.processes(node):
            for one in (int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]), pid):  # what watches it, too
                os.kill(one, signal.SIGKILL)

    def processes(self, node: str = "", name: str = "") -> list[int]:
        """What the jobs of a node run, or the processes of this cluster with this name."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                variables, comm = (process / "environ").read_bytes().split(b"\0"), (process / "comm").read_text().strip()
            except OSError:
                continue
            fits = comm == name if name else f"SLURMD_NODENAME={node}".encode() in variables
            if fits and f"SLURM_CONF={self.conf}".encode() in variables:
                found.append(int(process.name))
        return found

    def jobs(self, states: str = "all") -> dict[str, str]:
        """Id of each job -> its state."""
        rows = self.run("squeue", "-h", "-t", states, "-o", "%i %T").splitlines()
        return dict(row.split() for row in rows)

    def signal(self, identity: str, *options: str) -> None:
        self.run("scancel", *options, identity)

    def close(self) -> None:
        daemons = [int(file.read_text()) for file in self.folder.glob("*.pid")]
        steps = self.processes(name="slurmstepd")  # one that has not reported its end yet would try for ever
        for pid in [*daemons, *steps, *(pid for node in NODES for pid in self.processes(node))]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)
