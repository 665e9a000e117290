"""Who may import whom, and where the arithmetic of sampling may stand (docs/conventions.md, one home each)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# a module imports from its own layer or a lower one; configs are layer 3, the only place where the parts of 2 meet
LAYERS = {
    0: "errors presets drawing startup names files folders streams geometry sampling rounding nifti",
    1: "network visits losses local_losses field pyramid metrics phantom_anatomy phantom exporters checkpoint "
    "learn2reg learn2reg_metrics landmarks datasets summary inverse maps warping "
    "itk_files itk_transforms point_files mesh_files dicom",
    2: "objective starts alignment engine checks transforms images inputs results guard saved fields evaluation convert "
    "download apply inversion imported",
    4: "__main__ workflow verbs cohort paper_table report label_app api",
}
LAYER_OF = {name: layer for layer, names in LAYERS.items() for name in names.split()}
EMPTY = {"__init__"}

SAMPLING = {
    r"\bgrid_sample\(": {"sampling"},
    r"\balign_corners\b": {"sampling"},
    r"\bgrid_sampler": {"visits"},  # the adjoint, which torch has under this name only
    r"\b2(\.0)?\s*/\s*\(?(max\()?\w+(\[\w+\])?\s*-\s*1\b": {"sampling"},  # positions of n voxels to [-1, 1]
}


def modules() -> dict[str, list[Path]]:
    """The files of every module of scripts/; a package is one module."""
    found: dict[str, list[Path]] = {}
    for path in sorted((ROOT / "scripts").rglob("*.py")):
        found.setdefault(path.relative_to(ROOT / "scripts").with_suffix("").parts[0], []).append(path)
    return found


def imported(path: Path) -> set[str]:
    """What a file imports of this repository: names of modules of scripts, or of a folder beside it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import; write `from scripts.x import y`"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    parts = [name.split(".") for name in names]
    ours = [p for p in parts if p[0] in ("scripts", "benchmarks", "tests")]
    return {p[1] if p[0] == "scripts" and len(p) > 1 else p[0] for p in ours}


def test_no_way_of_importing_is_overlooked(tmp_path: Path) -> None:
    ways = (
        "from scripts.a import x",
        "import torch, scripts.b",
        "def f():\n    from scripts import c as d",
        "import scripts",
    )
    (tmp_path / "module.py").write_text("\n".join([*ways, "import benchmarks.run"]), encoding="utf-8")
    assert imported(tmp_path / "module.py") == {"a", "b", "c", "benchmarks", "scripts"}
    (tmp_path / "module.py").write_text("from .engine import x", encoding="utf-8")
    with pytest.raises(AssertionError, match="a relative import"):
        imported(tmp_path / "module.py")


def test_every_module_has_a_layer() -> None:
    unknown = set(modules()) - set(LAYER_OF) - EMPTY
    assert not unknown, f"scripts/ has modules without a layer: {sorted(unknown)}; name them in LAYERS of {__file__}"
    assert set(modules()) > {"geometry", "network", "engine", "__main__"}


@pytest.mark.parametrize("name", sorted(set(modules()) & set(LAYER_OF)))
def test_no_arrow_points_up(name: str) -> None:
    for path in modules()[name]:
        for other in imported(path):
            assert other in LAYER_OF, f"{path.name} imports {other}, which is no module of scripts/ with a layer"
            above = LAYER_OF[other] > LAYER_OF[name]
            assert not above, f"{path.name} (layer {LAYER_OF[name]}) imports {other} (layer {LAYER_OF[other]})"


def test_top_modules_do_not_reach_into_the_fit() -> None:
    fit = {"engine", "objective", "losses", "visits", "network", "pyramid"}
    tops = [path for name in LAYERS[4].split() for path in modules().get(name, [])]
    assert tops
    reached = {path.name: imported(path) & fit for path in tops if imported(path) & fit}
    assert not reached, f"they build a workflow from configs or read files, but import {reached}"


def test_the_package_itself_imports_nothing() -> None:
    assert not imported(ROOT / "scripts" / "__init__.py")


@pytest.mark.parametrize("pattern", SAMPLING)
def test_the_arithmetic_of_sampling_has_one_home(pattern: str) -> None:
    found = {n for n, paths in modules().items() for p in paths if re.search(pattern, p.read_text(encoding="utf-8"))}
    assert found == SAMPLING[pattern], f"{pattern} stands in {sorted(found)}; use what scripts.sampling offers"
