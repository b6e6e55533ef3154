"""Alerts on the terminal, as ``alerts``, ``score`` and ``replay`` show them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecgmon.monitor.cli.printing import clock

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.table import Table

    from ecgmon.monitor.core.alerts import Alert


def alert_table(rows: Iterable[tuple[str, Alert]], title: str | None = None) -> Table:
    """Lay out alerts, each with the name of its stream."""
    from rich.table import Table

    from ecgmon.monitor.cli.live_view import PRIORITY_STYLE

    table = Table(title=title, title_justify="left")
    for column in ("stream", "from", "to", "priority", "kind", "what"):
        table.add_column(column)
    for stream, alert in rows:
        table.add_row(
            stream, clock(alert.start), "active" if alert.end is None else clock(alert.end),
            f"[{PRIORITY_STYLE[alert.priority]}] {alert.priority} [/]", alert.kind.replace("_", " "), alert.message,
        )  # fmt: skip
    return table


def print_alerts(found: Iterable[tuple[str, Alert]]) -> None:
    """Print alerts of some streams, each with the name of its stream, in order of time."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    rows = sorted(found, key=lambda row: (row[1].start, row[0]))
    console.print(alert_table(rows) if rows else "no alerts")
