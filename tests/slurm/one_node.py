"""A real Slurm of one node on the loopback, in a folder of its own: started, used, stopped.

Debian's `slurm-wlm` and `munge`, run as root, with their own ports, keys, logs and spool, so that a
Slurm that this machine may have is not touched.
"""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

MUNGED, SLURMCTLD, SLURMD = "/usr/sbin/munged", "/usr/sbin/slurmctld", "/usr/sbin/slurmd"
NODE = "node1"
CONFIG = """\
ClusterName=milan
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmctldPort={controller_port}
SlurmdPort={node_port}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# Jobs begin at once instead of at the scheduler's next round; those that ended stay listed.
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0,bf_interval=1
MinJobAge=86400
# A node that was set down stays so until it is told to come back.
ReturnToService=0
KillWait=120
UnkillableStepTimeout=180
SlurmdParameters=config_overrides
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@contextlib.contextmanager
def slurm_cluster(root: Path) -> Iterator[dict[str, str]]:
    """Start munged, slurmctld and slurmd in a folder; yield the environment that names them."""
    for name in ("state", "spool"):
        (root / name).mkdir(parents=True, exist_ok=True)
    config = root / "slurm.conf"
    controller_port, node_port = _free_ports(2)
    config.write_text(
        CONFIG.format(
            root=root,
            host=socket.gethostname(),
            node=NODE,
            controller_port=controller_port,
            node_port=node_port,
        )
    )
    environment = os.environ | {"SLURM_CONF": str(config)}
    with contextlib.ExitStack() as stack:
        stack.enter_context(_daemon([*_munged(root)], environment, root / "munged.out"))
        stack.enter_context(
            _daemon([SLURMCTLD, "-D", "-f", str(config)], environment, root / "slurmctld.out")
        )
        stack.enter_context(
            _daemon([SLURMD, "-D", "-N", NODE, "-f", str(config)], environment, root / "slurmd.out")
        )
        _wait_for_answer(environment)
        yield environment


def _munged(root: Path) -> Iterator[str]:
    key = root / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    yield from (MUNGED, "--foreground", "--force", f"--socket={root}/munge.socket")
    yield from (f"--key-file={key}", f"--pid-file={root}/munged.pid")
    yield from (f"--log-file={root}/munged.log", f"--seed-file={root}/munged.seed")


@contextlib.contextmanager
def _daemon(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait_for_answer(environment: dict[str, str]) -> None:
    """Run an empty job: whoever asks before all daemons are there is made to wait by Slurm."""
    subprocess.run(["sinfo"], env=environment, check=True, timeout=60)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
