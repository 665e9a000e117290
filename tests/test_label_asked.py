"""What a viewer may ask the label server for, without a server."""

from __future__ import annotations

import socket
import time
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from ncf.cohort.worker import Outcome, Task
from ncf.commands.label_server import label_server
from ncf.core.errors import PairError
from ncf.label import worker
from ncf.label.asked import AUTOMATIC, DEFAULT, EXTENSIONS, Asked, understood
from ncf.label.labels import merged, names_of
from ncf.label.server import HOST, serve
from ncf.phantom.chest import LABELS
from tests.refusing import refused

STUDY = {
    "anna_day1": False,
    "anna_plan": True,
    "anna_day0": False,
    "ben_plan": True,
    "anna": False,
    "annabel_plan": True,
}
PRESETS = ("fast", "paper")
NOTICED_S = 20.0  # until the pool has noticed that its process is gone: 0.1 s, on a machine that is not busy


def ask(**request: Any) -> Asked:
    return understood({"image": "anna_day1", **request}, labelled=STUDY, presets=PRESETS)


@pytest.mark.parametrize("nothing", [None, "", AUTOMATIC])
def test_without_a_name_the_first_labelled_scan_of_the_patient_moves(nothing: str | None) -> None:
    asked = ask(moving=nothing, preset=nothing if nothing != AUTOMATIC else DEFAULT)
    plain = (None, "auto", "deformable", 0, False, False, False, [], [], ".nii.gz")
    assert asked == Asked("anna_day1", "anna_plan", *plain)
    assert ask() == asked and ask(moving="ben_plan").moving == "ben_plan"
    more = {**STUDY, "anna_day0": True}
    assert understood({"image": "anna_day1"}, labelled=more, presets=()).moving == "anna_day0"


def test_settings_are_taken_as_words_or_values() -> None:
    words = ask(seed="7", align_centres="True", preset="fast", result_extension=".nrrd")
    assert words == ask(seed=7, align_centres=True, preset="fast", result_extension=".nrrd")
    overrides = {"modality": "auto", "transform": "deformable", "seed": 7, "align_centres": True}
    assert (words.preset, words.extension, words.overrides) == ("fast", ".nrrd", overrides)
    assert ask(modality="different").overrides["modality"] == "different"
    led = ask(guide_labels="true", rigid_label="3, 5", keep_volume_label=7, guide_points=True)
    assert led == ask(guide_labels=True, rigid_label=[3, 5], keep_volume_label="7", guide_points="true")
    wishes = {"guide_labels": True, "rigid_label": [3, 5], "keep_volume_label": [7]}
    assert led.guide_points and led.overrides == {**ask().overrides, **wishes}
    assert ask(rigid_label="", keep_volume_label=[]) == ask()
    others = {"model": "ncf", "device": "cuda", "label_tag": "original", "images": "all", "result_dtype": "uint8"}
    assert ask(**others) == ask()


@pytest.mark.parametrize(
    ("request_", "telling"),
    [
        ({"image": "carl"}, "image: no scan 'carl' in the study folder; there are: anna, anna_day0, anna_day1"),
        ({"image": ""}, "image: no scan ''"),
        ({"image": "/etc/passwd"}, "image: no scan '/etc/passwd'"),
        ({"image": ["anna_day1"]}, r"image: no scan \['anna_day1'\]"),
        ({"moving": "../anna_plan"}, "moving: no scan '../anna_plan'"),
        ({"moving": "anna_day1"}, "the same scan"),
        ({"moving": "anna_day0"}, "'anna_day0' has no saved label"),
        ({"image": "anna_plan"}, "none of anna, anna_day0, anna_day1 has a saved label; name one"),
        ({"image": "ben_plan"}, "patient 'ben' .* there is none in the study folder"),
        ({"preset": "papr"}, "preset is one of default, fast, paper, got 'papr'"),
        ({"modality": "MR"}, "modality is one of auto, same, different, got 'MR'"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"seed": True}, "seed must be a whole number"),
        ({"seed": "1.5"}, "seed must be a whole number"),
        ({"align_centres": "maybe"}, "align_centres is true or false"),
        ({"guide_points": "points.csv"}, "guide_points is true or false"),
        ({"rigid_label": "heart"}, "rigid_label is a label number above zero, or several, got 'heart'"),
        ({"keep_volume_label": [0]}, "keep_volume_label is a label number above zero"),
        ({"guide_label": True}, "unknown parameter 'guide_label', did you mean guide_labels?"),
        ({"result_extension": ".exe"}, "result_extension is one of .nii.gz, .nii, .nrrd, got '.exe'"),
        ({"movng": "anna_plan"}, "unknown parameter 'movng', did you mean moving?"),
    ],
)
def test_what_cannot_be_done_is_refused(request_: dict[str, Any], telling: str) -> None:
    refused(telling, lambda: ask(**request_))


def test_every_file_type_offered_is_understood() -> None:
    assert [ask(result_extension=extension).extension for extension in EXTENSIONS] == list(EXTENSIONS)


def test_names_stand_in_the_order_of_their_values(pair: dict[str, str]) -> None:
    count = max(LABELS.values())
    plain = names_of(pair["fixed_label"], {})
    assert list(plain.items()) == [(f"label_{value}", value) for value in range(1, count + 1)]
    given = {
        "label_info": [{"name": "lung", "idx": 2}, {"name": "", "idx": 1}, {"idx": 3}, "what", {"name": "x", "idx": 0}]
    }
    named = names_of(pair["fixed_label"], given)
    assert named == {**{name: value for name, value in plain.items() if value != 2}, "lung": 2}
    assert list(named.values()) == sorted(named.values())
    twice = names_of(pair["fixed_label"], {"label_info": [{"name": "lung", "idx": 1}, {"name": "lung", "idx": 2}]})
    assert list(twice.items())[:3] == [("lung", 1), ("lung_2", 2), ("label_3", 3)]
    assert list(merged([{"a": 1, "b": 2}, {"c": 1, "b": 3}])) == ["a", "c", "b"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_label_without_numbers_is_refused(value: float, tmp_path: Path) -> None:
    path = tmp_path / "label.nii.gz"
    nib.save(nib.Nifti1Image(np.full((4, 4, 4), value, np.float32), np.eye(4)), path)
    refused("are NaN or infinite", lambda: names_of(str(path), {}))


def test_a_worker_that_dies_while_it_waits_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "register_pair", Outcome)
    task, warm = Task('{"name": "pair"}', (), "{}", ""), worker.WarmWorker(threads=1)
    try:
        others = set(active_children())
        assert warm(task).reason is None
        (process,) = set(active_children()) - others
        process.kill()
        end = time.monotonic() + NOTICED_S
        while warm._pool.active and time.monotonic() < end:
            time.sleep(0.05)
        assert warm(task).reason is None
    finally:
        warm.stop()
    assert warm(task).reason == worker.STOPPED


@pytest.mark.parametrize(
    ("port", "telling"),
    [("0", "--port is 1 to 65535, got 0"), ("70000", "--port is 1"), ("x", "--port must be a whole number")],
)
def test_a_port_that_is_none_is_refused(port: str, telling: str) -> None:
    with pytest.raises(SystemExit, match=telling):
        label_server(studies="studies", port=port)


def test_the_server_does_not_begin_without_its_folder_or_port(tmp_path: Path) -> None:
    with pytest.raises(PairError, match="is no folder"):
        serve(tmp_path / "none", port=1)
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        with pytest.raises(PairError, match=r"cannot listen on 127\.0\.0\.1:.* choose another --port"):
            serve(tmp_path, port=taken.getsockname()[1])
    assert not list(tmp_path.iterdir())


def test_a_device_that_is_not_there_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: device 'nonsense' cannot be used"):
        label_server(studies=str(tmp_path), device="nonsense").start()
