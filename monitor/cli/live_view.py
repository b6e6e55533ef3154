"""Output during a replay: a live view, progress bars, or plain lines."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ecgmon.monitor.cli.printing import clock, milliseconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ecgmon.monitor.core.status import FeedUpdate, Status, StreamStatus

_STRIP: Final = 60  # beats in the running strip of scores
_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_STRIP_TOP: Final = 4.0  # score that fills a block
_PLAIN_SECONDS: Final = 2.0  # between two plain lines of progress
_RATE_SECONDS: Final = 2.0  # over which beats per second are averaged
PRIORITY_STYLE: Final = {"high": "bold white on red", "medium": "bold black on yellow", "low": "black on cyan"}


class View(Protocol):
    """Shows the progress of a replay."""

    def __enter__(self) -> Self:
        """Start the output."""

    def __exit__(self, *_: object) -> None:
        """Restore the terminal."""

    def update(self, status: Status, updates: list[FeedUpdate]) -> None:
        """Show the current state."""

    def say(self, line: str) -> None:
        """Show a line that a process wrote."""


class Silent:
    """Shows only the lines that processes write."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, status: Status, updates: list[FeedUpdate]) -> None:
        """Show nothing."""

    def say(self, line: str) -> None:
        """Show a line that a process wrote."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class Plain(Silent):
    """Prints a line every few seconds, for pipes and logs.

    Parameters
    ----------
    console : Console
    lengths : mapping of str to float or None
        Length of every stream in s; None if it does not end.
    """

    def __init__(self, console: Console, lengths: Mapping[str, float | None]) -> None:
        super().__init__(console)
        self._lengths = lengths
        self._next = 0.0

    def update(self, status: Status, updates: list[FeedUpdate]) -> None:
        """Print every change of an alert, and every few seconds the state of every stream."""
        for update in updates:
            for alert in update.alerts:
                what = "raised" if alert.end is None else "cleared"
                at = alert.start if alert.end is None else alert.end
                self.say(f"{update.stream}  {clock(at)}  alert {what}: {alert.kind} ({alert.priority}) {alert.message}")
        now = time.monotonic()
        if now < self._next or not status.streams:
            return
        self._next = now + _PLAIN_SECONDS
        for name, stream in status.streams.items():
            length = self._lengths.get(name)
            of = "" if length is None else f" of {clock(length)}"
            self.say(
                f"{name}  {clock(stream.seconds)}{of}  {stream.beats} beats  {_rate(stream.rate)}/min"
                f"  score {_score(stream.last_score)}  {len(stream.active)} active alerts"
            )


class Bars:
    """Shows a progress bar for each record."""

    def __init__(self, console: Console, lengths: Mapping[str, float | None]) -> None:
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[at]}"),
            TextColumn("{task.fields[what]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._lengths = lengths
        self._tasks: dict[str, TaskID] = {
            name: self._progress.add_task(name, total=length, at="0:00", what="waiting")
            for name, length in lengths.items()
        }

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, status: Status, updates: list[FeedUpdate]) -> None:
        """Move the bars."""
        del updates
        for name, stream in status.streams.items():
            if name in self._tasks:
                alerts = f", {len(stream.active)} alerts" if stream.active else ""
                self._progress.update(
                    self._tasks[name],
                    completed=stream.seconds,
                    at=clock(stream.seconds),
                    what="done" if stream.ended else f"{stream.beats} beats{alerts}",
                )

    def say(self, line: str) -> None:
        """Show a line that a process wrote, above the bars."""
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)


class LiveView:
    """The view of the demo: stream, heart rate, strip of scores, alerts, beats per second, metrics.

    Parameters
    ----------
    console : Console
    lengths : mapping of str to float or None
        Length of every stream in s; None if it does not end.
    threshold : float
        Alert threshold of the score.
    """

    def __init__(self, console: Console, lengths: Mapping[str, float | None], *, threshold: float) -> None:
        self._lengths = lengths
        self._threshold = threshold
        self._strips: dict[str, deque[float]] = {}
        self._lines: deque[str] = deque(maxlen=4)
        self._stored: deque[tuple[float, int]] = deque()
        self._live = Live(console=console, refresh_per_second=10, transient=False)

    def __enter__(self) -> Self:
        self._live.start()
        self._live.update(Text("starting monitor, worker and producer ..."))
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, line: str) -> None:
        """Keep the last lines that processes wrote, which are shown under the view."""
        self._lines.append(line)

    def update(self, status: Status, updates: list[FeedUpdate]) -> None:
        """Draw the view again."""
        for update in updates:
            strip = self._strips.setdefault(update.stream, deque(maxlen=_STRIP))
            strip.extend(score for _, score in update.beats)
        panels = [self._stream(name, stream) for name, stream in status.streams.items()]
        self._live.update(Group(*panels, self._footer(status), *(Text(line, style="dim") for line in self._lines)))

    def _stream(self, name: str, stream: StreamStatus) -> Panel:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", justify="right")
        table.add_column()
        length = self._lengths.get(name)
        place = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=length, completed=min(stream.seconds, length), width=32) if length else Text("")
        place.add_row(clock(stream.seconds), bar, clock(length) if length else "")
        table.add_row("time", place)
        table.add_row("heart rate", Text(f"{_rate(stream.rate)} /min", style="bold green"))
        score = Text(_score(stream.last_score), style=self._style(stream.last_score))
        table.add_row("last score", score.append(f"   threshold {self._threshold:g}", style="dim"))
        table.add_row("scores", self._strip(name))
        alerts = Text()
        for alert in stream.active:
            alerts.append(f" {alert.kind.replace('_', ' ')} ", style=PRIORITY_STYLE[alert.priority])
            alerts.append(f" since {clock(alert.start)}  ")
        table.add_row("alerts", alerts if stream.active else Text("none", style="dim"))
        table.add_row("beats", str(stream.beats))
        state = "ended" if stream.ended else "stalled" if stream.stalled else "running"
        return Panel(table, title=f"stream [bold]{name}[/] ({state})", title_align="left", border_style="blue")

    def _strip(self, name: str) -> Text:
        text = Text()
        for score in self._strips.get(name, ()):
            if math.isnan(score):
                text.append("?", style="dim")
                continue
            block = _BLOCKS[min(len(_BLOCKS) - 1, int(score / _STRIP_TOP * len(_BLOCKS)))]
            text.append(block, style=self._style(score))
        return text

    def _style(self, score: float) -> str:
        if math.isnan(score):
            return "dim"
        return "bold red" if score >= self._threshold else "yellow" if score >= self._threshold - 1 else "green"

    def _footer(self, status: Status) -> Text:
        now = time.monotonic()
        self._stored.append((now, status.stored))
        while now - self._stored[0][0] > _RATE_SECONDS:
            self._stored.popleft()
        then, before = self._stored[0]
        rate = (status.stored - before) / (now - then) if now > then else 0.0
        return Text.assemble(
            (f" {rate:.0f} beats/s", "bold"),
            f"   latency p50 {milliseconds(status.latency_p50)}, p99 {milliseconds(status.latency_p99)}",
            f"   {len(status.workers)} worker   metrics ",
            (status.metrics, "underline"),
        )


def _rate(rate: float) -> str:
    return "-" if math.isnan(rate) else f"{rate:.0f}"


def _score(score: float) -> str:
    return "-" if math.isnan(score) else f"{score:.2f}"
