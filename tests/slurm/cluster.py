"""A SLURM of two nodes with a GPU each, all of it on this machine and below one folder.

It installs nothing: Debian's packages `slurm-wlm` and `munge` bring the daemons. The GPUs are other
character devices: SLURM counts them and never opens them.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

#: What nodes claim to have, whatever this machine has.
CPUS, MEMORY_MB = 8, 40_000
NODES = {"n1": "/dev/null", "n2": "/dev/zero"}

CONFIG = """\
ClusterName=vitfeat
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
# A job that lost its node waits as long as credentials last: 120 s, if not told.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_min_interval=100000,bf_interval=1
# A node may claim more than the machine has.
SlurmdParameters=config_overrides
# A node that is set down stays so until it is resumed.
ReturnToService=0
GresTypes=gpu
# No accounting: these are the records.
Prolog={folder}/prolog
Epilog={folder}/epilog
PrologFlags=Alloc
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.txt
MinJobAge=3600
KillWait=5
PartitionName=main Default=YES Nodes=ALL MaxTime={minutes}
"""
NODE = """\
NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} \\
CPUs={cpus} RealMemory={mb} Gres=gpu:1
"""


@dataclass
class Cluster:
    """The running daemons."""

    folder: Path
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What commands of SLURM need, also within jobs."""
        return {
            **os.environ,
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
        }

    def call(self, *command: str) -> str:
        done = subprocess.run(
            command, capture_output=True, text=True, env=self.environment, check=False
        )
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def jobs(self) -> list[Record]:
        """Return SLURM's records of all jobs, in the order of their submission."""
        # Without any job it prints a sentence.
        text = self.call("scontrol", "show", "jobs", "--details", "--oneliner")
        records = [Record(line) for line in text.splitlines() if line.startswith("JobId=")]
        return sorted(records, key=lambda record: int(record["JobId"]))

    def records(self, comment: str) -> list[Record]:
        """Return those whose comment begins so; the executor's says rule and wildcards."""
        return [job for job in self.jobs() if job.get("Comment").startswith(comment)]

    def allotments(self) -> list[Allotment]:
        """Return which GPU which job had when, as the nodes' prologs and epilogs wrote it down."""
        had, starts = [], {}
        for line in (self.folder / "gpus.txt").read_text().splitlines():
            when, time, job, node, gpus = line.split(" ")
            if when == "prolog":
                starts[job] = float(time)
            elif gpus:
                had.append(Allotment(job, node, gpus, starts[job], float(time)))
        return had

    def node_state(self, node: str) -> str:
        text = self.call("scontrol", "show", "node", node, "--oneliner")
        return re.findall(r" State=(\S+)", text)[0]


class Allotment(NamedTuple):
    """A GPU that a job had: its index on a node, from when until when."""

    job: str
    node: str
    gpu: str
    start: float
    end: float


class Record:
    """A job as `scontrol show job --details` tells of it."""

    def __init__(self, line: str) -> None:
        self.line = line
        self._fields = dict(re.findall(r"(\w+)=(\S*)", line))

    def __getitem__(self, key: str) -> str:
        return self._fields[key]

    def get(self, key: str) -> str:
        return self._fields.get(key, "")

    def __repr__(self) -> str:
        return f"{self['JobId']} {self.get('Comment')} {self['JobState']} {self['NodeList']}"


def until(true: Callable[[], object], what: str, seconds: float = 60, pause: float = 0.2) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(pause)


def left_behind(folder: Path) -> dict[int, str]:
    """Return the command lines of processes that the daemons of a folder started, by their ids."""
    found = {}
    mark = f"SLURM_CONF={folder}/slurm.conf".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            environment = (process / "environ").read_bytes().split(b"\0")
        except OSError:  # It has just ended.
            continue
        if mark in environment and int(process.name) != os.getpid():
            found[int(process.name)] = command.replace(b"\0", b" ").decode()
    return found


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """Start munged, slurmctld and two slurmd; stop them and all that they started at the end."""
    # The socket's path must be short, and munged wants folders that others cannot write.
    for name in ("bin", "state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "munge.key").write_bytes(os.urandom(64))
    (folder / "munge.key").chmod(0o600)
    # The executor takes SLURM_CONF out of a job's environment, since a site's is in /etc/slurm.
    _script(folder / "bin/srun", f'SLURM_CONF={folder}/slurm.conf exec {shutil.which("srun")} "$@"')
    # The nodes' own record of GPUs: `scontrol` forgets their indices when a job ends.
    for name in ("prolog", "epilog"):
        _script(
            folder / name,
            f'echo "{name} $(date +%s.%N) $SLURM_JOB_ID $SLURMD_NODENAME $SLURM_JOB_GPUS" '
            f">> {folder}/gpus.txt",
        )
    host = socket.gethostname().partition(".")[0]
    port, *ports = _free_ports(1 + len(NODES))
    text = CONFIG.format(host=host, port=port, folder=folder, minutes=24 * 60)
    for (name, _), node_port in zip(NODES.items(), ports, strict=True):
        text += NODE.format(name=name, host=host, port=node_port, cpus=CPUS, mb=MEMORY_MB)
    (folder / "slurm.conf").write_text(text)
    gres = "".join(f"NodeName={n} Name=gpu File={device}\n" for n, device in NODES.items())
    (folder / "gres.conf").write_text(gres)
    cluster = Cluster(folder)
    try:
        _start(
            cluster,
            [
                "munged",
                "--foreground",
                "--force",
                f"--socket={folder}/munge.socket",
                f"--key-file={folder}/munge.key",
                f"--pid-file={folder}/munged.pid",
                f"--seed-file={folder}/munged.seed",
                f"--log-file={folder}/munged.log",
            ],
        )
        until((folder / "munge.socket").exists, "munged's socket")
        _start(cluster, ["slurmctld", "-D", "-f", f"{folder}/slurm.conf"])
        for name in NODES:
            _start(cluster, ["slurmd", "-D", "-N", name, "-f", f"{folder}/slurm.conf"])
        until(lambda: _idle(cluster), "two idle nodes")
        yield cluster
    finally:
        _stop(cluster)


def _script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def _start(cluster: Cluster, command: list[str]) -> None:
    said = (cluster.folder / f"{command[0]}.out").open("ab")
    process = subprocess.Popen(
        command, stdout=said, stderr=said, stdin=subprocess.DEVNULL, env=cluster.environment
    )
    cluster.daemons.append(process)


def _idle(cluster: Cluster) -> bool:
    done = subprocess.run(
        ["sinfo", "--noheader", "--Node", "--format=%T"],
        capture_output=True,
        text=True,
        env=cluster.environment,
        check=False,
    )
    return done.stdout.split() == ["idle"] * len(NODES)


def _stop(cluster: Cluster) -> None:
    if len(cluster.daemons) > 1:
        subprocess.run(["scancel", "--full", "--user=root"], env=cluster.environment, check=False)
    # In this order jobs end before their nodes, and credentials outlive both.
    for process in reversed(cluster.daemons):
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    # What a node that was lost no longer knew of.
    for number in left_behind(cluster.folder):
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
