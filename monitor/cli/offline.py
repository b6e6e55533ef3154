"""Common parts of ``score`` and ``explain``: flags, the model, a progress bar."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ecgmon.monitor.cli import arguments
from ecgmon.monitor.cli.printing import complain
from ecgmon.monitor.config.schema import AlertSettings

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable, Iterator

    from ecgmon.models.inference.reconstruction import Scorer
    from ecgmon.pipelines.sources.record import RecordSource


def add_common_flags(parser: ArgumentParser) -> None:
    """Add the flags that ``score`` and ``explain`` have in common."""
    parser.add_argument(
        "--leads", type=arguments.leads, metavar="A,B", help="leads to read, by name or number (default: all)"
    )
    parser.add_argument(
        "--threshold",
        type=_threshold,
        default=AlertSettings().score_threshold,
        metavar="SCORE",
        help="a beat with at least this score is anomalous (default: %(default)s, as [alerts] score_threshold)",
    )
    parser.add_argument("--weights", type=Path, metavar="FILE", help="checkpoint (default: the shipped one)")
    parser.add_argument("--device", default="cpu", help="where torch computes, such as cuda (default: cpu)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def _threshold(text: str) -> float:
    return arguments.above_zero(text, "is not a threshold; expected a score above 0, such as 3")


def load_scorer(args: Namespace) -> Scorer | None:
    """Load the model; None, with a message, if it cannot be used."""
    from ecgmon.models.inference.device import DeviceError, check_device
    from ecgmon.models.inference.reconstruction import Scorer
    from ecgmon.models.weights.checkpoint import CheckpointError

    try:
        check_device(args.device)
        return Scorer(args.weights, device=args.device)
    except CheckpointError as error:
        complain(error)
    except DeviceError as error:
        complain(f"--device {error.device} cannot be used ({error.reason}); choose cpu")
    return None


def model_object(scorer: Scorer) -> dict[str, str]:
    """Return the name and fingerprint of the model for JSON."""
    return {"name": scorer.info.name, "fingerprint": scorer.info.fingerprint}


@contextmanager
def progress_bar(source: RecordSource) -> Iterator[Callable[[int], None]]:
    """Show a progress bar for one record on standard error; yield a function of the number of samples read so far."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(source.stream, total=source.length)
        yield lambda samples: bar.update(task, completed=samples)
