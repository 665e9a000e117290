"""What a cohort is: its pairs, its settings, where each result goes, and how far it has come, all told by files.

A pair is done when its folder has a metrics.json, the last file of a result; failed when it has a failure.json; open
otherwise. The report of a pair that is done may still be missing.
This room must not know how a pair is registered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.datasets import Pairs
from scripts.errors import PairError
from scripts.files import claim_folder, load_json, save_json, sha256_of, unchanged
from scripts.folders import sweep
from scripts.names import METRICS_FILE, PAIR_KEYS, REPORT_FILE, RUN_FILE
from scripts.presets import config

COHORT_FILE, FAILURE_FILE = "cohort.json", "failure.json"
DONE, FAILED, OPEN = "done", "failed", "open"
TOLD = 3  # differences named in one line
REPORT = "report"  # the override that says whether reports are wanted
BESIDE = (REPORT,)  # overrides that change nothing in a result
VERSION = "bundle_version"  # the setting that no option sets; run.json calls it so too


@dataclass(frozen=True)
class Plan:
    """Pairs to register with one set of settings.

    config_files: base first. overrides: of config entries, plain data. output_dir: each pair gets ``<output_dir>/<name>/``.
    """

    pairs: Pairs
    config_files: tuple[str, ...]
    output_dir: Path
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def folder(self, pair: Mapping[str, str]) -> Path:
        """Where a pair's result goes."""
        return self.output_dir / pair["name"]

    def state(self, pair: Mapping[str, str]) -> str:
        """`DONE`, `FAILED` or `OPEN`."""
        folder = self.folder(pair)
        if (folder / METRICS_FILE).exists():
            return DONE
        return FAILED if (folder / FAILURE_FILE).exists() else OPEN

    @property
    def reports(self) -> bool:
        """Whether every result is to have a report."""
        return bool(self.overrides.get(REPORT, True))

    def settings(self) -> dict[str, Any]:
        """What must stay the same for results to belong together: version, overrides, config files by name and hash."""
        files = {Path(path).name: sha256_of(path) for path in self.config_files}
        given = {key: value for key, value in sorted(self.overrides.items()) if key not in BESIDE}
        return {VERSION: load_json(config("metadata"))["version"], "config_files": files, **given}


def open_pairs(plan: Plan, *, retry_failed: bool) -> Pairs:
    """The pairs that are still to be registered, in their order, after `prepared` found everything as it was.

    What a killed process left half-written in their folders is removed, and with ``retry_failed`` the record of a failure.
    """
    left = []
    for pair in plan.pairs:
        state, folder = plan.state(pair), plan.folder(pair)
        if state == DONE or (state == FAILED and not retry_failed):
            continue
        (folder / FAILURE_FILE).unlink(missing_ok=True)
        sweep(folder)
        left.append(pair)
    return left


def without_report(plan: Plan) -> Pairs:
    """The pairs that are done but for a report that is wanted, in their order.

    What a killed process left half-written in their folders is removed.
    """
    if not plan.reports:
        return []
    found = [p for p in plan.pairs if plan.state(p) == DONE and not (plan.folder(p) / REPORT_FILE).exists()]
    for pair in found:
        sweep(plan.folder(pair))
    return found


def prepared(plan: Plan, *, threads: int) -> None:
    """Nothing; the output folder has a cohort.json, and all results in it were made of these inputs by these settings.

    threads: of a worker; they belong to the settings, because other ones change the last bits.

    Raises PairError, which names what changed, before anything runs.
    """
    path = claim_folder(plan.output_dir) / COHORT_FILE
    settings = {**plan.settings(), "threads": threads}
    if path.exists():
        before = load_json(path).get("settings", {})
        changed = differences(before, settings)
        if changed:
            same = "the same options" if before.get(VERSION) == settings[VERSION] else "the same options to that version"
            raise PairError(
                f"{plan.output_dir} was begun with other settings: {changed}; give {same}, or another output_dir"
            )
    for pair in plan.pairs:
        if plan.state(pair) == DONE:
            _check_inputs(plan, pair)
    save_json(path, {"settings": settings, "pairs": plan.pairs})


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two settings, in words, the version first; empty where nothing does."""
    told = []
    for key in dict.fromkeys([VERSION, *before, *now]):
        was, is_now = (json.loads(json.dumps(side.get(key))) for side in (before, now))
        if was == is_now:
            continue
        if key == VERSION:
            told.append(f"{key} was {was or f'not noted ({RUN_FILE} of a pair has it)'}, now {is_now}")
        elif key == "config_files":
            was = was or {}  # a cohort.json without any
            names = sorted(name for name in {*was, *is_now} if was.get(name) != is_now.get(name))
            told += [f"configs/{name} {_how(name in was, name in is_now)}" for name in names]
        else:
            told.append(f"{key} was {was}, now {is_now}")
    rest = f" and {len(told) - TOLD} more" if len(told) > TOLD else ""
    return ", ".join(told[:TOLD]) + rest


def _how(before: bool, now: bool) -> str:
    """What became of a config file that is not the same before and now."""
    if before and now:
        return "changed"
    return "was used then (its preset), not now" if before else "is used now (its preset), not then"


def _check_inputs(plan: Plan, pair: Mapping[str, str]) -> None:
    """Raises PairError unless a finished pair was made of the files that its row names, as they are now."""
    run = plan.folder(pair) / RUN_FILE
    inputs = load_json(run)["inputs"]
    again = f"remove {plan.folder(pair)} to register it again, or use another output_dir"
    now = {key: pair[key] for key in PAIR_KEYS if key in pair}
    for key in dict.fromkeys([*inputs, *now]):
        was, is_now = inputs.get(key, {}).get("path"), now.get(key)
        if was is None or is_now is None or Path(was) != Path(is_now):
            raise PairError(f"{pair['name']} was made with {key} {was}, the list now has {is_now}; {again}")
        if not unchanged(Path(is_now), inputs[key]):
            raise PairError(f"{pair['name']}: {key} {is_now} has changed since it was registered; {again}")


def record_failure(plan: Plan, name: str, *, reason: str, detail: str) -> None:
    """Nothing; the folder of the pair ``name`` has a failure.json with the reason."""
    folder = claim_folder(plan.output_dir / name)
    save_json(folder / FAILURE_FILE, {"name": name, "reason": reason, "detail": detail})


def failures(plan: Plan) -> list[dict[str, str]]:
    """Name and reason of every failed pair, in the order of the list."""
    found: Sequence[Mapping[str, str]] = [pair for pair in plan.pairs if plan.state(pair) == FAILED]
    return [load_json(plan.folder(pair) / FAILURE_FILE) for pair in found]
