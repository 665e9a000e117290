"""The bundle as MONAI and its model zoo want it: files, properties, metadata, knobs that do something, overlays."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from pydoc import locate
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, verify_metadata, verify_net_in_out
from monai.losses import SSIMLoss as MonaiSSIMLoss

from ncf.fit.losses.ssim import SSIMLoss

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
PRESETS = CONFIGS / "presets"
OVERLAYS = [*sorted(PRESETS.glob("*.json")), CONFIGS / "import.json", CONFIGS / "multi_gpu.json"]
BASES = {"import": "evaluate"}  # of overlays that are not over inference.json
ADDS = {
    "import": {"folders"},
    "multi_gpu": {"pairs", "which", "local_rank"},
}  # values of an overlay that are its own, besides the parameters of the base's objects
MODEL_BYTES = 300_000  # 60,870 float32 parameters are 243,480
# Not referred to, because MONAI itself looks for them: two at the start of a run, two only as required properties.
READ_BY_MONAI = {"imports", "run", "bundle_root", "dataset_dir"}
MAKE_MODEL = """
import torch
from monai.bundle import ConfigParser
from ncf.fit.optimizer import start_afresh
parser = ConfigParser()
parser.read_config("configs/inference.json")
network = parser.get_parsed_content("network_def")
start_afresh(network, 0)
torch.save(network.state_dict(), "models/model.pt")
"""
# What the MONAI bundle specification calls mandatory, with the name that the zoo's present schema gave to the packages.
TEXT = ("version", "monai_version", "pytorch_version", "numpy_version", "task", "description", "authors", "copyright")
PLACES = ("inputs", "outputs")
TENSOR = {
    **{key: {"type": "string"} for key in ("type", "format", "modality", "dtype")},
    **{"num_channels": {"type": "integer"}, "spatial_shape": {"type": "array", "minItems": 3, "maxItems": 3}},
    **{"value_range": {"type": "array"}, "is_patch_data": {"type": "boolean"}, "channel_def": {"type": "object"}},
}
SCHEMA = {
    "required": ["schema", "changelog", "required_packages_version", "network_data_format", *TEXT],
    "properties": {
        **{key: {"type": "string", "minLength": 1} for key in TEXT},
        "required_packages_version": {"type": "object", "additionalProperties": {"type": "string"}},
        "network_data_format": {
            "required": list(PLACES),
            "properties": {
                place: {"minProperties": 1, "additionalProperties": {"required": list(TENSOR), "properties": TENSOR}}
                for place in PLACES
            },
        },
    },
}

Run = Callable[..., ConfigWorkflow]


@pytest.fixture(scope="module", autouse=True)
def calm(one_thread: None) -> None:
    """All of this file."""


@pytest.fixture(scope="module")
def metadata() -> dict[str, Any]:
    return json.loads((CONFIGS / "metadata.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def inference() -> dict[str, Any]:
    return json.loads((CONFIGS / "inference.json").read_text(encoding="utf-8"))


def test_the_files_of_a_bundle_are_there() -> None:
    for name in ("configs/metadata.json", "configs/inference.json", "configs/logging.conf", "models/model.pt"):
        assert (ROOT / name).is_file(), name
    assert (ROOT / "metadata.json").is_symlink() and (ROOT / "metadata.json").samefile(CONFIGS / "metadata.json")
    assert (ROOT / "metadata.json").readlink() == Path("configs/metadata.json")  # a relative link survives a move


def test_the_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert re.search(r"Apache License\s+Version 2\.0, January 2004", text) and "END OF TERMS AND CONDITIONS" in text
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_monai_misses_no_property() -> None:
    workflow = ConfigWorkflow(str(CONFIGS / "inference.json"), workflow_type="inference", logging_file=False)
    workflow.initialize()
    assert workflow.check_properties() == []


def test_the_network_takes_and_gives_what_the_metadata_says(metadata: dict[str, Any]) -> None:
    told, config = str(CONFIGS / "metadata.json"), str(CONFIGS / "inference.json")
    for size in (1, 5):
        verify_net_in_out(net_id="network_def", meta_file=told, config_file=config, device="cpu", any=size)
    for place, name in zip(PLACES, ("image", "pred"), strict=True):
        tensor = metadata["network_data_format"][place][name]
        assert sorted(tensor["channel_def"], key=int) == [str(c) for c in range(tensor["num_channels"])]


@pytest.mark.filterwarnings("ignore:No hash value")
def test_the_metadata_has_what_the_specification_asks_for(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA), encoding="utf-8")  # found there, so nothing is downloaded
    verify_metadata(meta_file=str(CONFIGS / "metadata.json"), filepath=str(tmp_path / "schema.json"))
    parser = ConfigParser.load_config_file(CONFIGS / "metadata.json")
    for missing in ("copyright", "network_data_format"):
        less = {key: value for key, value in parser.items() if key != missing}
        (tmp_path / "less.json").write_text(json.dumps(less), encoding="utf-8")
        with pytest.raises(ValueError, match=f"'{missing}' is a required property"):
            verify_metadata(meta_file=str(tmp_path / "less.json"), filepath=str(tmp_path / "schema.json"))


def test_every_version_is_told_once(metadata: dict[str, Any]) -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    assert version and metadata["version"] == version[1] and metadata["version"] in metadata["changelog"]
    listed = [(ROOT / f"requirements{part}.txt").read_text(encoding="utf-8") for part in ("-core", "")]
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", "\n".join(listed), re.M))
    named = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}
    packages = metadata["required_packages_version"] | metadata["optional_packages"]
    assert {name: metadata[key] for name, key in named.items()} | packages == pins


def strings(config: Any) -> Iterator[str]:
    """All strings in a config, however deep."""
    if isinstance(config, str):
        yield config
    for item in config.values() if isinstance(config, dict) else config if isinstance(config, list) else ():
        yield from strings(item)


def knobs(config: Mapping[str, Any]) -> Iterator[str]:
    """Ids of plain values at the top, and of the values in groups of them; parts that a config builds have none."""
    for name, value in config.items():
        if name.startswith("_") or (isinstance(value, dict) and "_target_" in value):
            continue
        if not isinstance(value, dict):
            yield name
            continue
        parts = any(isinstance(inner, dict) and "_target_" in inner for inner in value.values())
        inside = knobs(value) if parts else (key for key in value if not key.startswith("_"))
        yield from (f"{name}::{key}" for key in inside)


def test_every_knob_is_read(inference: dict[str, Any]) -> None:
    read = {ref for text in strings(inference) for ref in re.findall(r"@(\w+(?:::\w+)*)", text)}
    found = set(knobs(inference))
    assert {"fixed", "output_dir", "seed", "network::omega", "fit::levels"} <= found
    assert found - read - READ_BY_MONAI == set()
    assert {ref.split("::")[0] for ref in read} <= {*inference, "_meta_"}


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_an_overlay_changes_what_is_there(overlay: Path) -> None:
    base = ConfigParser()
    base.read_config(CONFIGS / f"{BASES.get(overlay.stem, 'inference')}.json")
    for key, value in json.loads(overlay.read_text(encoding="utf-8")).items():
        parent, _, name = key.rpartition("::")
        assert base.get(parent) is not None, f"{overlay.name}: {parent} is not in its base"
        new = base.get(key, "absent") == "absent" and not name.startswith("_")
        if new and key not in ADDS.get(overlay.stem, ()) and not (isinstance(value, dict) and "_target_" in value):
            takes = inspect.signature(locate(base[parent].get("_target_", ""))).parameters if parent else ()
            assert name in takes, f"{overlay.name}: {key} is not in its base"


def test_the_model_file_is_the_start_of_every_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "configs").symlink_to(CONFIGS)
    monkeypatch.chdir(tmp_path)
    exec(MAKE_MODEL, {})
    fresh, stored = (torch.load(p / "models" / "model.pt", weights_only=True) for p in (tmp_path, ROOT))
    same = list(fresh) == list(stored) and all(torch.equal(fresh[name], stored[name]) for name in fresh)
    assert same, f"models/model.pt is not the first state of the network; run in {ROOT}:\n{MAKE_MODEL}"
    assert (ROOT / "models" / "model.pt").stat().st_size < MODEL_BYTES


def test_the_paper_overlay_is_the_paper(run: Run, tmp_path: Path) -> None:
    told = json.loads((PRESETS / "paper.json").read_text(encoding="utf-8"))
    assert [level["iterations"] for level in told["fit::levels"].values()] == [1000]
    # the levels of `run` are an override and would win over the overlay's
    levels = {name: {**level, "iterations": 3} for name, level in told["fit::levels"].items()}
    workflow = run(tmp_path, {}, PRESETS / "paper.json", phantom_size=[16, 17, 18], **{"fit::levels": levels})
    fit = workflow.evaluator.state.output["pred"]
    assert fit.history[0].shape == (16, 17, 18) == fit.space.control(fit.control_points).shape
    assert fit.space.order == 1 and sum(kept.codes.numel() for kept in fit.weights.values()) == 60870
    terms = workflow.inferer.objectives.loss.terms
    weights = {"photometric": 1.0, "ssim": 1.0, "occupancy": 0.1}
    assert {name: terms[name].weight for name in fit.history[0].losses} == weights
    ssim, monais = (
        terms["ssim"].loss,
        MonaiSSIMLoss(spatial_dims=3),
    )  # equal in value and gradient: tests/test_losses.py
    assert isinstance(ssim, SSIMLoss) and ssim.windows.stride == 1
    for name in ("kernel_size", "kernel_sigma", "k1", "k2", "data_range", "kernel_type"):
        assert getattr(ssim, name) == getattr(monais, name)
    assert (terms["ssim"].loss.kernel_size, terms["ssim"].loss.kernel_sigma) == ((11,) * 3, (1.5,) * 3)
    assert [(level.learning_rate, level.learning_rate_end) for level in workflow.inferer.levels.values()] == [
        (1e-3, 1e-6)
    ]
    assert workflow.inferer.initial_alignment is None and fit.offsets is None


def test_the_fast_overlay_is_the_default_with_less_to_do() -> None:
    base, fast = (ConfigParser() for _ in range(2))
    base.read_config(CONFIGS / "inference.json")
    fast.read_config([CONFIGS / "inference.json", PRESETS / "fast.json"])
    plain, quick = (list(parser.get_parsed_content("inferer").levels.values()) for parser in (base, fast))
    assert (
        sum(level.voxels * level.iterations for level in quick)
        < sum(level.voxels * level.iterations for level in plain) / 3
    )
    assert quick[-1].offset_rate == plain[-1].offset_rate > 0
    assert {key for key in base.get() if base.get()[key] != fast.get()[key]} == {"fit", "_desc_"}


@pytest.mark.parametrize(("rank", "expected"), [("0", ["a", "c"]), ("1", ["b"])])
def test_each_rank_of_torchrun_has_its_share(
    rank: str, expected: list[str], pair: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    for name in "abc":
        fixed = shutil.copy(pair["fixed"], tmp_path / f"{name}.nii.gz")
        rows.append({"name": name, "fixed": str(fixed), "moving": pair["moving"]})
    (tmp_path / "list.json").write_text(json.dumps({"pairs": rows}), encoding="utf-8")
    for variable, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(variable, value)
    parser = ConfigParser()
    parser.read_config([CONFIGS / "inference.json", CONFIGS / "multi_gpu.json"])
    parser["pairs"] = tmp_path / "list.json"
    assert [row["name"] for row in parser.get_parsed_content("dataset_data")] == expected
    assert len(parser.get_parsed_content("dataset")) == len(expected)
    assert parser.get_parsed_content("device").type == ("cuda" if torch.cuda.is_available() else "cpu")


ADDED = {
    "lncc": {
        "_target_": "ncf.fit.terms.CorrelationTerm",
        "loss": {"_target_": "LocalNormalizedCrossCorrelationLoss", "spatial_dims": 3, "kernel_size": 5},
        "weight": 0.5,
    },
    "bending": {"_target_": "ncf.fit.terms.FieldTerm", "loss": {"_target_": "BendingEnergyLoss"}, "weight": 0.1},
    "diffusion": {"_target_": "ncf.fit.terms.FieldTerm", "loss": {"_target_": "DiffusionLoss"}, "weight": 0.1},
}


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # MONAI's field losses
@pytest.mark.parametrize("name", ADDED)
def test_a_loss_is_a_line_of_config(run: Run, pair: Mapping[str, str], tmp_path: Path, name: str) -> None:
    (tmp_path / "more.json").write_text(json.dumps({f"loss::terms::{name}": ADDED[name]}), encoding="utf-8")
    plain, more = (
        run(tmp_path / key, pair, *files, name=key).evaluator.state.output["result_dir"]
        for key, files in (("plain", ()), ("more", (tmp_path / "more.json",)))
    )
    losses = [json.loads((Path(folder) / "run.json").read_text())["losses"][0]["losses"] for folder in (plain, more)]
    assert set(losses[1]) - set(losses[0]) == {name} and len(losses[1][name]) == 12 and max(losses[1][name]) > 0
    fields = [(Path(folder) / "displacement.nii.gz").read_bytes() for folder in (plain, more)]
    assert fields[0] != fields[1]


def test_many_pairs_in_one_run_are_pairs_alone(run: Run, pair: Mapping[str, str], tmp_path: Path) -> None:
    there, back = dict(pair), {"fixed": pair["moving"], "moving": pair["fixed"]}
    pairs = [{**there, "name": "there"}, {**back, "name": "back"}]
    run(tmp_path / "both", {}, CONFIGS / "multi_gpu.json", dataset_data=pairs)
    for one in pairs:
        run(tmp_path / "alone", one)
    for name in ("there", "back"):
        both, alone = (tmp_path / way / name / "displacement.nii.gz" for way in ("both", "alone"))
        assert both.read_bytes() == alone.read_bytes()
