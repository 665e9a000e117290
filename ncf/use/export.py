"""Result folders and saved maps as the files of other programs; no registration, no networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ncf.core.errors import PairError
from ncf.core.names import AFFINE_FILE, IMAGES, NETWORK_FILE, RESULT_FILES, RUN_FILE, image_stem, without_suffix
from ncf.io.fields.base import FieldFormat, FieldToSave
from ncf.io.fields.table import field_formats, field_suffixes
from ncf.io.itk_fields import load_affine
from ncf.result.folder import SavedResult, saved_results
from ncf.use.carry import open_map, output_paths


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        files: the share of the voxels that the map knows, by file.
        collected: one file made of all, or None.
    """

    files: Mapping[Path, float]
    collected: Path | None


def export_fields(
    path: str | Path,
    output_dir: str | Path,
    *,
    kind: str,
    naming: str | None = None,
    reference: str | Path | None = None,
    pre_transform: str | Path | None = None,
    post_transform: str | Path | None = None,
) -> Exported:
    """Write maps in the format of another program, each as one field.

    Args:
        path: a result folder, a folder of such, or what `ncf.result.folder.saved_map` opens.
        output_dir: where the files go.
        kind: a key of `ncf.io.fields.table.field_formats`.
        naming: one of the format's ways of naming, by default its first.
        reference: a scan whose grid the fields lie on, by default the map's own.
        pre_transform: see `ncf.use.carry.open_map`; it becomes part of the field.
        post_transform: the same.

    Raises:
        PairError: two maps give one file, an output is an input, or a file cannot be read or written.
    """
    entry = field_formats()[kind]
    folders = saved_results(path) if Path(path).is_dir() else []
    sources = sources_of(path)
    read = [
        *(r.folder / name for r in folders for name in RESULT_FILES),
        path,
        reference,
        pre_transform,
        post_transform,
    ]
    stems = _stems(entry, folders, sources, naming)
    named = [stem + entry.suffix for stem in stems]
    targets = output_paths(named, output_dir, read=[file for file in read if file is not None])
    known_share = {}
    for source, target in zip(sources, targets, strict=True):
        opened = open_map(source, reference=reference, pre_transform=pre_transform, post_transform=post_transform)
        found, known = opened.map.on(opened.reference)
        affine = source / AFFINE_FILE
        part = load_affine(affine) if folders and affine.exists() else None
        entry.save(target, FieldToSave(found.field, found.grid, opened.moving, part))
        known_share[target] = float(known.float().mean())
    return Exported(known_share, None if entry.collect is None else entry.collect(targets[0].parent))


def _stems(entry: FieldFormat, folders: list[SavedResult], sources: list[Path], naming: str | None) -> list[str]:
    """Return the names of the files without suffix, no two the same."""
    if entry.stem is None:
        return [result.name for result in folders] or [name_of(source) for source in sources]
    if not folders:
        raise PairError(f"{sources[0]} does not say which scans it belongs to; export result folders in this format")
    found: dict[str, Path] = {}
    for result in folders:
        if not result.inputs:
            what = f"{result.folder} was saved from Python and knows no files of scans"
            raise PairError(f"{what}, after which these files are named; use another format")
        fixed, moving = (image_stem(str(result.inputs[key])) for key in IMAGES)
        stem = entry.stem(fixed, moving, naming or next(iter(entry.namings), ""))
        if stem in found:
            both = f"{found[stem]} and {result.folder}"
            raise PairError(f"{both} both give {stem}{entry.suffix}; use long names, or export one of them")
        found[stem] = result.folder
    return list(found)


def sources_of(path: str | Path) -> list[Path]:
    """Return the folders of all results in a folder, or the path itself where it is that of a file."""
    folders = saved_results(path) if Path(path).is_dir() else []
    return [result.folder for result in folders] or [Path(path)]


def name_of(path: Path) -> str:
    """Return the name of a result folder; of a map's file, and of its folder for a file of a result."""
    if path.is_dir():
        return path.absolute().name
    of_result = path.name in RESULT_FILES and (path.absolute().parent / RUN_FILE).exists()
    if of_result:
        return path.absolute().parent.name
    return without_suffix(path.name, (*field_suffixes(), Path(NETWORK_FILE).suffix))
