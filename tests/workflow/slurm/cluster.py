"""A private SLURM cluster of one node, from Debian's packages, without systemd or accounting.

Everything lies in one new folder; the daemons are children of this process, and only they and the
jobs of this cluster are ever stopped.
"""

import contextlib
import getpass
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "srun")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"

SLURM_CONF = """\
ClusterName=cdl
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={base}/munge.socket,cred_expire=30
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
PlugStackConfig={base}/plugstack.conf
MailProg=/bin/true
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd.pid
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobCompType=jobcomp/filetxt
JobCompLoc={base}/completed
ReturnToService=2
MinJobAge=3600
MessageTimeout=100
KillWait=3
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=DEFAULT CPUs=2 RealMemory=64000 Gres=gpu:2
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]}
PartitionName=cpu Nodes=node
PartitionName=gpu Nodes=node
PartitionName=urgent Nodes=node PriorityTier=9
"""


def missing() -> list[str]:
    """Return the programs that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


class Cluster:
    """A running cluster; programs find it through `environment`.

    A job's step is started without SLURM_CONF, so a wrapper of srun on PATH says it again.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.environment = os.environ | {
            "SLURM_CONF": f"{base}/slurm.conf",
            "PATH": f"{base}/bin:{PATH}",
        }
        self.daemons: list[subprocess.Popen] = []

    def configure(self) -> None:
        for name in ("state", "spool", "bin"):
            (self.base / name).mkdir()
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
            for unused in sockets:
                unused.bind(("127.0.0.1", 0))
            ports = [unused.getsockname()[1] for unused in sockets]
        host, user = platform.node().split(".")[0], getpass.getuser()
        text = SLURM_CONF.format(base=self.base, ports=ports, host=host, user=user)
        (self.base / "slurm.conf").write_text(text)
        (self.base / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
        (self.base / "plugstack.conf").touch()
        # SLURM counts a GPU only if it is a device file; these two are never opened
        devices = "".join(f"Name=gpu File=/dev/{name}\n" for name in ("null", "zero"))
        (self.base / "gres.conf").write_text(devices)
        key = self.base / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        srun = self.base / "bin" / "srun"
        real = shutil.which("srun", path=PATH)
        srun.write_text(f'#!/bin/sh\nexport SLURM_CONF={self.base}/slurm.conf\nexec {real} "$@"\n')
        srun.chmod(0o755)

    def start(self) -> None:
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed"}
        munge = [f"--{option}={self.base}/munge.{end}" for option, end in files.items()]
        self._daemon("munged", "--foreground", "--force", *munge)
        self._until(lambda: (self.base / "munge.socket").exists(), "munged")
        self._daemon("slurmctld", "-D")
        self._until(lambda: self.ask("scontrol", "ping", check=False).count("UP"), "slurmctld")
        self._daemon("slurmd", "-D", "-N", "node")
        self._until(lambda: self.ask("sinfo", "-h", "-t", "idle", "-o", "%n"), "slurmd")

    def stop(self) -> None:
        """Cancel this cluster's jobs, then end its daemons in reverse order."""
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired, TimeoutError):
            self.ask("scancel", "--user", getpass.getuser())
            self._until(lambda: not self.ask("squeue", "-h"), "the last job's end")
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
        for pid in self._left_over():
            os.kill(pid, signal.SIGKILL)

    def ask(self, *command: str, check: bool = True) -> str:
        """Run one of SLURM's programs and return its output."""
        options = {"env": self.environment, "text": True, "capture_output": True, "timeout": 120}
        result = subprocess.run(command, check=False, **options)
        assert not check or result.returncode == 0, (command, result.stdout, result.stderr)
        return result.stdout.strip()

    def jobs(self) -> list[dict[str, str]]:
        """Return the controller's records of all jobs, including ended ones, oldest first."""
        lines = self.ask("scontrol", "show", "jobs", "--oneliner").splitlines()
        found = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines]
        return [job for job in found if job]  # without any it says so

    def completed(self) -> str:
        """Return the record of ended jobs (jobcomp/filetxt)."""
        return (self.base / "completed").read_text()

    def _daemon(self, *command: str) -> None:
        log = open(self.base / f"{command[0]}.log", "w")  # noqa: SIM115
        daemon = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        self.daemons.append(daemon)

    def _until(self, condition, what: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                logs = [path.read_text()[-2000:] for path in self.base.glob("*.log")]
                raise TimeoutError(f"no sign of {what}; logs:\n" + "\n".join(logs))
            time.sleep(0.2)

    def _left_over(self) -> list[int]:
        """Return the processes with this cluster's folder and a job in their environment."""
        marks = (b"SLURM_JOB_ID=", os.fsencode(f"PATH={self.base}/bin:"))
        found = []
        for environment in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                content = environment.read_bytes()
                if all(mark in content for mark in marks):
                    found.append(int(environment.parent.name))
        return found


@contextlib.contextmanager
def running():
    """Start a cluster; stop it and delete its folder afterwards."""
    base = Path(tempfile.mkdtemp(prefix="cdl-slurm-"))
    cluster = Cluster(base)
    try:
        cluster.configure()
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(base)
