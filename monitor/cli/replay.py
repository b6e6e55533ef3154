"""The commands ``replay`` and ``demo``: records through the whole pipeline."""

from __future__ import annotations

import json
import math
import shutil
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ecgmon.monitor.cli.check_config import add_config_flags
from ecgmon.monitor.cli.roles import load_config

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable, Iterator

    from ecgmon.monitor.cli.live_view import View
    from ecgmon.monitor.config.schema import Config, SourceSettings
    from ecgmon.monitor.process.session import Played
    from ecgmon.monitor.store import StoredAlert
    from ecgmon.pipelines.sources.record import RecordSource

_DEMO_SPEED: Final = 20.0
_ALERTS_SHOWN: Final = 12  # rows of the summary's table of alerts; `ecgmon alerts` shows them all


def add_replay(parser: ArgumentParser) -> None:
    """Add the arguments of ``ecgmon replay``."""
    parser.description = (
        "Stream WFDB records through a real producer, monitor and worker, and say what came of it. "
        "A RECORD is a path, a folder of records, or a name such as 208 or mitdb/208, looked for in ECGMON_MITDB, "
        "in ../shared/mitdb, then downloaded. `toy` is the built-in record."
    )
    parser.epilog = (
        "With --state, a replay goes on where an earlier one stood: beats in the store are not stored again. "
        "Exit status: 0 all records done (or drained after Ctrl-C), 1 a record failed, 3 it cannot run so."
    )
    parser.add_argument("records", nargs="+", metavar="RECORD", help="path, folder or name of a record")
    parser.add_argument(
        "--speed", default="max", metavar="1|20|max", help="multiple of real time, or max (default: max)"
    )
    parser.add_argument("--leads", metavar="A,B", help="leads to read, by name or number (default: all)")
    parser.add_argument("--start", metavar="TIME", help="where to begin: seconds, MM:SS or HH:MM:SS")
    parser.add_argument("--stop", metavar="TIME", help="where to end")
    parser.add_argument("--loop", type=int, default=1, metavar="N", help="play each record N times, as one stream")
    parser.add_argument("--state", metavar="DIR", help="keep the store here (default: it is thrown away)")
    _add_common(parser)


def add_demo(parser: ArgumentParser) -> None:
    """Add the arguments of ``ecgmon demo``."""
    parser.description = (
        "Replay the built-in record, five minutes of MIT-BIH 208 with ventricular beats, at 20 times real time, "
        "with a live view; end with a summary and a picture."
    )
    parser.add_argument("--speed", default=f"{_DEMO_SPEED:g}", metavar="1|20|max", help="multiple of real time")
    parser.add_argument("--state", metavar="DIR", help="keep the store here (default: it is thrown away)")
    parser.add_argument(
        "--picture",
        type=Path,
        default=Path("ecgmon-demo.png"),
        metavar="FILE",
        help="picture to write (default: %(default)s)",
    )
    _add_common(parser)


def _add_common(parser: ArgumentParser) -> None:
    parser.add_argument("--workers", metavar="N", help="number of workers, as [worker] count")
    parser.add_argument("--port", default="0", metavar="N", help="port of the metrics (default: a free one)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    add_config_flags(parser)


def run_replay(args: Namespace) -> int:
    """Run ``ecgmon replay``."""
    return _Replay(args).run()


def run_demo(args: Namespace) -> int:
    """Run ``ecgmon demo``."""
    args.records, args.leads, args.start, args.stop, args.loop = ["toy"], None, None, None, 1
    return _Replay(args, demo=True).run()


@dataclass(frozen=True, slots=True)
class _Summary:
    """What a replay came to, read from the store and the monitor's last word."""

    streams: dict[str, dict[str, Any]]
    alerts: list[StoredAlert]
    played: Played
    failed: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        status = self.played.status
        return {
            "streams": self.streams,
            "beats": {
                "segmented": status.segmented,
                "scored": status.scored,
                "stored": status.stored,
                "redelivered": status.redelivered,
                "dropped": status.dropped,
            },
            "seconds": round(status.busy_seconds, 6),
            "beats_per_second": round(status.stored / status.busy_seconds, 3) if status.busy_seconds else 0.0,
            "latency_seconds": {"p50": _number(status.latency_p50), "p99": _number(status.latency_p99)},
            "failed": self.failed,
            "interrupted": self.played.interrupted,
        }


def _lead_note(source: RecordSource) -> tuple[str, ...]:
    from ecgmon.models.windows import PREFERRED_LEADS

    if any(lead in PREFERRED_LEADS for lead in source.leads):
        return ()
    return (f"no lead MLII or II, which the model knows: lead {source.leads[0]} is scored in its place",)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


class _Replay:
    """One run of ``replay`` or ``demo``."""

    def __init__(self, args: Namespace, *, demo: bool = False) -> None:
        from rich.console import Console

        self._args = args
        self._demo = demo
        # people read the summary on standard output; with --json it belongs to the object alone
        self._err = Console(stderr=True)
        self._out = self._err if args.json else Console()
        self._failed: dict[str, str] = {}

    def run(self) -> int:
        from ecgmon.monitor.process.report import Status
        from ecgmon.monitor.process.session import Played
        from ecgmon.monitor.process.signals import StopRequest
        from ecgmon.monitor.process.supervisor import EXIT_FAILED, EXIT_REFUSED, SupervisorError
        from ecgmon.monitor.store import StoreError

        stopping = StopRequest()
        try:
            sources = self._sources()
        except ValueError as error:
            return self._complain(str(error), 2)
        if not sources:
            if self._args.json:
                nothing = Played(Status(), interrupted=False, restarts=0)
                print(json.dumps(_Summary({}, [], nothing, self._failed).as_json()))
            return EXIT_FAILED
        with _folder("ecgmon-run-") as runtime, _state(self._args.state) as state:
            try:
                config = self._config(sources, runtime, state)
                played = self._play(config, sources, stopping)
                summary = self._summarise(state, played, sources)
            except (SupervisorError, StoreError) as error:
                return self._complain(str(error), EXIT_REFUSED)
            self._show(summary)
            if self._demo:
                self._draw(state, sources[0][1], config)
        return EXIT_FAILED if summary.failed else 0

    def _complain(self, text: str, status: int) -> int:
        print(f"ecgmon: {text}", file=sys.stderr)
        return status

    def _sources(self) -> list[tuple[SourceSettings, RecordSource]]:
        """Open every record that was named; those that cannot be opened are said and left out."""
        from ecgmon.monitor.config.schema import SourceSettings
        from ecgmon.pipelines.sources.errors import SourceError
        from ecgmon.pipelines.sources.finding import resolve_each
        from ecgmon.pipelines.sources.record import open_source, parse_time

        args = self._args
        try:
            speed = 0.0 if args.speed == "max" else float(args.speed)
        except ValueError:
            speed = -1.0
        if not 0 <= speed < math.inf or (speed == 0 and args.speed != "max"):
            raise ValueError(f"--speed {args.speed}: expected a multiple of real time, such as 1 or 20, or max")
        if args.loop < 1:
            raise ValueError(f"--loop {args.loop}: expected 1 or more")
        try:
            start = 0.0 if args.start is None else parse_time(args.start)
            stop = 0.0 if args.stop is None else parse_time(args.stop)
        except SourceError as error:
            raise ValueError(str(error)) from error
        leads = tuple(args.leads.split(",")) if args.leads else ()
        refs, errors = resolve_each(args.records)
        for name, wrong in errors.items():
            self._fail(name, wrong)
        sources = []
        for ref in refs:
            try:
                source = open_source(ref, leads=leads or None, start=start, stop=stop or None, loop=args.loop)
            except SourceError as error:
                self._fail(ref.stream, error)
                continue
            for note in (*source.notes, *_lead_note(source)):
                self._err.print(f"{ref.stream}: {note}", markup=False, highlight=False, soft_wrap=True)
            settings = SourceSettings(
                record="toy" if ref.path is None else str(ref.path.absolute()),
                name=ref.stream, speed=speed, leads=leads, start=start, stop=stop, loop=args.loop,
            )  # fmt: skip
            sources.append((settings, source))
        return sources

    def _fail(self, name: str, error: Exception) -> None:
        self._failed[name] = str(error)
        self._complain(str(error), 1)

    def _config(self, sources: list[tuple[SourceSettings, RecordSource]], runtime: Path, state: Path) -> Config:
        flags = {"exporter.port": self._args.port, "worker.count": self._args.workers}
        config = load_config(self._args, {key: value for key, value in flags.items() if value is not None})
        replace = msgspec.structs.replace
        return replace(
            config,
            runtime=replace(config.runtime, dir=str(runtime)),
            store=replace(config.store, path=str(state)),
            source=tuple(settings for settings, _ in sources),
            # alerts are shown by the view; what processes log below an error would only hide them
            log=replace(config.log, level="error", format="console") if not self._args.set else config.log,
        )

    def _view(self, sources: list[tuple[SourceSettings, RecordSource]], config: Config) -> View:
        from ecgmon.monitor.cli.live_view import Bars, LiveView, Plain

        lengths = {s.stream: None if s.length is None else s.length / s.fs for _, s in sources}
        if not self._err.is_terminal:
            return Plain(self._err, lengths)
        if self._demo:
            return LiveView(self._err, lengths, threshold=config.alerts.score_threshold)
        return Bars(self._err, lengths)

    def _play(
        self, config: Config, sources: list[tuple[SourceSettings, RecordSource]], stopping: Callable[[], bool]
    ) -> Played:
        from ecgmon.monitor.process.session import play

        with self._view(sources, config) as view:
            return play(config, observe=view.update, output=view.say, stopping=stopping)

    def _summarise(self, state: Path, played: Played, sources: list[tuple[SourceSettings, RecordSource]]) -> _Summary:
        from ecgmon.monitor.store import Reader

        wanted = {source.stream for _, source in sources}
        with Reader(state) as reader:
            streams = {
                stream.name: {"beats": stream.beats, "alerts": stream.alerts}
                for stream in reader.streams()
                if stream.name in wanted
            }
            alerts = [found for found in reader.alerts() if found.stream in wanted]
            alerts.sort(key=lambda found: (found.alert.start, found.stream))
        return _Summary(streams, alerts, played, {**self._failed, **played.status.troubles})

    def _show(self, summary: _Summary) -> None:
        from rich.table import Table

        from ecgmon.monitor.cli.live_view import PRIORITY_STYLE, clock, milliseconds

        if self._args.json:
            print(json.dumps(summary.as_json()))
            return
        out, status = self._out, summary.played.status
        table = Table(title="streams", title_justify="left")
        table.add_column("stream", style="bold")
        for column in ("beats", "alerts"):
            table.add_column(column, justify="right")
        table.add_column("")
        for name, counts in summary.streams.items():
            table.add_row(name, str(counts["beats"]), str(counts["alerts"]), summary.failed.get(name, ""))
        out.print(table)
        if summary.alerts:
            alerts = Table(title="alerts", title_justify="left")
            for column in ("stream", "from", "to", "priority", "kind", "what"):
                alerts.add_column(column)
            for found in summary.alerts[:_ALERTS_SHOWN]:
                alert = found.alert
                alerts.add_row(
                    found.stream, clock(alert.start), "active" if alert.end is None else clock(alert.end),
                    f"[{PRIORITY_STYLE[alert.priority]}] {alert.priority} [/]", alert.kind.replace("_", " "), alert.message,
                )  # fmt: skip
            out.print(alerts)
            if len(summary.alerts) > _ALERTS_SHOWN:
                out.print(
                    f"... and {len(summary.alerts) - _ALERTS_SHOWN} more alerts (keep them with --state DIR, see them with ecgmon alerts)"
                )
        lost = status.segmented - status.stored
        out.print(
            f"beats: {status.segmented} segmented, {status.scored} scored, {status.stored} stored, {lost} lost, "
            f"{status.redelivered} redelivered, {status.dropped} dropped",
            highlight=False,
            soft_wrap=True,
        )
        if status.busy_seconds:
            out.print(
                f"{status.busy_seconds:.1f} s, {status.stored / status.busy_seconds:.0f} beats/s, latency "
                f"p50 {milliseconds(status.latency_p50)}, p99 {milliseconds(status.latency_p99)} "
                "(last sample of a window to its commit)",
                highlight=False,
                soft_wrap=True,
            )
        if summary.played.interrupted:
            out.print("interrupted: what was cut is stored, the rest was not read")

    def _draw(self, state: Path, source: RecordSource, config: Config) -> None:
        """Write the demo's picture from what the store holds."""
        from ecgmon.monitor.cli.closing_picture import draw_closing_picture

        path = self._args.picture
        draw_closing_picture(path, state, source, threshold=config.alerts.score_threshold)
        self._out.print(f"picture: {path}", highlight=False, soft_wrap=True)


@contextmanager
def _folder(prefix: str) -> Iterator[Path]:
    """Make a short-lived folder of ours alone; short in name, because socket paths are limited."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _state(named: str | None) -> Iterator[Path]:
    if named is not None:
        yield Path(named).absolute()
        return
    with _folder("ecgmon-state-") as folder:
        yield folder
