"""The command line: each verb stacks config files and overrides, and hands them to MONAI's `ConfigWorkflow`.

``python -m scripts register FIXED MOVING`` (or ``ncf register ...`` once installed) is the same run as
``python -m monai.bundle run --config_file configs/inference.json --fixed FIXED --moving MOVING``, but for one thing: an
unknown option is refused. Paths are handed over as `Path` objects, because MONAI evaluates strings that begin with ``$``
and rewrites those that hold ``#``.
"""

from __future__ import annotations

import inspect
import io
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import fire
from fire.decorators import SetParseFn

HELP = ("--help", "-h")
CONFIGS = Path(__file__).resolve().parent.parent / "configs"


@dataclass(frozen=True)
class Job:
    """A run that is fully described but not begun: nothing starts before every argument was understood."""

    config_files: tuple[str, ...]
    overrides: tuple[tuple[str, Any], ...]

    def start(self) -> None:
        """Nothing; the run is over. Exits with status 1 and one line when it cannot be done."""
        # Threads that spin while they wait slow a run on a busy machine several times (docs/decisions/0005-threads.md); the
        # library reads this once, when torch is loaded.
        os.environ.setdefault("GOMP_SPINCOUNT", "500")
        from monai.bundle import ConfigWorkflow  # takes seconds to import; a typo should not wait for it

        logging.getLogger("monai.bundle.workflows").setLevel(logging.WARNING)  # it tells which logging.conf it found
        workflow = ConfigWorkflow(config_file=list(self.config_files), workflow_type="inference", **dict(self.overrides))
        workflow.initialize()
        workflow.run()
        workflow.finalize()


@SetParseFn(str)
def register(
    fixed: str | None = None,
    moving: str | None = None,
    *,
    fixed_label: str | None = None,
    moving_label: str | None = None,
    fixed_mask: str | None = None,
    landmarks: str | None = None,
    output_dir: str = "output",
    name: str | None = None,
    seed: str = "0",
    device: str | None = None,
    preset: str | None = None,
    align_centres: str = "false",
    progress: str = "true",
    phantom_size: str | None = None,
    phantom_seed: str = "0",
) -> Job:
    """Register MOVING to FIXED and write the map, the warped files and the numbers to <output_dir>/<name>/.

    Without FIXED and MOVING a breathing phantom is made and registered.

    Args:
        fixed: the scan whose grid the results are on: .nii, .nii.gz, .mha, .mhd, .nrrd, or a folder with one DICOM series.
        moving: the scan to bring onto it; its own grid, size and orientation.
        fixed_label: label map on the fixed grid, for Dice and for folds inside it.
        moving_label: label map on the moving grid; carried over to the fixed grid.
        fixed_mask: weights on the fixed grid; voxels of 0 are left out of the fit.
        landmarks: CSV with six columns, voxel indices of a point in fixed, then of the same point in moving.
        output_dir: where the result folder is made.
        name: of the result folder; by default <fixed>__<moving>.
        seed: of the network's first weights.
        device: cpu, cuda, cuda:1, mps; by default a CUDA device where there is one.
        preset: an overlay of configs/, such as paper.
        align_centres: true starts with the centres of both grids together (for headers that do not overlap).
        progress: false hides the progress bar.
        phantom_size: voxels of the phantom, such as 64,64,64.
        phantom_seed: of its anatomy and noise.
    """
    paths = {"fixed": fixed, "moving": moving, "fixed_label": fixed_label, "moving_label": moving_label}
    paths |= {"fixed_mask": fixed_mask, "landmarks": landmarks, "output_dir": output_dir}
    overrides: dict[str, Any] = {key: _absolute(key, value) for key, value in paths.items() if value is not None}
    overrides["seed"] = _whole_number("seed", seed)
    overrides["phantom_seed"] = _whole_number("phantom_seed", phantom_seed)
    overrides["align_centres"] = _true_or_false("align_centres", align_centres)
    overrides["progress"] = _true_or_false("progress", progress)
    if name is not None:
        overrides["name"] = _plain("name", name)
    if device is not None:
        overrides["device"] = _plain("device", device)
    if phantom_size is not None:
        overrides["phantom_size"] = [_whole_number("phantom_size", n) for n in phantom_size.strip("()[] ").split(",")]
    return Job((str(CONFIGS / "inference.json"), *_preset_files(preset)), tuple(overrides.items()))


VERBS: dict[str, Callable[..., Job]] = {"register": register}


def _refuse(message: str) -> None:
    sys.exit(f"error: {message}")


def _absolute(option: str, path: str) -> Path:
    if not path:
        _refuse(f"--{option} must not be empty")
    return Path(path).expanduser().absolute()


def _plain(option: str, value: str) -> str:
    if not value or set(value) & set("$@%#"):
        _refuse(f"--{option} must not be empty or hold $, @, % or #, got {value!r}")
    return value


def _whole_number(option: str, value: str) -> int:
    if not value.strip().isdecimal():
        _refuse(f"--{option} must be a whole number, zero or more, got {value!r}")
    return int(value)


def _true_or_false(option: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        _refuse(f"--{option} is true or false, got {value!r}")
    return value.lower() == "true"


def _preset_files(preset: str | None) -> list[str]:
    if preset is None:
        return []
    known = sorted(p.stem for p in CONFIGS.glob("*.json") if p.stem not in ("inference", "metadata"))
    if preset not in known:
        _refuse(f"no preset {preset!r}; there are: {', '.join(known)}")
    return [str(CONFIGS / f"{preset}.json")]


def refuse_unknown(arguments: Sequence[str]) -> None:
    """Nothing; exits with one line where Fire would guess.

    That is a verb or an option that is not known (the nearest one is named), an option without a value, which Fire takes
    for "True", and one name too many, which Fire looks up inside of what the verb returned.
    """
    verb = arguments[0]
    if verb not in VERBS:
        _refuse(f"no command {verb!r}{_nearest(verb, list(VERBS))}; there are: {', '.join(VERBS)}")
    parameters = inspect.signature(VERBS[verb]).parameters.values()
    options = [parameter.name for parameter in parameters]
    free = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    named, rest = 0, iter(arguments[1:])
    for argument in rest:
        name, equals, _ = argument.partition("=")
        if not argument.startswith("-"):
            named += 1
            if named > len(free):
                _refuse(f"{verb} takes {' and '.join(free)}, {argument!r} is one too many")
        elif name[2:].replace("-", "_") not in options or not name.startswith("--"):
            _refuse(f"unknown option {name}{_nearest(name.strip('-'), options, '--')}")
        elif not equals and next(rest, "--").startswith("--"):
            _refuse(f"{name} needs a value")


def help_text(verb: str) -> str:
    """What a person sees who asks for help: one verb with its options, or the list of verbs."""
    if verb not in VERBS:
        verbs = "\n".join(f"  {name:10} {(call.__doc__ or '').partition(chr(10))[0]}" for name, call in VERBS.items())
        return f"usage: ncf COMMAND ...\n\n{verbs}\n\nMore: ncf COMMAND --help"
    parameters = inspect.signature(VERBS[verb]).parameters.values()
    free = " ".join(p.name.upper() for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
    text = inspect.getdoc(VERBS[verb]) or ""
    for option in (p.name for p in parameters if p.kind is p.KEYWORD_ONLY):
        text = re.sub(rf"^( +){option}: ", rf"\1--{option}: ", text, flags=re.MULTILINE)
    return f"usage: ncf {verb} [{free}] [--option=value ...]\n\n{text}"


def _nearest(word: str, known: Sequence[str], prefix: str = "") -> str:
    near = get_close_matches(word, known, n=1)
    return f" (did you mean {prefix}{near[0]}?)" if near else ""


def main() -> None:
    """Nothing; the command line was carried out."""
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        print(json.loads((CONFIGS / "metadata.json").read_text(encoding="utf-8"))["version"])
        return
    if not arguments or set(HELP) & set(arguments):
        print(help_text(arguments[0] if arguments else ""))
        return
    refuse_unknown(arguments)
    try:
        with redirect_stderr(io.StringIO()):  # Fire answers a mistake with a page of usage; one line is enough
            job = fire.Fire(VERBS, arguments, name="ncf", serialize=lambda _: None)
    except fire.core.FireExit as stop:
        _refuse(f"{stop.trace.elements[-1].ErrorAsStr()}; see: ncf {arguments[0]} --help")
    if isinstance(job, Job):
        try:
            job.start()
        except KeyboardInterrupt:
            _refuse("interrupted; nothing was written")


if __name__ == "__main__":
    main()
