"""Lists of pairs, in the forms of data sets: Learn2Reg's JSON, the Zenodo folder of 2020, CSV, plain JSON.

A list is what `dataset_data` of the config takes: one dictionary a pair, with a name, and paths under the keys of
`ncf.core.names.PAIR_KEYS`. Whatever is wrong with a list is refused here, before anything runs, with the row's number.
No images are read here; this module must not know networks or configs.
"""

from __future__ import annotations

import csv
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

from ncf.core.errors import PairError
from ncf.core.names import IMAGES, PAIR_KEYS, pair_name, safe_name
from ncf.core.paths import expanded, missing, shortened, there
from ncf.io.list_rows import absolute_in, check_listed, json_object, list_in, rows_of

LEARN2REG_LISTS = ("registration_val", "registration_test", "training_paired_images")
ALL_PAIRS = "all_pairs"  # every image registered to every other one
IMAGE_FOLDER = re.compile(r"images(T[rs])$")
ZENODO_SCAN = re.compile(r"(case_\d{3})_exp\.nii\.gz$")
SUFFIX = re.compile(r"\.(nii\.gz|nii|mha|mhd|nrrd|csv)$")
Pairs = list[dict[str, str]]


def read_pairs(source: str | Path, *, which: str | None = None) -> Pairs:
    """Read the pairs of a data set.

    Args:
        source: a ``*_dataset.json`` of Learn2Reg; the folder of Zenodo record 3835682 (2020); a CSV with a head line;
            or a JSON file {"pairs": [{"fixed", "moving", ...}]} or {"images": [{"image", "label"}]}, which means all
            ordered pairs. Paths in a file are relative to it.
        which: list of a Learn2Reg file: registration_val (the default), registration_test, training_paired_images, or
            all_pairs.

    Returns:
        A dictionary {"name", "fixed", "moving", ...} for each pair; its paths are absolute and exist.

    Raises:
        PairError: in one line, with the row, for an empty list, a missing key or file, an unknown key, a pair that is
            listed twice, two pairs of one name, or only one of two landmark files.
    """
    path = expanded(source).absolute()
    if missing(path):
        raise PairError(
            f"no data set {shortened(path)}; give a dataset JSON, a CSV, or the folder of the Zenodo archive"
        )
    reader = _reader(there(path))
    if which is not None and reader is not _learn2reg:
        raise PairError(f"{path} has no lists to choose from, {which!r} is for Learn2Reg's dataset JSON")
    rows = _learn2reg(path, which or LEARN2REG_LISTS[0]) if reader is _learn2reg else reader(path)
    return checked(rows, where=str(path))


def named_pairs(source: str | Path | None, *, which: str | None = None) -> list[dict[str, Any]]:
    """Read the pairs of the data set that a config names.

    Args:
        source: see `read_pairs`; None where the config names none.
        which: see `read_pairs`.

    Returns:
        The pairs as `with_paths` returns them.

    Raises:
        SystemExit: with status 1 and one line, for what `read_pairs` refuses, and where no data set is named. A config
            is taken apart by MONAI, which would show a traceback.
    """
    if source is None:
        sys.exit("error: no list of pairs is named; give --pairs LIST, a dataset JSON or a CSV")
    try:
        return [with_paths(pair) for pair in read_pairs(source, which=which)]
    except PairError as error:
        sys.exit(f"error: {error}")


def share_of_rank(source: str | Path | None, *, which: str | None = None) -> list[dict[str, Any]]:
    """Read the pairs of `named_pairs` that fall to this process of `torchrun`: every WORLD_SIZE-th, from its RANK on.

    Args:
        source: see `named_pairs`.
        which: see `read_pairs`.

    Raises:
        SystemExit: what `named_pairs` refuses.
    """
    rank, ranks = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    return named_pairs(source, which=which)[rank::ranks]


def with_paths(pair: Mapping[str, str]) -> dict[str, Any]:
    """Return the pair with `Path` objects for paths: MONAI's config would evaluate a text, which may hold $, @ or %."""
    return {key: Path(value) if key in PAIR_KEYS else value for key, value in pair.items()}


def _reader(path: Path) -> Callable[..., Pairs]:
    """Return the function that reads this form of a data set."""
    if path.is_dir():
        return _zenodo
    if path.suffix.lower() == ".csv":
        return _csv
    content = json_object(path)
    if any(key in content for key in (*LEARN2REG_LISTS, "tensorImageShape")):
        return _learn2reg
    return _plain


def checked(rows: Sequence[dict[str, str]], *, where: str) -> Pairs:
    """Return the rows with names, after checking that they can be registered one after another.

    Args:
        rows: one dictionary a pair.
        where: what messages call the list.

    Raises:
        PairError: what `read_pairs` refuses.
    """
    if not rows:
        raise PairError(f"{where}: the list is empty, there is nothing to register")
    named: Pairs = []
    seen: dict[tuple[str, str], int] = {}
    names: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        at = f"{where}, row {number}"
        _check_keys(row, at)
        for key in PAIR_KEYS:
            if key in row:
                check_listed(row[key], at, key)
        pair = (row["fixed"], row["moving"])
        if pair[0] == pair[1]:
            raise PairError(f"{at}: fixed and moving are one file, {pair[0]}")
        if pair in seen:
            raise PairError(f"{at}: the pair of row {seen[pair]} again, {pair[1]} onto {pair[0]}; list it once")
        name = safe_name(row["name"]) if row.get("name") else pair_name(*pair)
        if name.casefold() in names:
            raise PairError(
                f"{at}: named {name!r} as row {names[name.casefold()]} is; give each a name of its own (entry `name`)"
            )
        seen[pair], names[name.casefold()] = number, number
        named.append({"name": name, **{key: row[key] for key in PAIR_KEYS if key in row}})
    return named


def _check_keys(row: dict[str, str], at: str) -> None:
    absent = [key for key in IMAGES if not row.get(key)]
    unknown = sorted(set(row) - {*PAIR_KEYS, "name"})
    if absent:
        raise PairError(f"{at}: {' and '.join(absent)} not named; a pair needs fixed and moving")
    if unknown:
        raise PairError(f"{at}: unknown entry {', '.join(unknown)}; known are name, {', '.join(PAIR_KEYS)}")
    for kind in ("landmarks", "guide_points"):
        fixed, moving = (f"{image}_{kind}" in row for image in IMAGES)
        if fixed != moving or (kind in row and fixed):
            raise PairError(f"{at}: give {kind} (six columns), or both fixed_{kind} and moving_{kind} (three each)")


def _plain(path: Path) -> Pairs:
    """Read {"pairs": [...]}, or {"images": [...]} for all ordered pairs."""
    content = json_object(path)
    known = sorted(set(content) & {"pairs", "images"})
    if len(known) != 1 or set(content) - {"pairs", "images", "name"} or not isinstance(content[known[0]], list):
        raise PairError(
            f'{path}: expected one list, "pairs" or "images", beside "name", got {", ".join(content) or "nothing"}'
        )
    if known == ["pairs"]:
        return rows_of(content["pairs"], path, what='{"fixed": path, "moving": path, ...}')
    images = rows_of(content["images"], path, what='{"image": path, "label": path}')
    for number, image in enumerate(images, start=1):
        if set(image) - {"image", "label", "name"} or "image" not in image:
            raise PairError(
                f"{path}, row {number}: an image has the entries image, label and name, got {', '.join(image)}"
            )
    labelled = [number for number, image in enumerate(images, start=1) if "label" in image]
    if labelled and len(labelled) < len(images):
        first = next(n for n in range(1, len(images) + 1) if n not in labelled)
        raise PairError(f"{path}, row {first}: has no label, but row {labelled[0]} has one; label all images or none")
    return [_of_images(fixed, moving) for fixed, moving in permutations(images, 2)]


def _of_images(fixed: dict[str, str], moving: dict[str, str]) -> dict[str, str]:
    row = {"fixed": fixed["image"], "moving": moving["image"]}
    if "label" in fixed:
        row |= {"fixed_label": fixed["label"], "moving_label": moving["label"]}
    if "name" in fixed and "name" in moving:
        row["name"] = f"{fixed['name']}__{moving['name']}"
    return row


def _csv(path: Path) -> Pairs:
    """Read a head line with names of `PAIR_KEYS` (and name), then a pair a line; empty cells are left out."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if any(cell.strip() for cell in line)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PairError(f"cannot read the data set {path}: {error}") from error
    head = [cell.strip().lower() for cell in lines[0]] if lines else []
    if not set(IMAGES) <= set(head):
        raise PairError(
            f"{path}: the first line names the columns, fixed and moving among them, with commas between; it is "
            f"{','.join(head)!r:.80}"
        )
    twice = next((key for n, key in enumerate(head) if key and key in head[:n]), None)
    if twice is not None:
        raise PairError(f"{path}: the first line names the column {twice!r:.40} twice; keep one")
    rows = []
    for number, line in enumerate(lines[1:], start=1):
        if len(line) != len(head):
            raise PairError(f"{path}, row {number}: {len(line)} cells under {len(head)} columns")
        cells = {key: cell.strip() for key, cell in zip(head, line, strict=True) if cell.strip()}
        rows.append({key: cell if key == "name" else absolute_in(path, cell) for key, cell in cells.items()})
    return rows


def _learn2reg(path: Path, which: str) -> Pairs:
    """Read a list of a Learn2Reg file, with labels (else masks) and landmarks (else keypoints) beside the images."""
    content = json_object(path)
    offered = [name for name in LEARN2REG_LISTS if list_in(content, name, path)]
    if which == ALL_PAIRS:
        listed = list_in(content, "training", path)
        odd = [n for n, e in enumerate(listed, start=1) if not isinstance(e, str) and "image" not in _object(e)]
        if odd:
            what = f'expected a path or {{"image": path}}, got {listed[odd[0] - 1]!r:.80}'
            raise PairError(f'{path}: entry {odd[0]} of "training": {what}')
        images = [entry if isinstance(entry, str) else entry["image"] for entry in listed]
        found: list[Any] = [{"fixed": fixed, "moving": moving} for fixed, moving in permutations(images, 2)]
        if not found:
            raise PairError(f'{path}: all_pairs needs two images in its list "training"')
    elif which in offered:
        found = content[which]
    else:
        raise PairError(f"{path} has no list {which!r}; there are: {', '.join([*offered, ALL_PAIRS])}")
    return [row | _beside(row) for row in rows_of(found, path, what='{"fixed": path, "moving": path}')]


def _object(entry: Any) -> Mapping[str, Any]:
    """Return an entry of a JSON list if it is an object, else an empty one."""
    return entry if isinstance(entry, dict) else {}


def _beside(row: dict[str, str]) -> dict[str, str]:
    """Return the files beside a row's two images in Learn2Reg's layout, where both images have them."""
    found: dict[str, str] = {}
    kinds = (("label", ("labels", "masks"), ".nii.gz"), ("landmarks", ("landmarks", "keypoints"), ".csv"))
    for key, folders, suffix in kinds:
        for folder in folders:
            files = {name: _companion(Path(row.get(name, "")), folder, suffix) for name in IMAGES}
            if all(file is not None and not missing(file) for file in files.values()):
                found |= {f"{name}_{key}": str(file) for name, file in files.items()}
                break
    return found


def _companion(image: Path, folder: str, suffix: str) -> Path | None:
    """Return <folder>Tr/X<suffix> for imagesTr/X.nii.gz; None for an image that lies elsewhere."""
    split = IMAGE_FOLDER.match(image.parent.name)
    return image.parent.parent / f"{folder}{split[1]}" / (SUFFIX.sub("", image.name) + suffix) if split else None


def _zenodo(path: Path) -> Pairs:
    """Read Zenodo record 3835682: *_exp is fixed, *_insp moving; lung masks are labels, and keypoints landmarks."""
    root = next((folder for folder in (path, path / "training") if (folder / "scans").is_dir()), None)
    scans = sorted((root / "scans").glob("case_*_exp.nii.gz")) if root else []
    if root is None or not scans:
        raise PairError(f"{path} holds no scans/case_*_exp.nii.gz, also not below training/; give the archive's folder")
    rows = []
    for scan in scans:
        match = ZENODO_SCAN.match(scan.name)
        if match is None:
            continue
        names = {"fixed": f"{match[1]}_exp.nii.gz", "moving": f"{match[1]}_insp.nii.gz"}
        row = {"name": match[1], **{key: str(root / "scans" / name) for key, name in names.items()}}
        masks = {f"{key}_label": root / "lungMasks" / name for key, name in names.items()}
        if all(mask.exists() for mask in masks.values()):
            row |= {key: str(mask) for key, mask in masks.items()}
        points = root / "keypoints" / f"{match[1]}.csv"
        rows.append(row | ({"landmarks": str(points)} if points.exists() else {}))
    return rows
