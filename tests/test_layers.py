"""Folders are the layers: a room imports from lower floors alone. The arithmetic of sampling has one home."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import ncf

ROOT = Path(__file__).parent.parent
LIBRARY = ROOT / "ncf"

# from the ground up; two rooms of one floor do not import each other (docs/decisions/0019-house.md)
FLOORS = (
    ("core",),
    ("space",),
    ("io", "fit", "phantom"),
    ("pair",),
    ("evaluate",),
    ("result",),
    ("run", "use"),
    ("report", "api"),
    ("cohort",),
    ("label", "paper", "series"),
    ("commands",),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
NO_TORCH = ("torch", "monai", "ignite")  # loaded when a module of core is: that must not happen

SAMPLING = {
    r"\bgrid_sample\(": {"space/sampling.py"},
    r"\balign_corners\b": {"space/sampling.py"},
    r"\b2(\.0)?\s*/\s*\(?(max\()?\w+(\[\w+\])?\s*-\s*1\b": {"space/sampling.py"},  # positions of n voxels to [-1, 1]
}


def imported(path: Path) -> set[str]:
    """What a file imports, as dotted names, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import; write `from ncf.x import y`"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def rooms_imported(path: Path) -> set[str]:
    """The rooms of the library that a file imports from; a folder beside the library by its own name."""
    parts = [name.split(".") for name in imported(path)]
    ours = [p for p in parts if p[0] in ("ncf", "scripts", "benchmarks", "tests")]
    return {p[1] if p[0] == "ncf" and len(p) > 1 else p[0] for p in ours}


def test_no_way_of_importing_is_overlooked(tmp_path: Path) -> None:
    ways = (
        "from ncf.io.a import x",
        "import torch, ncf.fit.b",
        "def f():\n    from ncf import core as d",
        "import ncf",
    )
    (tmp_path / "module.py").write_text("\n".join([*ways, "import benchmarks.run"]), encoding="utf-8")
    assert rooms_imported(tmp_path / "module.py") == {"io", "fit", "core", "benchmarks", "ncf"}
    (tmp_path / "module.py").write_text("from .engine import x", encoding="utf-8")
    with pytest.raises(AssertionError, match="a relative import"):
        imported(tmp_path / "module.py")


def test_every_folder_has_a_floor() -> None:
    folders = {path.name for path in LIBRARY.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(FLOOR_OF)
    assert {path.name for path in LIBRARY.glob("*.py")} == {"__init__.py", "__main__.py"}


@pytest.mark.parametrize("room", FLOOR_OF)
def test_no_arrow_points_up_or_sideways(room: str) -> None:
    files = list((LIBRARY / room).rglob("*.py"))
    assert files
    for path in files:
        for other in rooms_imported(path) - {room}:
            assert other in FLOOR_OF, f"{path} imports {other}, which is no room of the library"
            assert FLOOR_OF[other] < FLOOR_OF[room], f"{path} imports from {other}, which is no lower floor"


def test_no_circle_of_files() -> None:
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in LIBRARY.rglob("*.py")}
    graph = {}
    for name, path in names.items():
        used = (found if found in names else found.rpartition(".")[0] for found in imported(path))
        graph[name] = {other for other in used if other in names and other != name}
    assert sum(map(len, graph.values())) > 300  # it sees the imports
    list(TopologicalSorter(graph).static_order())  # CycleError names the circle


def test_core_loads_no_heavy_library() -> None:
    for path in (LIBRARY / "core").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:  # at its own loading; a function may load what it needs
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [n for n in names if n.split(".")[0] in NO_TORCH], path


def test_the_package_itself_loads_nothing() -> None:
    code = "import sys, ncf; assert not {'torch', 'monai', 'numpy', 'ncf.api'} & set(sys.modules); ncf.PairError"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_what_the_package_offers_is_there() -> None:
    for name in (*ncf.__all__, "__version__"):
        assert getattr(ncf, name) is not None and name in dir(ncf)
    with pytest.raises(AttributeError, match="no attribute 'registr'"):
        ncf.registr  # noqa: B018


@pytest.mark.parametrize("pattern", SAMPLING)
def test_the_arithmetic_of_sampling_has_one_home(pattern: str) -> None:
    files = LIBRARY.rglob("*.py")
    found = {p.relative_to(LIBRARY).as_posix() for p in files if re.search(pattern, p.read_text(encoding="utf-8"))}
    assert found == SAMPLING[pattern], f"{pattern} stands in {sorted(found)}; use what ncf.space.sampling offers"
