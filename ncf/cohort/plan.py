"""The plan of a cohort: its pairs, its settings, where each result goes, and how far it has come, all told by files.

A pair is done when its folder has a metrics.json, the last file of a result; failed when it has a failure.json; else
open. The report of a pair that is done may still be missing. This room must not know how a pair is registered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ncf.core.errors import PairError
from ncf.core.files import claim_folder, load_json, save_json, sha256_of, unchanged
from ncf.core.folders import sweep
from ncf.core.names import METRICS_FILE, PAIR_KEYS, REPORT_FILE, RUN_FILE, TRUST_FILE, TRUST_NUMBERS_FILE
from ncf.core.presets import presets, version
from ncf.core.process import command_line
from ncf.io.pair_lists import Pairs

COHORT_FILE, FAILURE_FILE = "cohort.json", "failure.json"
DONE, FAILED, OPEN = "done", "failed", "open"
TOLD = 3  # most differences named in one line
REPORT, TRUST = "report", "trust"  # the overrides that say whether reports and bounds of the error are wanted
BESIDE = (REPORT, TRUST)  # overrides that change nothing in a result
COMMAND = "command"  # the command line of the last run
VERSION = "bundle_version"  # the setting that no option sets; it has this name in run.json too


@dataclass(frozen=True)
class Plan:
    """Pairs to register with one set of settings.

    Attributes:
        pairs: paths and a name each.
        config_files: the base first.
        output_dir: each pair gets ``<output_dir>/<name>/``.
        overrides: of config entries, plain data.
        kept_in: the file that keeps pairs and settings.
        more: what else that file keeps, plain data; it may change from run to run.
    """

    pairs: Pairs
    config_files: tuple[str, ...]
    output_dir: Path
    overrides: Mapping[str, Any] = field(default_factory=dict)
    kept_in: str = COHORT_FILE
    more: Mapping[str, Any] = field(default_factory=dict)

    def folder(self, pair: Mapping[str, str]) -> Path:
        """Return the folder of a pair's result."""
        return self.output_dir / pair["name"]

    def state(self, pair: Mapping[str, str]) -> str:
        """Return `DONE`, `FAILED` or `OPEN`."""
        folder = self.folder(pair)
        if (folder / METRICS_FILE).exists():
            return DONE
        return FAILED if (folder / FAILURE_FILE).exists() else OPEN

    @property
    def reports(self) -> bool:
        """True where every result shall have a report."""
        return bool(self.overrides.get(REPORT, True))

    @property
    def bounds(self) -> bool:
        """True where every result shall have bounds of its error."""
        return bool(self.overrides.get(TRUST, False))

    def lacks_bounds(self, pair: Mapping[str, str]) -> bool:
        """Tell whether a pair is done except for bounds that are wanted."""
        bounded = all((self.folder(pair) / name).exists() for name in (TRUST_FILE, TRUST_NUMBERS_FILE))
        return self.bounds and self.state(pair) == DONE and not bounded

    def settings(self) -> dict[str, Any]:
        """Return what must be equal in results that belong together: version, overrides, config files (name, hash)."""
        files = {Path(path).name: sha256_of(path) for path in self.config_files}
        given = {key: value for key, value in sorted(self.overrides.items()) if key not in BESIDE}
        return {VERSION: version(), "config_files": files, **given}


def open_pairs(plan: Plan, *, retry_failed: bool) -> Pairs:
    """Return the pairs that are still to be registered, in their order.

    It is called after `prepared` has found everything as it was. What a killed process left half-written in their
    folders is removed.

    Args:
        plan: of the cohort.
        retry_failed: True removes the record of a failure, so that the pair is registered again.
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
    """Return the pairs that are done except for a report that is wanted, in their order.

    What a killed process left half-written in their folders is removed.
    """
    if not plan.reports:
        return []
    found = [p for p in plan.pairs if plan.state(p) == DONE and not (plan.folder(p) / REPORT_FILE).exists()]
    for pair in found:
        sweep(plan.folder(pair))
    return found


def without_bounds(plan: Plan) -> Pairs:
    """Return the pairs that are done except for bounds of their error that are wanted, in their order.

    What a killed process left half-written in their folders is removed.
    """
    found = [pair for pair in plan.pairs if plan.lacks_bounds(pair)]
    for pair in found:
        sweep(plan.folder(pair))
    return found


def prepared(plan: Plan, *, threads: int) -> None:
    """Write cohort.json, after a check that all results in the folder are of these inputs and these settings.

    Args:
        plan: of the cohort.
        threads: of a worker. They belong to the settings, because another number changes the last bits.

    Raises:
        PairError: an input or a setting has changed; it is named before anything runs.
    """
    path = claim_folder(plan.output_dir) / plan.kept_in
    settings = {**plan.settings(), "threads": threads}
    if path.exists():
        before = load_json(path).get("settings", {})
        changed = differences(before, settings)
        if changed:
            same = (
                "the same options" if before.get(VERSION) == settings[VERSION] else "the same options to that version"
            )
            raise PairError(
                f"{plan.output_dir} was begun with other settings: {changed}; give {same}, or another output_dir"
            )
    for pair in plan.pairs:
        if plan.state(pair) == DONE:
            _check_inputs(plan, pair)
    save_json(path, {"settings": settings, "pairs": plan.pairs, COMMAND: command_line(), **plan.more})


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say what differs between two settings, the version first; empty where nothing does.

    Args:
        before: of cohort.json.
        now: of this run.
    """
    told = []
    for key in dict.fromkeys([VERSION, *before, *now]):
        was, is_now = (json.loads(json.dumps(side.get(key))) for side in (before, now))
        if was == is_now:
            continue
        if key == VERSION:
            told.append(f"{key} was {was or f'not noted ({RUN_FILE} of a pair has it)'}, now {is_now}")
        elif key == "config_files":
            if was is None:
                told.append(f"{key} was not noted")
                continue
            names = sorted(name for name in {*was, *is_now} if was.get(name) != is_now.get(name))
            told += [_how(name, before=name in was, now=name in is_now) for name in names]
        else:
            told.append(f"{key} was {was}, now {is_now}")
    rest = f" and {len(told) - TOLD} more" if len(told) > TOLD else ""
    return ", ".join(told[:TOLD]) + rest


def _how(name: str, *, before: bool, now: bool) -> str:
    """Say how a config file differs before and now; one that only one of them has is a preset."""
    if before and now:
        return f"configs/{name} changed"
    preset = f"--preset={Path(name).stem if Path(name).stem in presets() else name}"
    return f"{preset} was given then, not now" if before else f"{preset} is given now, not then"


def _check_inputs(plan: Plan, pair: Mapping[str, str]) -> None:
    """Raise PairError unless a finished pair was made of the files that its row names, as they are now."""
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
    """Write the reason of a failure to the failure.json of a pair.

    Args:
        plan: of the cohort.
        name: of the pair.
        reason: one line.
        detail: of a fault of the program, its traceback.
    """
    folder = claim_folder(plan.output_dir / name)
    save_json(folder / FAILURE_FILE, {"name": name, "reason": reason, "detail": detail})


def failures(plan: Plan) -> list[dict[str, str]]:
    """Return name and reason of every failed pair, in the order of the list."""
    found: Sequence[Mapping[str, str]] = [pair for pair in plan.pairs if plan.state(pair) == FAILED]
    return [load_json(plan.folder(pair) / FAILURE_FILE) for pair in found]
