"""The verdict: a right result is good, another is doubtful with a reason, a strict command says so by its status."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ncf.cohort.plan import Plan
from ncf.cohort.run import doubtful, run_cohort
from ncf.cohort.worker import Resources
from ncf.core.words import apart, percent_apart
from ncf.evaluate.evidence import Evidence, evidence_of
from ncf.evaluate.verdict import against_given, against_map, different_values
from ncf.fit.fitted import ContrastEvidence, Fit
from ncf.io.pair_lists import checked
from ncf.phantom.chest import breathing_thorax
from tests.conftest import LEVELS, ROOT, Run
from tests.fits import images_of

RIGHT = Evidence(overlap=0.95, recognised=0.98, shared=1.3, peak=0.3, spread=0.2, folds=0.0)


@pytest.fixture(scope="module", autouse=True)
def calm(one_thread: None) -> None:
    """All of this file."""


def test_places_are_recognised_where_a_right_map_leads_and_not_elsewhere() -> None:
    chest = breathing_thorax((48, 42, 45), seed=0)
    pair, truth = images_of(chest), torch.from_numpy(chest.field_vox)[None]
    right = evidence_of(pair, truth)
    assert right.recognised > 0.8 and right.overlap > 0.8 and right.spread < 0.3 and right.folds < 1e-3
    off = evidence_of(pair, truth + 6)
    assert off.recognised < 0.5 * right.recognised and off.shared < right.shared and right.peak > 0.3 > off.peak
    folded = truth.clone()
    folded[0, 0, ::2] += 3
    assert evidence_of(pair, folded).folds > 0.01
    noise = torch.rand(pair.moving.shape, generator=torch.Generator().manual_seed(0))
    assert evidence_of(replace(pair, moving=noise), truth).recognised < 0.3
    away = replace(pair, moving_affine=chest.moving_affine + np.array([[0, 0, 0, 5000.0], [0] * 4, [0] * 4, [0] * 4]))
    nothing = evidence_of(away, truth)
    assert nothing.overlap == 0 and math.isnan(nothing.recognised) and math.isnan(nothing.shared)


def fit_of(contrast: str = "same", *, moved: bool = True, by_edges: bool = True) -> Fit:
    """A fit of which only the contrast is looked at."""
    evidence = ContrastEvidence(contrast, "x", earned=0.2, moved=moved, by_edges=by_edges)
    return Fit(torch.zeros(1), {}, None, [], None, 0, [], 1, contrast=evidence)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "fit", "telling"),
    [
        (RIGHT, fit_of(), None),
        (replace(RIGHT, recognised=0.3), fit_of(), "only 30 % of the places"),
        (replace(RIGHT, recognised=math.nan), fit_of(), "too little contrast"),
        (replace(RIGHT, overlap=0.1), fit_of(), "only 10 % of the fixed scan meets"),
        (replace(RIGHT, overlap=0.3), fit_of(), None),
        (replace(RIGHT, overlap=0.3, recognised=0.7), fit_of(), "only 30 % of the fixed scan meets"),
        (replace(RIGHT, spread=0.5), fit_of(), "volumes change very unevenly"),
        (replace(RIGHT, folds=0.01), fit_of(), "the map folds in 1 %"),
        (replace(RIGHT, recognised=0.2), fit_of("different"), None),
        (replace(RIGHT, recognised=0.2, shared=1.05), fit_of("different"), "tell little of each other"),
        (replace(RIGHT, recognised=0.2, peak=0.1), fit_of("different"), "hardly better where the map leads"),
        (replace(RIGHT, recognised=0.6, shared=1.05), fit_of("different"), None),
        (replace(RIGHT, recognised=0.2, overlap=0.3), fit_of("different"), "only 30 % of the fixed scan meets"),
        (RIGHT, fit_of("different", moved=False), "no motion was taken"),
        (RIGHT, fit_of("different", moved=False, by_edges=False), None),  # the headers fit sharply as they are
    ],
)
def test_what_speaks_against_a_map(found: Evidence, fit: Fit, telling: str | None) -> None:
    reasons = list(against_map(found, fit))
    assert (telling is None and not reasons) or (len(reasons) == 1 and telling is not None and telling in reasons[0])


def test_a_number_that_misses_its_limit_does_not_read_as_the_limit() -> None:
    scarce = replace(RIGHT, recognised=0.2, shared=1.138)
    assert "information 1.138, right maps have 1.14" in next(against_map(scarce, fit_of("different")))
    assert "only 49.9 % of the places" in next(against_map(replace(RIGHT, recognised=0.499), fit_of()))
    assert percent_apart(0.2196, 0.22) == "21.96 %" and percent_apart(0.21, 0.22) == "21 %"
    assert apart(1.1399999999, 1.14) == "1.14"  # as many digits as one reads, and no more


def test_the_refusal_of_a_motion_has_its_limit() -> None:
    (told,) = against_map(RIGHT, fit_of("different", moved=False))
    assert "removes 20 % of the loss, between two such contrasts too little (the limit is 22 %), so no motion" in told


def test_landmarks_and_labels_are_heard() -> None:
    def told(tre: tuple[float, float], dice: tuple[float | None, float | None]) -> list[str]:
        when = ("before", "after")
        metrics = {"tre_mm": {w: {"mean": v} for w, v in zip(when, tre, strict=True)}}
        return list(against_given({**metrics, "dice": {w: {"mean": v} for w, v in zip(when, dice, strict=True)}}))

    assert told((5, 2), (0.5, 0.8)) == told((5, 5.05), (None, None)) == []
    assert "further apart" in told((5, 6), (0.5, 0.8))[0] and "overlap less" in told((5, 2), (0.8, 0.7))[0]
    assert different_values(torch.arange(30.0).repeat(100)) == 30 and different_values(torch.randn(5000)) > 1000


def test_a_strict_run_of_a_mask_ends_with_a_status_of_its_own(run: Run, pair: dict[str, str], tmp_path: Path) -> None:
    odd = {"fixed": pair["fixed_label"], "moving": pair["moving_label"]}
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, odd, name="x", strict=True, modality="same")
    assert ended.value.code == 2
    verdict = json.loads((tmp_path / "x" / "metrics.json").read_text(encoding="utf-8"))["verdict"]
    assert verdict["word"] == "doubtful" and "as a mask or a label map has" in verdict["reasons"][0]
    assert run(tmp_path, pair, name="y", strict=True).evaluator.state.output["metrics"]["verdict"]["word"] == "good"


@pytest.mark.slow
def test_a_cohort_names_doubtful_pairs(
    pair: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[dict[str, Any]] = [
        {"name": "right", "fixed": pair["fixed"], "moving": pair["moving"]},
        {"name": "mask", "fixed": pair["fixed"], "moving": pair["moving_label"]},
    ]
    settings = {"fit::levels": LEVELS, "inferer::search": None, "device": "cpu", "report": False, "modality": "same"}
    files = (str(ROOT / "configs" / "inference.json"),)
    plan = Plan(checked(rows, where="list"), files, tmp_path, settings)
    assert run_cohort(plan, resources=Resources(1, 1), progress=False)
    assert list(doubtful(plan)) == ["mask"]
    told = capsys.readouterr().out
    assert "doubtful: mask: the moving scan has only 5 different values" in told
    table = (tmp_path / "cohort_table.csv").read_text(encoding="utf-8")
    assert "verdict.word" in table.splitlines()[0] and "good" in table and "doubtful" in table
    assert "| verdict |" in (tmp_path / "cohort_table.md").read_text(encoding="utf-8")
