"""The summary at the end of a replay: streams, alerts and speed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table

from ecgmon.monitor.cli.alert_table import alert_table
from ecgmon.monitor.cli.printing import milliseconds

if TYPE_CHECKING:
    from ecgmon.monitor.process.replay import Summary

_ALERTS_SHOWN: Final = 12  # rows; ``ecgmon alerts`` shows them all


def print_summary(summary: Summary) -> None:
    """Print the summary of a replay on standard output."""
    console = Console(highlight=False, soft_wrap=True)
    table = Table(title="streams", title_justify="left")
    table.add_column("stream", style="bold")
    for column in ("beats", "alerts"):
        table.add_column(column, justify="right")
    table.add_column("")
    for stream, beats in summary.beats.items():
        table.add_row(stream, str(beats), str(summary.alerts_of[stream]), summary.failed.get(stream, ""))
    console.print(table)
    if summary.alerts:
        shown = summary.alerts[:_ALERTS_SHOWN]
        console.print(alert_table(((found.stream, found.alert) for found in shown), title="alerts"))
    if more := len(summary.alerts[_ALERTS_SHOWN:]):
        console.print(f"... and {more} more alerts (keep them with --state DIR, list them with ecgmon alerts)")
    status = summary.played.status
    console.print(
        f"beats: {status.segmented} segmented, {status.scored} scored, {status.stored} stored, "
        f"{status.segmented - status.stored} lost, {status.redelivered} redelivered, {status.dropped} dropped"
    )
    if status.busy_seconds:
        console.print(
            f"{status.busy_seconds:.1f} s, {status.stored / status.busy_seconds:.0f} beats/s, latency "
            f"p50 {milliseconds(status.latency_p50)}, p99 {milliseconds(status.latency_p99)} "
            "(from the last sample of a window to the commit of its beat)"
        )
    if summary.played.interrupted:
        console.print("interrupted: beats that were cut are stored; the rest of the signal was not read")
