"""The experiment from beginning to end: each method a cohort of its own, one evaluation for each, one table of all."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ncf.cohort.plan import DONE, Plan, failures
from ncf.cohort.run import run_cohort
from ncf.cohort.worker import Call, Resources, register_pair
from ncf.core.files import load_json, save_json, write_whole
from ncf.core.names import NETWORK_FILE
from ncf.core.presets import config, config_files
from ncf.evaluate.tables import NOTHING, cell, known, markdown
from ncf.fit.rounding import Rounded
from ncf.io.checkpoint import load_checkpoint
from ncf.io.pair_lists import with_paths
from ncf.paper.elastix import register_by_elastix
from ncf.paper.experiment import PUBLISHED, Experiment
from ncf.run.config import run_config

STEM, ELASTIX = "paper_table", "elastix"
MILLION = 1e6
HEAD = ["method", "both: DSC", "intra: DSC", "parameters, M", "intra: TRE mm", "folds %", "s a pair", "pairs"]


@dataclass(frozen=True)
class Settings:
    """What all methods share.

    Attributes:
        output_dir: gets a folder for each method.
        resources: of a cohort.
        python: the interpreter that has itk-elastix.
        seed: of the network's first weights.
        progress: False hides the bars.
    """

    output_dir: Path
    resources: Resources
    python: str = sys.executable
    seed: int = 0
    progress: bool = True


def paper_table(asked: Experiment, methods: Sequence[str], settings: Settings) -> bool:
    """Run the experiment, print the table, and write it as Markdown and JSON.

    Args:
        asked: the pairs.
        methods: default, the name of a preset, or elastix.
        settings: of all methods.

    Returns:
        True if every pair of every method has a result.
    """
    found, complete = {}, True
    for method in methods:
        plan, call = _plan(asked, method, settings)
        options: dict[str, Any] = {"resources": settings.resources, "progress": settings.progress, "call": call}
        print(f"{method}: {len(plan.pairs)} pairs", flush=True)
        complete &= run_cohort(plan, **options)
        found[method] = _measured(asked, plan)
    rows = [HEAD, *([f"{name}, as published", *_published(name)] for name in PUBLISHED)]
    rows += [[f"ours, {name}" if name != ELASTIX else "elastix, measured", *_cells(row)] for name, row in found.items()]
    text = f"{markdown(rows)}\n\n{asked.note()}\n"
    write_whole(settings.output_dir / f"{STEM}.md", lambda temporary: temporary.write_text(text, encoding="utf-8"))
    published = {name: row._asdict() for name, row in PUBLISHED.items()}
    save_json(settings.output_dir / f"{STEM}.json", {"published": published, "measured": found, "note": asked.note()})
    print(f"\n{text}\nresults in {settings.output_dir / STEM}.md and .json")
    return complete


def _plan(asked: Experiment, method: str, settings: Settings) -> tuple[Plan, Call]:
    """Return the cohort of a method, and what its workers do."""
    folder = settings.output_dir / method
    if method == ELASTIX:
        return Plan(asked.pairs, (), folder, {"python": settings.python}), register_by_elastix
    files = config_files(None if method == "default" else method)
    return Plan(asked.pairs, files, folder, {"seed": settings.seed}), register_pair


def _measured(asked: Experiment, plan: Plan) -> dict[str, Any]:
    """Evaluate the fields of one method, and return the numbers of its row."""
    done = [pair for pair in plan.pairs if plan.state(pair) == DONE]
    cases: dict[str, Mapping[str, Any]] = {}
    if done:
        overrides = {
            "dataset_data": list(map(with_paths, done)),
            "fields": plan.output_dir,
            "output_dir": plan.output_dir,
        }
        run_config([config("evaluate")], overrides)
        cases = {case["name"]: case for case in load_json(plan.output_dir / "evaluation.json")["cases"]}
    return {
        "both_dsc": _mean(cases, asked.both, "dice", "after", "mean"),
        "intra_dsc": _mean(cases, asked.intra, "dice", "after", "mean"),
        "parameters": _parameters(plan.folder(done[0])) if done else None,
        "intra_tre_mm": _mean(cases, asked.intra, "tre_mm", "after", "mean"),
        "folding_fraction": _mean(cases, list(cases), "folding_fraction", "all"),
        "seconds": _mean(cases, list(cases), "seconds"),
        "done": len(done),
        "pairs": len(plan.pairs),
        "failures": failures(plan),
    }


def _mean(cases: Mapping[str, Mapping[str, Any]], names: Sequence[str], *path: str) -> float | None:
    """Return the mean of an entry over pairs, None unless every pair has a result and at least one has the entry."""
    if not names or not set(names) <= set(cases):
        return None
    values: list[Any] = [cases[name] for name in names]
    for key in path:
        values = [value.get(key) if isinstance(value, Mapping) else None for value in values]
    return float(np.mean(known(values))) if known(values) else None


def _parameters(folder: Path) -> dict[str, int] | None:
    """Return what was fitted to a pair, weights and free offsets; None for another program."""
    if not (folder / NETWORK_FILE).exists():
        return None
    state = load_checkpoint(folder / NETWORK_FILE)
    sizes = [Rounded(*kept).codes.numel() for kept in state["weights"].values()]
    return {
        "network": sum(sizes),
        "offsets": 0 if state["offsets"] is None else Rounded(*state["offsets"]).codes.numel(),
    }


def _published(name: str) -> list[str]:
    """Return the cells of a published row."""
    row = PUBLISHED[name]
    return [f"{row.both:.3f}", f"{row.intra:.3f}", cell(row.parameters), *[NOTHING] * 4]


def _cells(row: Mapping[str, Any]) -> list[str]:
    """Return the cells of a measured row."""
    dice = [NOTHING if row[key] is None else f"{row[key]:.3f}" for key in ("both_dsc", "intra_dsc")]
    fitted = row["parameters"]
    told = NOTHING
    if fitted is not None:
        more = f" + {fitted['offsets'] / MILLION:.2f} offsets" if fitted["offsets"] else ""
        told = f"{fitted['network'] / MILLION:.2f}{more}"
    share = None if row["folding_fraction"] is None else 100 * row["folding_fraction"]
    pairs = f"{row['done']} of {row['pairs']}"
    if row["failures"]:
        pairs += f"; {row['failures'][0]['name']}: {row['failures'][0]['reason']}"
    return [*dice, told, cell(row["intra_tre_mm"]), cell(share), cell(row["seconds"]), pairs]
