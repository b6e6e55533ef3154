"""``ecgmon demo``: the built-in record with a live view, and a picture at the end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ecgmon.monitor.cli.picture_file import write_picture
from ecgmon.monitor.cli.replay import add_common_flags, add_speed, replay

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rich.console import Console

    from ecgmon.monitor.cli.live_view import View
    from ecgmon.monitor.config.schema import Config
    from ecgmon.monitor.process.replay import Records


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Replay the built-in record, five minutes of MIT-BIH record 208 with ventricular beats, at 20 times real time "
        "with a live view; then print a summary and draw a picture."
    )
    add_speed(parser, "20")
    parser.add_argument(
        "--picture",
        type=Path,
        default=Path("ecgmon-demo.png"),
        metavar="FILE",
        help="PNG to write (default: %(default)s)",
    )
    add_common_flags(parser)


def run(args: Namespace) -> int:
    """Replay the built-in record; return 1 if it failed."""
    from ecgmon.monitor.process.signals import StopRequest

    stopping = StopRequest()

    from ecgmon.monitor.process.replay import open_records

    records = open_records(["toy"], speed=args.speed)

    def draw(config: Config) -> int:
        from ecgmon.monitor.cli.closing_picture import draw_closing_picture
        from ecgmon.monitor.process.roles.setup import weights_path

        source, state, weights = records.sources[0], Path(config.store.path), weights_path(config)
        threshold = config.alerts.score_threshold
        status = write_picture(
            args.picture,
            "--picture",
            lambda path: draw_closing_picture(path, state, source, threshold=threshold, weights=weights),
        )
        if status == 0:
            print(f"picture: {args.picture}", file=sys.stderr if args.json else sys.stdout)
        return status

    return replay(args, records, stopping, view=_view, at_end=draw)


def _view(console: Console, records: Records, config: Config) -> View:
    from ecgmon.monitor.cli.live_view import LiveView, Plain

    if not console.is_terminal:
        return Plain(console, records.seconds)
    return LiveView(console, records.seconds, threshold=config.alerts.score_threshold)
