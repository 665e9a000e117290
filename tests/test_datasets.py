"""Lists of pairs from every form a data set comes in; what is wrong with a list is said with its row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ncf.io.pair_lists import read_pairs
from tests.refusing import refused


def touched(folder: Path, *names: str) -> list[str]:
    """Empty files below a folder; lists of pairs are about names alone."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return [str(folder / name) for name in names]


def as_json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_plain_json_with_paths_beside_it(tmp_path: Path) -> None:
    a, b, label, points = touched(tmp_path, "scans/a.nii.gz", "scans/b.mha", "label.nii.gz", "points.csv")
    pairs = [
        {"fixed": "scans/a.nii.gz", "moving": "scans/b.mha", "landmarks": "points.csv", "fixed_label": ""},
        {"fixed": b, "moving": "scans/a.nii.gz", "moving_label": "label.nii.gz", "name": "back again"},
    ]
    found = read_pairs(as_json(tmp_path / "list.json", {"name": "mine", "pairs": pairs}))
    assert found == [
        {"name": "a__b", "fixed": a, "moving": b, "landmarks": points},
        {"name": "back_again", "fixed": b, "moving": a, "moving_label": label},
    ]


def test_images_mean_all_ordered_pairs(tmp_path: Path) -> None:
    scans = touched(tmp_path, *(f"{n}.nii.gz" for n in "abc"))
    labels = touched(tmp_path, *(f"{n}_seg.nii.gz" for n in "abc"))
    images = [{"image": i, "label": la, "name": n} for i, la, n in zip(scans, labels, "abc", strict=True)]
    found = read_pairs(as_json(tmp_path / "list.json", {"images": images}))
    assert [pair["name"] for pair in found] == ["a__b", "a__c", "b__a", "b__c", "c__a", "c__b"]
    expected = {
        "name": "b__c",
        "fixed": scans[1],
        "moving": scans[2],
        "fixed_label": labels[1],
        "moving_label": labels[2],
    }
    assert found[3] == expected
    del images[1]["label"]
    refused("row 2: has no label, but row 1 has one", read_pairs, as_json(tmp_path / "list.json", {"images": images}))
    refused("row 1: an image has the entries", read_pairs, as_json(tmp_path / "list.json", {"images": [{"scan": "a"}]}))


def test_csv_with_columns_in_any_order(tmp_path: Path) -> None:
    a, b, label = touched(tmp_path, "a.nii.gz", "b.nii.gz", "l.nii.gz")
    (tmp_path / "list.csv").write_text(
        f"moving, name,fixed,moving_label\nb.nii.gz,one,{a},l.nii.gz\n\na.nii.gz,,b.nii.gz,\n"
    )
    found = read_pairs(tmp_path / "list.csv")
    assert found == [
        {"name": "one", "fixed": a, "moving": b, "moving_label": label},
        {"name": "b__a", "fixed": b, "moving": a},
    ]


def learn2reg(folder: Path, *, companions: Sequence[str]) -> Path:
    """A data set in today's layout with cases 1 and 2, each with two images; returns its JSON."""
    stems = [f"LungCT_000{case}_000{kind}" for case in (1, 2) for kind in (0, 1)]
    touched(folder, *(f"imagesTr/{stem}.nii.gz" for stem in stems))
    for part in companions:
        touched(
            folder, *(f"{part}/{stem}{'.csv' if 'marks' in part or 'points' in part else '.nii.gz'}" for stem in stems)
        )
    images = [f"./imagesTr/{stem}.nii.gz" for stem in stems]
    pairs = [{"fixed": images[0], "moving": images[1]}, {"fixed": images[2], "moving": images[3]}]
    content = {"name": "LungCT", "tensorImageShape": {"0": [192, 192, 208]}, "training": [{"image": i} for i in images]}
    return as_json(
        folder / "LungCT_dataset.json", {**content, "registration_val": pairs[1:], "training_paired_images": pairs}
    )


@pytest.mark.parametrize(
    ("companions", "label", "points"),
    [
        (["masksTr", "landmarksTr", "keypointsTr"], "masksTr", "landmarksTr"),
        (["labelsTr", "masksTr", "keypointsTr"], "labelsTr", "keypointsTr"),
        ([], None, None),
    ],
)
def test_learn2reg(tmp_path: Path, companions: Sequence[str], label: str | None, points: str | None) -> None:
    source = learn2reg(tmp_path, companions=companions)
    (found,) = read_pairs(source)
    stems = {"fixed": "LungCT_0002_0000", "moving": "LungCT_0002_0001"}
    expected = {"name": "LungCT_0002_0000__LungCT_0002_0001"}
    expected |= {key: str(tmp_path / "imagesTr" / f"{stem}.nii.gz") for key, stem in stems.items()}
    if label:
        expected |= {f"{key}_label": str(tmp_path / label / f"{stem}.nii.gz") for key, stem in stems.items()}
    if points:
        expected |= {f"{key}_landmarks": str(tmp_path / points / f"{stem}.csv") for key, stem in stems.items()}
    assert found == expected
    assert len(read_pairs(source, which="training_paired_images")) == 2
    names = [pair["name"] for pair in read_pairs(source, which="all_pairs")]
    assert len(names) == len(set(names)) == 12
    offered = "there are: registration_val, training_paired_images, all_pairs"
    with pytest.raises(ValueError, match=f"has no list 'registration_test'; {offered}"):
        read_pairs(source, which="registration_test")


def test_the_zenodo_archive(tmp_path: Path) -> None:
    names = [f"case_00{n}_{breath}.nii.gz" for n in (1, 2) for breath in ("exp", "insp")]
    touched(tmp_path, *(f"training/{part}/{name}" for part in ("scans", "lungMasks") for name in names))
    touched(tmp_path, "training/keypoints/case_001.csv")
    for folder in (tmp_path, tmp_path / "training"):
        one, two = read_pairs(folder)
        assert one["name"] == "case_001" and one["fixed"].endswith("scans/case_001_exp.nii.gz")
        assert one["moving"].endswith("case_001_insp.nii.gz") and one["landmarks"].endswith("keypoints/case_001.csv")
        assert two["moving_label"].endswith("lungMasks/case_002_insp.nii.gz") and "landmarks" not in two
    refused("holds no scans/case", read_pairs, tmp_path / "training" / "scans")
    (tmp_path / "training" / "scans" / names[1]).unlink()
    refused(r"training, row 1: moving .*case_001_insp\.nii\.gz is not there", read_pairs, tmp_path / "training")


PAIR = {"fixed": "a.nii.gz", "moving": "b.nii.gz"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the list is empty"),
        ([PAIR, {"fixed": "a.nii.gz"}], "row 2: moving not named"),
        ([PAIR, {**PAIR, "name": "again"}], r"row 2: the pair of row 1 again, .*b\.nii\.gz onto .*a\.nii\.gz"),
        (
            [{**PAIR, "name": "x"}, {"fixed": "b.nii.gz", "moving": "a.nii.gz", "name": "X"}],
            "row 2: named 'X' as row 1 is",
        ),
        ([{**PAIR, "label": "a.nii.gz"}], "row 1: unknown entry label; known are name, fixed, moving, fixed_label"),
        ([{**PAIR, "fixed_label": "gone.nii.gz"}], r"row 1: fixed_label .*gone\.nii\.gz is not there"),
        ([{"fixed": "a.nii.gz", "moving": "a.nii.gz"}], "row 1: fixed and moving are one file"),
        ([{**PAIR, "fixed_landmarks": "a.nii.gz"}], "row 1: give landmarks .*or both"),
        ([PAIR, ["a", "b"]], r"row 2: expected \{\"fixed\": path"),
        ([PAIR, {**PAIR, "name": 3}], "row 2: expected"),
    ],
)
def test_a_list_with_a_mistake(tmp_path: Path, rows: list[Any], message: str) -> None:
    touched(tmp_path, "a.nii.gz", "b.nii.gz")
    refused(rf"list\.json.*{message}", read_pairs, as_json(tmp_path / "list.json", {"pairs": rows}))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list.json", "{", "cannot read the data set"),
        ("list.json", "[]", "expected"),
        ("list.nii.gz", "hello", "list.nii.gz: it is neither CSV nor JSON; give a list of pairs as .csv or .json"),
        ("list.json", '{"pairs": [], "images": []}', "expected one list"),
        ("list.json", '{"pairs": {}}', "expected one list"),
        ("list.csv", "a.nii.gz,b.nii.gz\n", "the first line names the columns"),
        ("list.csv", "", "the first line names the columns"),
        ("list.csv", "fixed,moving\na\n", "row 1: 1 cells under 2 columns"),
        ("list.csv", "fixed,moving\n", "the list is empty"),
    ],
)
def test_a_file_that_is_no_list(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    refused(message, read_pairs, tmp_path / name)
    refused("no data set .*missing", read_pairs, tmp_path / "missing.json")
    with pytest.raises(ValueError, match=r"'registration_val' is for Learn2Reg's|cannot read|expected"):
        read_pairs(tmp_path / name, which="registration_val")
