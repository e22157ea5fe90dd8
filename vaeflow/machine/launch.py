"""How many processes a command runs in, who has started them, and what becomes of them."""

from __future__ import annotations

import os
import signal
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    LSFEnvironment,
    MPIEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from pytorch_lightning.utilities import rank_zero_only

from vaeflow.errors import VaeflowError

TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
SLURM = ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")
INTERACTIVE = ("bash", "interactive")
"""Names of SLURM's jobs that Lightning leaves alone, too."""
PLACES = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE")
"""What is left behind, at times, in the environment of an interactive job."""


def starter() -> str | None:
    """What has started this process beside others that work with it; None where it is on its own.

    Raises:
        VaeflowError: where the environment says so in part.
    """
    if TorchElasticEnvironment.detect():
        if missing := [name for name in TORCHRUN if not _is_number(name)]:
            raise VaeflowError(
                f"TORCHELASTIC_RUN_ID is set, as torchrun does, but {missing[0]} is no number: start this with "
                "torchrun, or unset TORCHELASTIC_RUN_ID."
            )
        return "torchrun"
    if all(map(_is_number, SLURM)) and os.environ.get("SLURM_JOB_NAME") not in INTERACTIVE:
        return "SLURM"
    if _is_number("MASTER_PORT") and (_is_number("LOCAL_RANK") or _is_number("NODE_RANK")):
        return "Lightning"
    if LSFEnvironment.detect():
        return "LSF"
    return "MPI" if MPIEnvironment.detect() else None


def _is_number(variable: str) -> bool:
    return os.environ.get(variable, "").isdecimal()


def forget_others() -> None:
    """Where this process is on its own, forget what its environment still says of its place among others."""
    if starter() is None:
        for name in PLACES:
            os.environ.pop(name, None)
        rank_zero_only.rank = 0  # type: ignore[attr-defined]


def cluster_environment() -> list[ClusterEnvironment]:
    """The plugin that keeps Lightning from the variables of a scheduler that did not start this process: those of an
    interactive job, in which it would wait for processes that nobody starts."""
    return [LightningEnvironment()] if starter() in (None, "Lightning") else []


def as_launched(devices: Any, num_nodes: int = 1) -> tuple[Any, int]:
    """The numbers of devices of a machine and of machines: those that torchrun has started processes for, since
    Lightning would take the default of one device for as many runs that know nothing of each other.

    Args:
        devices: as Lightning's Trainer takes it.

    Raises:
        VaeflowError: if they were given, and are others, or if processes are wanted that nobody has started.
    """
    started_by = starter()
    given = [name for name in devices.split(",") if name] if isinstance(devices, str) and "," in devices else devices
    count = len(given) if isinstance(given, list) else given
    if started_by == "SLURM":
        _check_tasks(count, num_nodes)
    if started_by is None and num_nodes > 1:
        raise VaeflowError(
            f"num_nodes is {num_nodes}, but nothing has started this on other machines: start it with torchrun or srun."
        )
    if started_by != "torchrun":
        return devices, num_nodes
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    machines = int(os.environ["WORLD_SIZE"]) // here
    if devices not in (1, "1", -1, "-1", "auto") and str(count) != str(here):
        raise VaeflowError(f"torchrun has started {here} processes on this machine, but devices is {devices}.")
    if num_nodes not in (1, machines):
        raise VaeflowError(f"torchrun has started processes on {machines} machines, but num_nodes is {num_nodes}.")
    return devices if isinstance(devices, list) else here, machines


def _check_tasks(devices: Any, num_nodes: int) -> None:
    """Raise a :class:`VaeflowError` unless SLURM has started a task for each device, as its variables say."""
    tasks = int(os.environ["SLURM_NTASKS"])
    if str(devices).isdecimal() and int(devices) * num_nodes != tasks:
        raise VaeflowError(
            f"SLURM has started {tasks} tasks (SLURM_NTASKS), but devices is {devices} and num_nodes {num_nodes}: set "
            "them to its --ntasks-per-node and --nodes, or, in an interactive job, unset SLURM_NTASKS."
        )
    if tasks > 1 and "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise VaeflowError(
            f"SLURM has started {tasks} tasks, but not with --ntasks-per-node, which tells Lightning who is where."
        )


def check_devices(trainer: Trainer) -> None:
    """Raise a :class:`VaeflowError` where Lightning would start many more processes than there are cores for, or wait
    for others than SLURM has started."""
    if starter() == "SLURM":
        _check_tasks(trainer.num_devices, trainer.num_nodes)
    most = 4 * (os.cpu_count() or 1)
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > most:
        raise VaeflowError(
            f"devices is {trainer.num_devices}, a process each: this machine has cores for at most {most}."
        )


def end_others(trainer: Trainer) -> None:
    """End the processes that Lightning has started beside this one, which would wait for it."""
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        launcher.kill(signal.SIGKILL)
