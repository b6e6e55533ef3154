"""The pictures of docs/performance.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class PlotError(Exception):
    """A picture cannot be drawn; the message says what is missing."""


_MEGABYTE: Final = 1e6
_HEIGHT: Final = 4  # inches


def _figure(rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotError("pictures need the package matplotlib, which is missing; pip install 'ecgmon[plot]'") from error
    figure = Figure(figsize=(8, _HEIGHT * (1 + rows) / 2), layout="constrained")
    return figure, figure.subplots(rows, columns)


def _save(figure: Any, path: Path) -> None:  # noqa: ANN401 - matplotlib is loaded only where it is used
    figure.savefig(path, dpi=110)


def _stages(found: dict[str, Any], path: Path) -> None:
    figure, axes = _figure()
    stages = list(found["stages"])[::-1]
    axes.barh(stages, [found["stages"][stage] for stage in stages], color="#4c78a8", label="measured")
    axes.barh(
        stages,
        [found["floors"][stage]["microseconds"] for stage in stages],
        color="#e45756",
        height=0.35,
        label="floor",
    )
    axes.set_xlabel("microseconds a beat, one core")
    axes.legend()
    _save(figure, path)


def _curve(found: dict[str, Any], path: Path) -> None:
    figure, axes = _figure()
    streams = [point["streams"] for point in found["points"]]
    for key, name in (("p50", "p50"), ("p99", "p99"), ("max", "most")):
        axes.plot(streams, [1e3 * point["latency_seconds"][key] for point in found["points"]], "o-", label=name)
    axes.axhline(100, color="grey", linewidth=0.8, linestyle="--")
    axes.set(xscale="log", yscale="log", xlabel="live streams", ylabel="latency in ms, arrival to commit")
    axes.legend()
    _save(figure, path)


def _worker(found: dict[str, Any], path: Path) -> None:
    figure, axes = _figure()
    marked = {"reference": "black", "deployed": "#e45756"}
    for name, form in {"reference": found["reference"], **found["forms"]}.items():
        batches = [int(batch) for batch in form["batches"]]
        speeds = [one["beats_per_second"]["median"] for one in form["batches"].values()]
        width = 2.5 if name in marked else 1
        axes.plot(batches, speeds, "o-", label=name, color=marked.get(name), linewidth=width, markersize=3 * width)
    floor = 1e6 / found["floor"]["microseconds_per_beat"]
    axes.axhline(floor, color="grey", linewidth=0.8, linestyle="--", label="floor")
    axes.set(xscale="log", yscale="log", xlabel="beats in a batch", ylabel="beats a second")
    figure.legend(loc="outside right upper")
    _save(figure, path)


def _store(found: dict[str, Any], path: Path) -> None:
    figure, axes = _figure()
    beats = [int(number) for number in found["commits"]]
    axes.plot(beats, [one["microseconds_per_beat"] for one in found["commits"].values()], "o-")
    axes.set(xscale="log", ylim=(0, None), xlabel="beats in a commit", ylabel="microseconds a beat, synced")
    _save(figure, path)


def _growth(found: dict[str, Any], path: Path) -> None:
    figure, panels = _figure(2, 2)
    labels = {
        "streams": "streams",
        "workers": "workers",
        "batch": "most beats in a batch",
        "stop": "minutes of a record",
    }
    for panel, (name, label) in zip(panels.flat, labels.items(), strict=True):
        values = [float(value) / (60 if name == "stop" else 1) for value in found[name]]
        panel.plot(values, [run["beats_per_second"] / 1e3 for run in found[name].values()], "o-", color="#4c78a8")
        panel.set(xlabel=label, ylabel="thousand beats a second", ylim=(0, None))
        latency = panel.twinx()
        latency.plot(
            values, [1e3 * run["latency_seconds"]["p99"] for run in found[name].values()], "s--", color="#e45756"
        )
        latency.set(ylabel="p99 in ms (dashed)", ylim=(0, None))
        if name in ("streams", "batch"):
            panel.set_xscale("log")
    _save(figure, path)


def _soak(found: dict[str, Any], path: Path) -> None:
    figure, axes = _figure()
    minutes = [seconds / 60 for seconds in found["samples"]["seconds"]]
    for role in found["roles"]:
        axes.plot(minutes, [bytes_ / _MEGABYTE for bytes_ in found["samples"][role]], label=role)
    axes.set(xlabel="minutes", ylabel="memory in MB", ylim=(0, None))
    axes.legend()
    _save(figure, path)


PLOTS: Final[dict[str, Callable[[dict[str, Any], Path], None]]] = {
    "pipeline": _stages,
    "pipeline-mitdb": _stages,
    "curve": _curve,
    "worker-cpu": _worker,
    "worker-cuda": _worker,
    "store": _store,
    "growth": _growth,
    "soak": _soak,
}
"""Functions that draw a measurement, by the name of its result file."""
