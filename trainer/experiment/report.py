"""The outcome of an experiment: every run as a row, a table with spread, and a plot."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
from scipy.stats import t

from alps.engine.base.atomic import whole, write_text
from alps.trainer.experiment.plan import SCRATCH, Finetuning, Plan, told
from alps.trainer.segmentation.metrics import Scores

COLOURS = {"scratch": "#777777", "alps": "#0b6e4f", "masks": "#d08c2f", "shuffled": "#b03a5b"}
OTHERS = ("#3b6fb0", "#7d4fa0", "#4fa09a", "#a08a4f", "#000000")  # of arms without one, in turn
CONFIDENCE = 0.95


def colours_of(arms: Sequence[str]) -> list[str]:
    """A colour for each arm."""
    others = cycle(OTHERS)
    return [COLOURS[arm] if arm in COLOURS else next(others) for arm in arms]


@dataclass(frozen=True)
class Measured:
    """A fine-tuning that is done."""

    run: Finetuning
    crops: int  # labelled crops that it saw
    scores: Scores


@dataclass(frozen=True)
class Cell:
    """The mIoU of an arm at a fraction, over the repetitions."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """NaN where nothing is done yet."""
        return float(np.mean(self.values)) if self.values else math.nan

    @property
    def spread(self) -> float:
        """Standard deviation of single repetitions (n - 1); NaN below two."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Where the mean lies with a confidence of 95 %, by Student's t; NaN below two."""
        if len(self.values) < 2:
            return math.nan, math.nan
        half = t.ppf((1 + CONFIDENCE) / 2, len(self.values) - 1)
        half *= self.spread / math.sqrt(len(self.values))
        return self.mean - half, self.mean + half

    def gain_text(self) -> str:
        """Points of mIoU with a sign, and the interval of the mean."""
        if not self.values:
            return "-"
        low, high = self.interval
        interval = "" if math.isnan(low) else f" ({100 * low:+.1f} to {100 * high:+.1f})"
        return f"{100 * self.mean:+.1f}{interval}"

    def text(self) -> str:
        """Points of mIoU."""
        if not self.values:
            return "-"
        spread = "" if math.isnan(self.spread) else f" ± {100 * self.spread:.1f}"
        return f"{100 * self.mean:.1f}{spread}"


@dataclass(frozen=True)
class Outcome:
    """What is known so far."""

    plan: Plan
    measured: tuple[Measured, ...]

    def values(self, arm: str, fraction: float) -> dict[int, float]:
        """mIoU by repetition."""
        return {
            one.run.seed: one.scores.mean_iou
            for one in self.measured
            if one.run.arm == arm and one.run.fraction == fraction
        }

    def cell(self, arm: str, fraction: float) -> Cell:
        """mIoU of an arm at a fraction."""
        return Cell(tuple(self.values(arm, fraction).values()))

    def gain(self, arm: str, fraction: float) -> Cell:
        """Gain over scratch, repetition by repetition: both saw the same labels."""
        base, own = self.values(SCRATCH, fraction), self.values(arm, fraction)
        return Cell(tuple(own[seed] - base[seed] for seed in sorted(own) if seed in base))

    def crops(self, fraction: float) -> str:
        """How many labelled crops a fraction is."""
        numbers = sorted({one.crops for one in self.measured if one.run.fraction == fraction})
        return "-" if not numbers else "-".join(str(n) for n in {numbers[0]: 0, numbers[-1]: 0})

    def table(self) -> str:
        """Markdown: a row a fraction, a column an arm, then the gains over scratch."""
        arms = self.plan.arms
        others = [arm for arm in arms if arm != SCRATCH] if SCRATCH in arms else []
        head = ["labels", "crops", *(told(arm) for arm in arms)]
        head += [f"gain: {arm}" for arm in others]
        lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for fraction in self.plan.fractions:
            row = [f"{fraction:.0%}" if fraction >= 0.01 else f"{fraction:.2%}"]
            row.append(self.crops(fraction))
            row += [self.cell(arm, fraction).text() for arm in arms]
            row += [self.gain(arm, fraction).gain_text() for arm in others]
            lines.append("| " + " | ".join(row) + " |")
        done, wanted = len(self.measured), len(self.plan.finetunings)
        seeds = len({one.run.seed for one in self.measured})
        lines += [
            "",
            f"mIoU on the test images in points, mean ± standard deviation over {seeds} "
            f"repetitions ({done} of {wanted} runs done); gains are of pairs that saw the same "
            "labels, with the 95 % interval of their mean (Student's t).",
        ]
        return "\n".join(lines)

    def save(self, folder: Path) -> None:
        """Write results.csv, table.md and plot.png."""
        with whole(folder / "results.csv") as part, part.open("w", newline="") as file:
            writer = csv.writer(file)
            measures = ["mean_iou", "mean_f1", "overall_accuracy"]
            names = list(self.measured[0].scores.classes) if self.measured else []
            writer.writerow(
                ["arm", "fraction", "seed", "crops", *measures, *(f"iou {name}" for name in names)]
            )
            for one in self.measured:
                row = [one.run.arm, one.run.fraction, one.run.seed, one.crops]
                row += [getattr(one.scores, name) for name in measures]
                writer.writerow([*row, *one.scores.iou])
        write_text(folder / "table.md", self.table() + "\n")
        self._plot(folder / "plot.png")

    def _plot(self, path: Path) -> None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.subplots()
        for arm, colour in zip(self.plan.arms, colours_of(self.plan.arms), strict=True):
            x, mean, spread = [], [], []
            for fraction in self.plan.fractions:
                cell = self.cell(arm, fraction)
                if not cell.values:
                    continue
                # Side by side, so that bars of spread do not hide each other.
                shift = 1.03 ** (self.plan.arms.index(arm) - (len(self.plan.arms) - 1) / 2)
                x.append(100 * fraction * shift)
                mean.append(100 * cell.mean)
                spread.append(0.0 if math.isnan(cell.spread) else 100 * cell.spread)
                axes.plot(
                    [x[-1]] * len(cell.values),
                    [100 * value for value in cell.values],
                    ".", color=colour, alpha=0.35, markersize=4,
                )  # fmt: skip
            style = "-" if arm in (SCRATCH, "alps") else "--"
            axes.errorbar(
                x, mean, spread, fmt="o" + style, color=colour, label=told(arm),
                capsize=3, markersize=4, linewidth=1.4,
            )  # fmt: skip
        axes.set_xscale("log")
        ticks = [100 * fraction for fraction in self.plan.fractions]
        axes.set_xticks(ticks, [f"{tick:g} %" for tick in ticks], minor=False)
        axes.minorticks_off()
        axes.set_xlabel("share of the labels")
        axes.set_ylabel("mIoU on the test images, points")
        axes.grid(axis="y", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
        with whole(path) as part:
            figure.savefig(part, dpi=150, format="png")
