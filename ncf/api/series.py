"""Registration of a series in memory: every phase to one fixed image, each from its neighbour's result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Any

from monai.data import MetaTensor

from ncf.api.options import Options
from ncf.api.registered import Registered
from ncf.api.registration import registered
from ncf.core.errors import PairError
from ncf.core.names import GOOD
from ncf.core.paths import expanded, there
from ncf.fit.warm_start import WarmStart
from ncf.io.image_files import read_image
from ncf.io.image_objects import image_of
from ncf.pair.neighbours import Neighbours


def register_series(
    fixed: Any,
    phases: Mapping[str, Any],
    *,
    fixed_label: Any = None,
    fixed_mask: Any = None,
    moving_labels: Mapping[str, Any] | None = None,
    landmarks: Mapping[str, Any] | None = None,
    **options: Any,
) -> Iterator[tuple[str, Registered]]:
    """Register every phase of a series to its fixed scan, each from the result of the phase that is most like it.

    The bytes are those of ``ncf series``. The order of the phases in the mapping changes no result.

    Args:
        fixed: in one of the forms that `ncf.register` takes. All results lie on its grid.
        phases: the other scans, by name.

    Keyword Args:
        fixed_label: as of `ncf.register`.
        fixed_mask: likewise.
        moving_labels: label maps of phases, by the phase's name.
        landmarks: (N, 6) of phases, by the phase's name.
        options: ``preset`` to ``progress``, as of `ncf.register`.

    Yields:
        Name and result of each phase as soon as it is there, the phase most like the fixed scan first. What a caller
        does not keep is freed.

    Raises:
        PairError: there is no phase, a label or landmarks are of none, or a phase cannot be registered.
        TypeError: there is no such option.

    Example:
        >>> from ncf import register_series
        >>> from ncf.phantom.series import breathing_series
        >>> breath = list(breathing_series((24, 24, 24), phases=3))
        >>> fixed = (breath[0].fixed, breath[0].affine)
        >>> phases = {f"t{number}": (pair.moving, pair.affine) for number, pair in enumerate(breath)}
        >>> [name for name, result in register_series(fixed, phases, preset="fast")]
        ['t1', 't0']
    """
    chosen, beside = Options(**options), {"moving_label": moving_labels or {}, "landmarks": landmarks or {}}
    if not phases:
        raise PairError("a series needs phases; give them by name")
    odd = next((name for named in beside.values() for name in named if name not in phases), None)
    if odd is not None:
        raise PairError(f"there is no phase {odd!r}; labels and landmarks go by the names of the phases")
    found = Neighbours(_image("fixed", fixed))
    for name, phase in phases.items():
        found.add(name, _image(f"phase {name}", phase))
    return _one_by_one(
        found, phases, {"fixed": fixed, "fixed_label": fixed_label, "fixed_mask": fixed_mask}, beside, chosen
    )


def _image(key: str, given: Any) -> MetaTensor:
    """Return an image in memory, or that of a path."""
    if isinstance(given, (str, PathLike)):
        return read_image(key, str(there(expanded(given).absolute(), key)))
    return image_of(key, given)


def _one_by_one(
    found: Neighbours,
    phases: Mapping[str, Any],
    given: Mapping[str, Any],
    beside: Mapping[str, Mapping[str, Any]],
    options: Options,
) -> Iterator[tuple[str, Registered]]:
    """Yield the results."""
    starts: dict[str, WarmStart] = {}
    for name in found.order():
        neighbours = found.ranked(name, list(starts))
        own = {key: named.get(name) for key, named in beside.items()}
        start = starts[neighbours[0]] if neighbours else None
        result = registered({**given, **own, "moving": phases[name], "start": start}, options)
        offered = result.start(name)
        if offered is not None and result.metrics["verdict"]["word"] == GOOD:
            starts[name] = offered
        yield name, result
