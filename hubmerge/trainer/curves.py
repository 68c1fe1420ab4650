"""The course of a training as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

PANELS = (("loss", "loss"), ("rewards/margins", "margin of the rewards"), ("rewards/accuracies", "reward accuracy"))


def curves(history: Sequence[Mapping[str, float]]) -> bytes | None:
    """Returns a PNG of what was logged, the same for the same history; None if matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    steps = range(1, len(history) + 1)
    for axes, (key, title) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        axes.plot(steps, [log.get(key, float("nan")) for log in history], color="#3b6ea5", linewidth=1.2)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step", fontsize=9)
        axes.grid(alpha=0.3)
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=100, metadata={"Software": None})
    return target.getvalue()
