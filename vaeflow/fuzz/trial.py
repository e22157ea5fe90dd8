"""One trial in a process of its own, and the verdict."""

from __future__ import annotations

import multiprocessing
import os
import re
import resource
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from vaeflow.fuzz.cases import Case

SCRIPTS = Path(__file__).parents[2] / "scripts"
SECONDS, BYTES = 120, 12 * 2**30
"""What a trial may take: beyond the seconds it has failed, beyond the address space there is no memory."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["vaeflow.commands.training", "vaeflow.commands.evaluation", "vaeflow.messages"])


def run_in(folder: str, case: Case) -> tuple[int | None, str, bool]:
    """Exit code (None: not over in time), output, and whether parameters changed and are finite."""
    for name, content in case.files.items():
        path = Path(folder, name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    changed = _context.Value("i", 0, lock=False)
    process = _context.Process(target=_run, args=(folder, case.script, case.arguments, changed))
    process.start()
    process.join(SECONDS)
    is_over = not process.is_alive()
    process.kill()
    process.join()
    output = Path(folder, "output.txt")
    text = output.read_text(errors="replace").replace("\r", "\n") if output.is_file() else ""
    return process.exitcode if is_over else None, text, bool(changed.value)


def verdict(case: Case) -> str | None:
    """What is wrong with how a case ends; None where it is a trained step or one clear sentence."""
    with tempfile.TemporaryDirectory() as folder:
        code, output, changed = run_in(folder, case)
    if code is None:
        return f"not over after {SECONDS} s"
    sentences = re.findall(r"^(?:error|[\w.]+\.py: error): .+", output, re.MULTILINE)
    if "Traceback" in output:
        what = "a traceback"
    elif code == 0:
        if case.script == "evaluate" or changed or "usage:" in output:
            return None
        what = "no parameter changed, or one is not finite"
    elif code in (1, 2) and len(sentences) == 1:
        return None
    else:
        what = f"{len(sentences)} sentences"
    return f"exit code {code}, {what}: {output.strip()[-800:]}"


def _run(folder: str, script: str, arguments: tuple[str, ...], changed: Any) -> None:
    """The command, watched: whether a step changed parameters, which are finite."""
    import torch

    from vaeflow.commands.evaluation import evaluate_checkpoint
    from vaeflow.commands.training import train
    from vaeflow.messages import main
    from vaeflow.models import LikelihoodModel

    torch.set_num_threads(1)
    os.chdir(folder)
    descriptor = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    before: list[torch.Tensor] = []

    def start(self: Any) -> None:
        before[:] = [parameter.detach().clone() for parameter in self.parameters()]

    def end(self: Any) -> None:
        after = list(self.parameters())
        finite = all(bool(torch.isfinite(parameter).all()) for parameter in after)
        moved = any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
        changed.value = finite and (moved or not self.is_trained_by_gradient)

    on_train_start = LikelihoodModel.on_train_start

    def started(self: Any) -> None:
        on_train_start(self)
        start(self)

    LikelihoodModel.on_train_start, LikelihoodModel.on_train_end = started, end  # type: ignore[method-assign]
    sys.argv = [str(SCRIPTS / f"{script}.py"), *arguments]
    main({"train": train, "evaluate": evaluate_checkpoint}[script])
