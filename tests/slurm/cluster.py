"""A Slurm of two nodes and one apart on this machine, from the distribution's packages, nothing installed.

`python -m tests.slurm.cluster` fetches the packages into the cache, and says why where they cannot be had.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.core.cache.cache_dir import cache_dir

PACKAGES = (
    "slurmctld",
    "slurmd",
    "slurm-client",
    "slurm-wlm-basic-plugins",
    "libslurm38",
    "libmunge2",
    "munge",
    "libhwloc15",
)
NODES = ("n1", "n2", "n3")
BAD = "n4"
"""A node that is started by the tests that need it, without what they hide from it."""
LIBRARIES = "usr/lib/x86_64-linux-gnu"

_CONF = """\
ClusterName=trial
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
PluginDir={root}/{libraries}/slurm-wlm
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000,sched_interval=1,bf_interval=1
SlurmdTimeout=5
SlurmctldTimeout=5
MessageTimeout=3
KillWait=5
OverTimeLimit=0
MinJobAge=600
ReturnToService=2
SlurmdParameters=config_overrides
JobRequeue=1
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 State=UNKNOWN
NodeName=n3 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[3]} CPUs=4 State=UNKNOWN
NodeName=n4 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[4]} CPUs=4 State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
PartitionName=urgent Nodes=n1,n2 PriorityTier=9 MaxTime=INFINITE State=UP
PartitionName=brief Nodes=n3 MaxTime=INFINITE State=UP
PartitionName=bad Nodes=n4 MaxTime=INFINITE State=UP
"""


class Unavailable(Exception):
    """The packages cannot be had here; says why."""


def packages() -> Path:
    """The root of the unpacked packages, fetched once. Raises Unavailable."""
    root = cache_dir("slurm") / "root"
    if (root / "complete").exists():
        return root
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise Unavailable(f"no {tool} here")
    with tempfile.TemporaryDirectory() as folder:
        _fetch(Path(folder))
        for package in Path(folder).glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)
    (root / "complete").touch()
    return root


def _fetch(folder: Path) -> None:
    folder.chmod(0o755)
    done = subprocess.run(
        ["apt-get", "download", *PACKAGES], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Unavailable(f"apt-get download: {done.stderr.strip().rpartition(chr(10))[2]}")


@dataclass
class Cluster:
    """One controller, three node daemons and a private munged, under `folder`."""

    root: Path
    folder: Path
    env: dict[str, str] = field(default_factory=dict)
    _children: dict[str, subprocess.Popen] = field(default_factory=dict)

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "state").mkdir()
        self.env = {
            "PATH": f"{self.root}/usr/bin:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": f"{self.root}/{LIBRARIES}:{self.root}/{LIBRARIES}/slurm-wlm",
            "SLURM_CONF": str(self.folder / "slurm.conf"),
        }
        self._write_conf()
        self._start_munged()
        self._daemon("slurmctld", "slurmctld-wlm", "-D")
        for node in NODES:
            self.start_node(node)
        self.wait_until_idle(NODES)

    def start_node(self, node: str, hidden: Sequence[Path] = ()) -> None:
        """`hidden`: folders that are empty for all that runs on this node."""
        stepd = f"{self.root}/usr/sbin/slurmstepd-wlm"
        shutil.rmtree(self.folder / f"spool-{node}", ignore_errors=True)
        options = ("-D", "-N", node, "-d", stepd)
        self._daemon(f"slurmd-{node}", "slurmd-wlm", *options, before=without(hidden))

    def restart_node(self, node: str, hidden: Sequence[Path]) -> None:
        """So that it stands ready without these folders."""
        if f"slurmd-{node}" in self._children:
            self.kill_node(node)
        self.start_node(node, hidden)
        self.wait_until_idle([node])

    def kill_node(self, node: str) -> None:
        """As if its plug were pulled: the daemon, its step daemons and all that they started."""
        daemon = self._children.pop(f"slurmd-{node}")
        doomed = [daemon.pid, *self._of_node(node)]
        for pid in doomed:
            _kill(pid)
        daemon.wait()

    def stop(self) -> None:
        if "slurmctld" in self._children:
            self.call("scancel", f"--user={_user()}", check=False)
        for node in (*NODES, BAD):
            if f"slurmd-{node}" in self._children:
                self.kill_node(node)
        for child in self._children.values():
            child.terminate()
        for child in self._children.values():
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()

    def call(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(command, env=os.environ | self.env, capture_output=True, text=True, check=False)
        assert not (check and done.returncode), f"{command}: {done.stderr}\n{self.logs()}"
        return done.stdout

    def jobs(self) -> dict[str, str]:
        """State by job id, of those that have not ended."""
        lines = self.call("squeue", "--noheader", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def logs(self) -> str:
        """The last words of every daemon."""
        files = sorted([*self.folder.glob("*.log"), *self.folder.glob("*.out")])
        return "\n".join(f"{file.name}: {file.read_text()[-1500:]}" for file in files)

    def _write_conf(self) -> None:
        user, host = _user(), socket.gethostname()
        text = _CONF.format(
            host=host,
            user=user,
            folder=self.folder,
            root=self.root,
            libraries=LIBRARIES,
            ports=_free_ports(5),
        )
        (self.folder / "slurm.conf").write_text(text)

    def _start_munged(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        places = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={self.folder}/munge.{name}" for option, name in places.items()]
        self._daemon("munged", "munged", "--foreground", "--force", f"--key-file={key}", *options)
        _wait(lambda: (self.folder / "munge.socket").exists(), self.logs)

    def _daemon(self, name: str, binary: str, *options: str, before: Sequence[str] = ()) -> None:
        with (self.folder / f"{name}.out").open("ab") as out:
            self._children[name] = subprocess.Popen(
                [*before, f"{self.root}/usr/sbin/{binary}", *options],
                env=os.environ | self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def wait_until_idle(self, nodes: Sequence[str] = NODES[:2]) -> None:
        """Of the partition `main`; what has a node apart goes on beside the tests."""

        def states() -> str:
            asked = f"--nodes={','.join(nodes)}"
            return self.call("sinfo", "--noheader", "--Node", asked, "--format=%N %T", check=False)

        def idle() -> bool:
            return {*states().splitlines()} == {f"{node} idle" for node in nodes}

        _wait(idle, lambda: f"{states()}\n{self.logs()}")

    def _of_node(self, node: str) -> list[int]:
        """Every process that Slurm started on a node, and the step daemons that watch over them."""
        marks = (f"SLURMD_NODENAME={node}", f"SLURM_CONF={self.env['SLURM_CONF']}")
        jobs = processes(*marks)
        above = {parent for pid in jobs if _name(parent := _parent(pid)).startswith("slurmstepd")}
        return [*above, *jobs]


def without(folders: Sequence[Path]) -> list[str]:
    """What a command is given to that is to find these folders empty, whatever others see there."""
    mounts = [f"mount -t tmpfs none {shlex.quote(str(folder))}" for folder in folders]
    return ["unshare", "--mount", "sh", "-c", " && ".join([*mounts, 'exec "$@"']), "sh"] if folders else []


def processes(*marks: str) -> list[int]:
    """That have all of this in their environment."""
    numbers = [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]
    return [pid for pid in numbers if {*marks} <= {*_environment(pid)}]


def _environment(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _wait(condition, explain, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.1)


if __name__ == "__main__":
    try:
        print(packages())
    except Unavailable as reason:
        print(f"Slurm is not tested: {reason}", file=sys.stderr)
        sys.exit(1)
