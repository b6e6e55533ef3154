"""``ecgmon bench report``: docs/performance.md and its pictures, from measurements kept as JSON."""

from __future__ import annotations

import textwrap
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from ecgmon.monitor.bench import measurement
from ecgmon.monitor.bench.measurement import MissingFigureError
from ecgmon.monitor.bench.plots import PLOTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from ecgmon.monitor.bench.measurement import Measurement

_BYTES: Final = 1e6
_WIDTH: Final = 118  # characters of a line of prose


class ReportError(Exception):
    """A report cannot be written; the message says what to do."""


def write(results: Path, page: Path) -> None:
    """Write the page and its pictures.

    Parameters
    ----------
    results : Path
        Folder with the output of ``ecgmon bench ... --json``: ``pipeline.json``, ``pipeline-mitdb.json``,
        ``segment.json``, ``live.json``, ``live-mitdb.json``, ``curve.json``, ``worker-cpu.json``, ``worker-cuda.json``,
        ``store.json``, ``start.json``, ``growth.json``, ``soak.json``.  The page marks a missing file as not measured.
    page : Path
        Pictures go to a folder of the same name beside it.  The text below :data:`KEPT` is kept.

    Raises
    ------
    ReportError, ecgmon.monitor.bench.measurement.MeasurementError
        If the folder has none of them, or one is damaged or of another version.
    ecgmon.monitor.bench.plots.PlotError
        If pictures cannot be drawn.
    """
    found = _read(results)
    pictures = page.with_suffix("")
    parts = [_HEAD]
    for name in _SECTIONS:
        if name not in found:
            parts.append(f"## {name}\n\nNot measured.\n")
            continue
        with _complete(results / f"{name}.json"):
            parts.append(section(name, found[name]))
        if name in PLOTS:
            parts.append(f"![{name}]({pictures.name}/{name}.png)\n")
    pictures.mkdir(parents=True, exist_ok=True)
    for name, plot in PLOTS.items():
        if name in found:
            with _complete(results / f"{name}.json"):
                plot(found[name], pictures / f"{name}.png")
    kept = ""
    if page.is_file():
        _, mark, kept = page.read_text(encoding="utf-8").partition(KEPT)
        kept = mark + kept
    page.write_text("\n".join(parts) + "\n" + (kept or f"{KEPT}\n"), encoding="utf-8")


def _read(results: Path) -> dict[str, Measurement]:
    """Read all measurements of a folder, by the name of their file."""
    found: dict[str, Measurement] = {}
    for file in sorted(results.glob("*.json")):
        found[file.stem] = one = measurement.read(file)
        if not isinstance(one.get("machine"), dict):
            raise ReportError(f"{file} is not a measurement: it does not name its machine; measure again")
    if not found:
        raise ReportError(f"there is no measurement in {results}; make one with 'ecgmon bench pipeline --json'")
    return found


@contextmanager
def _complete(file: Path) -> Iterator[None]:
    """Refuse a measurement that lacks a figure."""
    try:
        yield
    except MissingFigureError as error:
        raise ReportError(f"{file} is not a measurement of this version: it has no {error}; measure again") from error


def section(name: str, found: dict[str, Any]) -> str:
    """Return a measurement as Markdown.

    Parameters
    ----------
    name : str
        Name of the result file, without its suffix.
    """
    return "\n".join(_wrapped(line) for line in _SECTIONS[name](found).split("\n"))


def _wrapped(line: str) -> str:
    """Wrap a line of prose; the rows of tables stay whole."""
    return line if line.startswith("|") else textwrap.fill(line, _WIDTH, break_long_words=False, break_on_hyphens=False)


KEPT: Final = "<!-- below this line the page is written by hand -->"
"""The text of the page below this line is kept."""

_HEAD: Final = """\
# Performance

`ecgmon bench report` makes this page from the files in `results/bench/`, which `ecgmon bench ... --json` printed.
Absolute times of a shared machine mean little; compare the ratios. To repeat a measurement and see what changed, run
`ecgmon bench --compare results/bench/pipeline.json`.
"""


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table with aligned columns, also readable as plain text."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(f"{cell:{'>' if k else '<'}{widths[k]}}" for k, cell in enumerate(row)) + " |"
        for row in cells
    ]
    rules = ["-" * width if k == 0 else "-" * (width - 1) + ":" for k, width in enumerate(widths)]
    lines.insert(1, "| " + " | ".join(rules) + " |")
    return "\n".join(lines) + "\n"


def _machine(found: dict[str, Any]) -> str:
    machine = found["machine"]
    gpu = f", {machine['gpu']}" if "gpu" in machine else ""
    return f"Measured on: {machine['processor']}, {machine['cores']} cores{gpu}.\n"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.1f} ms"


def _pipeline(found: dict[str, Any]) -> str:
    spread = found["spread"]
    rows = [
        (stage, f"{found['stages'][stage]:.1f}", f"{floor['microseconds']:.2f}",
         f"{found['stages'][stage] / floor['microseconds']:.0f}" if floor["microseconds"] > 0.01 else "-")  # noqa: PLR2004 - below, the ratio has no meaning
        for stage, floor in found["floors"].items()
    ]  # fmt: skip
    roles = ", ".join(f"{role} {1e6 * value:.0f}" for role, value in found["roles_cpu_seconds_per_beat"].items())
    return (
        f"## From disk to stored scores, {_leads(found['leads'])}\n\n{_machine(found)}\n"
        f"{_command(found)}: {_records(found['records'])}, each played {found['loop']} times, {found['beats']:,} beats, "
        f"{found['workers']} worker, batches of {found['batch']}, median of {found['repeats']}.\n\n"
        + _table(
            ("", "median", "least", "most"),
            [
                (what, *(f"{spread[key][which]:,.{digits}f}" for which in ("median", "min", "max")))
                for what, key, digits in (
                    ("beats a second", "beats_per_second", 0),
                    (
                        "reference: full BeatGAN, batches of 64, one core or all, whichever is faster, scoring only",
                        "reference_beats_per_second",
                        0,
                    ),
                    ("ratio", "ratio", 2),
                )
            ],
        )
        + f"\nProcessor time of a beat: {1e6 * found['cpu_seconds_per_beat']:.0f} us ({roles}). The part of each "
        "stage, run by itself on one core:\n\n"
        + _table(("stage", "us a beat", "floor", "times the floor"), rows)
        + f"\nThe sum of the stages is {sum(found['stages'].values()):.0f} us, that of their floors "
        f"{found['floor_microseconds_per_beat']:.1f} us. A floor is the time of the stage's arithmetic at the rate of a large "
        "matrix product, and of its bytes at the rate of a large copy; for the store, at the rate of a file that is synced by "
        "the megabyte. Beyond the stages, the processes spend time on sockets, queues, metrics, and the cache that both cores "
        "share.\n"
        "\nTime of the stages by function (one that computes, or calls a library or a compiled loop), with the names of the "
        "version that was measured:\n\n" + _table(("function", "stage", "us a beat", "of the stage"), _profile(found))
    )


def _known(figure: float | None, form: str, unit: float = 1.0) -> str:
    return "too small to measure" if figure is None else form.format(figure / unit)


def _command(found: dict[str, Any]) -> str:
    return f"`ecgmon bench {' '.join(found['command'])}`"


def _profile(found: dict[str, Any]) -> Iterable[tuple[str, ...]]:
    for stage, shares in found["profile"].items():
        for where, share in shares.items():
            yield f"`{where}`", stage, f"{share * found['stages'][stage]:.1f}", f"{100 * share:.0f} %"


def _leads(number: int) -> str:
    return "one lead" if number == 1 else f"{number} leads"


def _records(number: int) -> str:
    return "one record" if number == 1 else f"{number} records"


def _segment(found: dict[str, Any]) -> str:
    spread, live = found["spread"], found["live"]
    rows = [
        (what, *(f"{spread[key][which]:,.0f}" for which in ("median", "min", "max")))
        for what, key in (
            ("ecgmon, all leads, with windows", "ours"), ("wfdb's xqrs, one lead", "xqrs"), ("sleepecg, one lead", "sleepecg"),
        )
    ]  # fmt: skip
    ratios = " and ".join(
        f"{found['times_real_time'] / value:.1f} times {name}" for name, value in found["reference"].items()
    )
    chunks = ", ".join(f"{one['median']:.0f} us for {name}" for name, one in found["per_chunk_microseconds"].items())
    return (
        f"## Segmentation\n\n{_machine(found)}\n{_command(found)}: {found['signal_seconds']:,.0f} s of signal, "
        f"{_leads(found['leads'])} at {found['fs']:g} Hz, one core, median of {found['repeats']}.\n\n"
        + _table(("times real time", "median", "least", "most"), rows)
        + f"\nThat is {ratios}. A chunk takes {chunks}; {live['streams']:,} live streams with a chunk every "
        f"{live['chunk_seconds']:g} s take {live['cores']:.2f} cores.\n"
    )


def _live(found: dict[str, Any]) -> str:
    latency = found["latency_seconds"]
    return (
        f"## Live streams, {_leads(found['leads'])}\n\n{_machine(found)}\n{_command(found)}: {found['streams']:,} streams of "
        f"{_records(found['records'])} for {found['seconds']:.0f} s, "
        f"{found['beats']:,} beats.\n\n"
        + _table(
            ("", ""),
            [
                ("latency p50, p99, most", ", ".join(_ms(latency[key]) for key in ("p50", "p99", "max"))),
                ("dropped", found["dropped"]),
                ("processor cores", f"{found['cpu_cores']:.2f}"),
                ("memory", f"{found['rss_bytes'] / _BYTES:.0f} MB"),
                ("bytes a stream", _known(found["bytes_per_stream"], "{:,.0f}")),
            ],
        )
    )


def _curve(found: dict[str, Any]) -> str:
    return (
        f"## Number of live streams\n\n{_machine(found)}\n{_command(found)}: the daemon keeps up with a number if "
        "nothing is dropped and p99 is at most 100 ms.\n\n"
        + _table(
            ("streams", "p50", "p99", "most", "dropped", "cores", "memory"),
            [
                (
                    point["streams"], *(_ms(point["latency_seconds"][key]) for key in ("p50", "p99", "max")),
                    point["dropped"], f"{point['cpu_cores']:.2f}", f"{point['rss_bytes'] / _BYTES:.0f} MB",
                )
                for point in found["points"]
            ],
        )
    )  # fmt: skip


def _worker(found: dict[str, Any]) -> str:
    forms = {"reference": found["reference"], **found["forms"]}
    batches = list(found["reference"]["batches"])
    best, floor = found["best"], found["floor"]
    missing = "".join(f"- {name}: not available here ({why})\n" for name, why in found["unavailable"].items())
    return (
        f"## Scoring alone, {found['device']}\n\n{_machine(found)}\n{_command(found)}: beats a "
        f"second by batch size, median of {found['repeats']}, from windows in main memory to A(x).\n\n"
        + _table(
            ("form", *batches, "largest relative difference of A(x)"),
            [
                (
                    name,
                    *(f"{form['batches'][batch]['beats_per_second']['median']:,.0f}" for batch in batches),
                    f"{form['parity']:.1e}" if "parity" in form else "",
                )
                for name, form in forms.items()
            ],
        )
        + f"\n{missing}\nThe deployed form is fastest with {best['batch']} beats: {best['beats_per_second']:,.0f} a second, "
        f"{best['ratio']:.1f} times the reference in batches of 64, {best['over_floor']:.1f} times the floor of "
        f"{floor['microseconds_per_beat']:.2f} us ({floor['operations_per_beat']:,.0f} operations, "
        f"{floor['bytes_per_beat']:,.0f} bytes). Its scores differ between batch sizes by "
        f"{found['difference_between_batch_sizes']:g}. One beat takes "
        f"{_ms(found['forms']['deployed']['batches'][batches[0]]['latency_seconds']['p99'])} (p99).\n"
    )


def _store(found: dict[str, Any]) -> str:
    text = (
        f"## Store\n\n{_machine(found)}\n{_command(found)}: every commit is synced to the disk.\n\n"
        + _table(
            ("beats in a commit", "us a beat", "ms a commit", "beats a second"),
            [
                (
                    beats, f"{one['microseconds_per_beat']:.1f}", f"{one['milliseconds_per_commit']:.1f}",
                    f"{one['beats_per_second']['median']:,.0f}",
                )
                for beats, one in found["commits"].items()
            ],
        )
        + f"\nA million beats take {found['bytes_per_million_beats'] / _BYTES:.0f} MB; a plain file that is synced by the "
        f"megabyte takes {found['reference']['plain_file_beats_per_second']:,.0f} beats a second.\n"
    )  # fmt: skip
    if "queries" not in found:
        return text
    queries = found["queries"]
    return (
        text + f"\nQueries to a store of {queries['beats']:,} beats in {queries['streams']} streams "
        f"({queries['bytes'] / 1e9:.1f} GB):\n\n"
        + _table(
            ("query", "first", "median"),
            [(query, _ms(one["first"]), _ms(one["median"])) for query, one in queries["seconds"].items()],
        )
    )


def _start(found: dict[str, Any]) -> str:
    names = {
        "python": "reference: Python alone", "help": "`ecgmon --help`", "version": "`ecgmon --version`",
        "run_ready": "`ecgmon run`: a worker has joined", "first_beat": "`ecgmon run`: the first beat is stored",
    }  # fmt: skip
    rows = [
        (what, *(f"{found[name][which]:.2f} s" for which in ("median", "min", "max"))) for name, what in names.items()
    ]
    return f"## Start\n\n{_machine(found)}\n{_command(found)}.\n\n" + _table(("", "median", "least", "most"), rows)


def _growth(found: dict[str, Any]) -> str:
    text = f"## Growth\n\n{_machine(found)}\n{_command(found)}, full speed.\n\n"
    for name, what in (
        ("streams", "streams"), ("workers", "workers"), ("batch", "most beats in a batch"), ("stop", "seconds of a record"),
    ):  # fmt: skip
        text += (
            _table(
                (what, "beats a second", "p50", "p99"),
                [
                    (
                        value, f"{run['beats_per_second']:,.0f}",
                        *(_ms(run["latency_seconds"][key]) for key in ("p50", "p99")),
                    )
                    for value, run in found[name].items()
                ],
            )
            + "\n"
        )  # fmt: skip
    return text


def _soak(found: dict[str, Any]) -> str:
    return (
        f"## Memory over time\n\n{_machine(found)}\n{_command(found)}: {found['minutes']:.0f} minutes at full speed, "
        f"{found['beats']:,} beats, {found['beats_per_second']:,.0f} a second. A line is fitted to all but the first fifth.\n\n"
        + _table(
            ("role", "first", "last", "slope an hour"),
            [
                (
                    role, f"{one['first'] / _BYTES:.1f} MB", f"{one['last'] / _BYTES:.1f} MB",
                    _known(one["slope_bytes_per_hour"], "{:+.2f} MB", _BYTES),
                )
                for role, one in found["roles"].items()
            ],
        )
    )  # fmt: skip


_SECTIONS: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    "pipeline": _pipeline,
    "pipeline-mitdb": _pipeline,
    "segment": _segment,
    "live": _live,
    "live-mitdb": _live,
    "curve": _curve,
    "worker-cpu": _worker,
    "worker-cuda": _worker,
    "store": _store,
    "start": _start,
    "growth": _growth,
    "soak": _soak,
}
