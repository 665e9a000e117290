"""The closing lines of a registration, for a person."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ignite.engine import Engine, Events

from ncf.core.console import tell
from ncf.core.words import counted, label_words
from ncf.result.organs import organ_lines

if TYPE_CHECKING:
    from ncf.fit.fitted import LevelRecord

logger = logging.getLogger(__name__)

POINTS = {"landmarks": "tre_mm", "guides": "guide_points_mm"}  # the word for points, and their entry in metrics.json


class PrintClosing:
    """Prints after each pair, in words, what changed and where the files are (an Ignite handler)."""

    def attach(self, engine: Engine) -> None:
        """Ask the engine to call this after each pair."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Print the closing lines of the pair that the engine has just finished."""
        output: Any = engine.state.output
        metrics, folder = output["metrics"], output["result_dir"]
        tell(closing_lines(metrics, folder), brief=brief_line(metrics, folder))
        for line in details(metrics, output["pred"].history):
            logger.debug(line)


def brief_line(metrics: Mapping[str, Any], result_dir: str) -> str:
    """Say in one line how a registration ended; a doubtful verdict comes with its reasons.

    Args:
        metrics: the content of metrics.json.
        result_dir: the result folder.
    """
    verdict = metrics.get("verdict", {})
    reasons = f" ({'; '.join(verdict['reasons'])})" if verdict.get("reasons") else ""
    word = f", {verdict['word']}{reasons}" if verdict else ""
    return f"Registered {metrics['name']} in {metrics['seconds']['total']:.1f} s{word}: {result_dir}"


def details(metrics: Mapping[str, Any], history: Sequence[LevelRecord]) -> list[str]:
    """Say the seconds of every stage, the memory, and the first and the last loss of every term and level.

    Args:
        metrics: the content of metrics.json.
        history: of the fit.
    """
    spent = ", ".join(f"{stage.replace('_', ' ')} {value:.1f}" for stage, value in metrics["seconds"].items())
    lines = [f"seconds: {spent}"]
    lines += [f"memory: {value:.0f} MiB, {where}" for where, value in metrics["peak_memory_mib"].items() if value]
    for level in history:
        terms = ", ".join(f"{name} {values[0]:.4f} -> {values[-1]:.4f}" for name, values in level.losses.items())
        lines.append(f"losses of level {level.name}: {terms}")
    return lines


def closing_lines(metrics: Mapping[str, Any], result_dir: str) -> str:
    """Say how the pair was before and after, how much folds, and where the files are.

    Args:
        metrics: the content of metrics.json.
        result_dir: the result folder.

    Returns:
        Several lines of text.
    """
    lines = [f"Registered {metrics['name']} in {metrics['seconds']['total']:.1f} s."]
    lines += [f"  {word:11} {_distances(metrics[key])}" for word, key in POINTS.items() if key in metrics]
    if "dice" in metrics:
        lines.append(f"  labels      {_dice_words(metrics)}")
    lines += organ_lines(metrics)
    for label, body in metrics.get("kept", {}).items():
        rigid, volume = body["rigid_rms_mm"], body["volume_ratio"]
        lines.append(f"  label {label_words(metrics, label):5} {rigid:.2f} mm from rigid, volume x {volume:.3f}")
    alike = metrics["similarity"]
    words = {"correlation": "ncc", "mutual information": "nmi"}
    told = [f"{word} {alike['before'][key]:.3f} before, {alike['after'][key]:.3f} after" for word, key in words.items()]
    lines.append(f"  images      {'; '.join(told)}")
    folds = metrics["folding_fraction"]
    inside = f", {100 * folds['in_label']:.3f} % inside the fixed label" if "in_label" in folds else ""
    lines.append(f"  folds       {100 * folds['all']:.3f} % of voxels{inside}")
    if metrics["attempts"] > 1:
        lines.append(f"  note        the first attempt diverged; this is attempt {metrics['attempts']}, more careful")
    if "verdict" in metrics:
        lines.append(f"  verdict     {metrics['verdict']['word']}")  # the warnings that follow give the reasons
    lines.append(f"  files       {result_dir}")
    return "\n".join(lines)


def _distances(found: Mapping[str, Any]) -> str:
    """Say how far apart points were before and are after."""
    after = found["after"]
    spread = f"median {after['median']:.2f}, 95 % below {after['p95']:.2f}, largest {after['max']:.2f}"
    means = f"{found['before']['mean']:.2f} mm before, {after['mean']:.2f} mm after"
    return f"{means} ({spread}; {counted(after['count'], 'point')})"


def _dice_words(metrics: Mapping[str, Any]) -> str:
    """Say the mean Dice before and after, of how many labels it is, and which labels a map lacks."""
    dice = metrics["dice"]
    scores, absent = dice["after"]["labels"], dice.get("absent", {})
    told = [
        f"{', '.join(label_words(metrics, label) for label in labels)} {key.replace('_', ' ')}"
        for key, labels in absent.items()
        if labels
    ]
    lacking = f"; absent: {'; '.join(told)}" if told else ""
    if not scores:
        return f"none is in both maps{lacking}"
    means = f"Dice {dice['before']['mean']:.3f} before, {dice['after']['mean']:.3f} after"
    lacking += "; they guided the fit" if dice.get("guided") else ""
    return f"{means} (mean of {counted(len(scores), 'label')}{lacking})"
