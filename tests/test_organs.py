"""What the closing lines say of single structures."""

from __future__ import annotations

from typing import Any

from ncf.result.organs import organ_lines


def dices(*after: float) -> dict[str, Any]:
    """Metrics of labels 1, 2, ... that all had half their Dice before."""
    labels = {str(number): value for number, value in enumerate(after, start=1)}
    return {"dice": {"before": {"labels": {n: v / 2 for n, v in labels.items()}}, "after": {"labels": labels}}}


def volumes(*ml: tuple[float, float]) -> dict[str, Any]:
    """Metrics of labels 1, 2, ... of the moving map, with their volumes before and after."""
    rows = [{"label": n, "volume_ml": {"moving": a, "carried": b}} for n, (a, b) in enumerate(ml, start=1)]
    return {"tg132": {"structures": rows}}


def told(metrics: dict[str, Any]) -> list[str]:
    """The lines without their word."""
    lines = organ_lines(metrics)
    assert all(line.startswith("  carried     ") for line in lines)
    return [line.split(maxsplit=1)[1] for line in lines]


def test_up_to_five_structures_are_all_told() -> None:
    named = {**dices(0.9, 0.8), "label_names": {"2": "Heart"}}
    assert told(named) == ["label 1: Dice 0.450 -> 0.900", "Heart: Dice 0.400 -> 0.800"]
    assert told(volumes((10.0, 12.5))) == ["label 1: volume 10.0 -> 12.5 ml"]
    assert len(told(dices(0.1, 0.2, 0.3, 0.4, 0.5))) == 5 and told({}) == []


def test_of_more_the_lowest_three_are_told() -> None:
    assert told(dices(0.9, 0.1, 0.8, 0.3, 0.7, 0.2)) == [
        "label 2: Dice 0.050 -> 0.100 (among the lowest Dice of 6)",
        "label 6: Dice 0.100 -> 0.200 (among the lowest Dice of 6)",
        "label 4: Dice 0.150 -> 0.300 (among the lowest Dice of 6)",
    ]
    many = volumes((10, 10), (10, 11), (10, 5), (10, 13), (10, 10), (0, 0))
    assert [line.partition(":")[0] for line in told(many)] == ["label 3", "label 4", "label 2"]


def test_a_structure_of_both_maps_and_one_without_numbers_have_no_volume() -> None:
    metrics = volumes((10.0, 12.0), (5.0, 6.0))
    metrics["tg132"]["structures"][0]["volume_ml"]["fixed"] = 11.0
    del metrics["tg132"]["structures"][1]["volume_ml"]["carried"]
    assert told(metrics) == []
    unknown = dices(0.9)
    unknown["dice"]["after"]["labels"]["1"] = None
    assert told(unknown) == []
