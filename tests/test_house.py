"""Where modules stand: imports go down, in no circle, those within functions counted."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import vaeflow

PACKAGE = Path(vaeflow.__file__).parent
FLOORS = [
    {"errors", "tracing"},
    {"functional", "files"},
    {"kernels", "machine"},
    {"noise"},
    {"nets", "estimate", "records", "latents"},
    {"bijections"},
    {"distributions"},
    {"objectives"},
    {"models", "data"},
    {"evaluation"},
    {"figures"},
    {"callbacks"},
    {"commands"},
]
"""Rooms, from the ground up: what is in one imports from floors below, and from its own room."""
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imports(name: str) -> Iterator[str]:
    """Our modules that a module imports, at once or late."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} has a relative import"
            wholes = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [whole if whole in MODULES else str(node.module) for whole in wholes]
        else:
            continue
        yield from (module for module in found if module in MODULES and module != name)


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "vaeflow"


def test_every_room_has_its_floor() -> None:
    assert {room(module) for module in MODULES} - {"vaeflow"} == set.union(*FLOORS)


def test_imports_go_down() -> None:
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    upward = [
        f"{module} imports {imported}"
        for module in MODULES
        for imported in imports(module)
        if "vaeflow" not in (room(module), room(imported))  # which has the version, and names that are imported on use
        if room(module) != room(imported) and floor[room(imported)] >= floor[room(module)]
    ]
    assert not upward


def test_there_is_no_circle() -> None:
    list(TopologicalSorter({module: set(imports(module)) for module in MODULES}).static_order())  # raises at a circle


def test_the_package_does_not_know_what_is_no_part_of_it() -> None:
    for path in MODULES.values():
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"benchmarks", "results", "tests", "scripts"}, path


PRIVATE = {
    "callbacks/averaging.py": "Lightning's WeightAveraging takes no class of averages, and torch's averages counters",
    "callbacks/run.py": "Lightning offers no way to forget a SIGTERM, nor to do without telling of one at every step",
    "commands/cli.py": "argparse has no list of a parser's options",
    "commands/latent.py": "argparse takes -3:3:7 for an option, and has no setting for it",
    "commands/trainer_arguments.py": "Lightning does not say which launcher a strategy has, when averages begin, or "
    "what a strategy by name passes on to DDP",
    "estimate.py": "torch has no public way to see every operation, and so what memory a chunk takes",
    "evaluation/partial.py": "torchmetrics has no list of a metric's states",
    "machine/launch.py": "Lightning has no way to end the processes that it has started",
    "models/training.py": "Lightning knows whether it will write this step down, and does not say",
    "nets/parallel.py": "torch has no list of a module's hooks, which machine code would pass over",
    "records/curves.py": "Lightning's loggers cannot be renamed once they are made",
    "tracing.py": "torch does not say what runs an operation",
}
"""Why private members of other libraries are used, where there is no public way, file by file."""


def private_uses(path: Path) -> set[str]:
    """Names with a leading underscore that a module takes from elsewhere, but for those that it defines itself."""
    tree = ast.parse(path.read_text())
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
            own.add(node.attr)
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not str(node.module).startswith(("vaeflow", "__future__")):
            names = [*str(node.module).split("."), *(alias.name for alias in node.names)]
            found |= {name for name in names if name.startswith("_")}
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            found |= {node.attr} - own
    return found


def test_private_members_are_used_for_a_reason() -> None:
    ours = {
        node.name
        for path in MODULES.values()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    users = {str(path.relative_to(PACKAGE)) for path in MODULES.values() if private_uses(path) - ours}
    assert users == set(PRIVATE)
