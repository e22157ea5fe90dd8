"""How many processes a command runs in, and what becomes of them."""

from __future__ import annotations

import os
import signal
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.plugins.environments import TorchElasticEnvironment
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

from vaeflow.errors import VaeflowError


def as_launched(devices: Any, num_nodes: int = 1) -> tuple[Any, int]:
    """The numbers of devices of a machine and of machines: those that torchrun has started processes for, since
    Lightning would take the default of one device for as many runs that know nothing of each other.

    Args:
        devices: as Lightning's Trainer takes it.

    Raises:
        VaeflowError: if they were given, and are others.
    """
    if not TorchElasticEnvironment.detect():
        return devices, num_nodes
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    machines = int(os.environ["WORLD_SIZE"]) // here
    if devices not in (1, "1", -1, "-1", "auto"):
        count = len(devices) if isinstance(devices, list) else int(devices)
        if count != here:
            raise VaeflowError(f"torchrun has started {here} processes on this machine, but devices is {devices}.")
    if num_nodes not in (1, machines):
        raise VaeflowError(f"torchrun has started processes on {machines} machines, but num_nodes is {num_nodes}.")
    return devices if isinstance(devices, list) else here, machines


def check_devices(trainer: Trainer) -> None:
    """Raise a :class:`VaeflowError` where Lightning would start many more processes than there are cores for."""
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
