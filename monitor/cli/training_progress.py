"""The progress of a training, on standard error."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

SHOWN: Final = ("err_g", "err_rec", "err_d")
"""The losses beside the bar, as many as a terminal of 80 columns has room for; the log has all."""


class TrainingProgress:
    """Shows the progress of a training; Ctrl-C stops it between two steps."""

    def __init__(self) -> None:
        from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.interrupted = False
        self._progress = Progress(
            *Progress.get_default_columns()[:2],
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[terms]}"),
            console=console(),
        )
        self._bars: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._interrupt)
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        signal.signal(signal.SIGINT, self._before)

    def __call__(self, name: str, done: int, steps: int, terms: Mapping[str, float]) -> bool:
        """Show the progress of a part; return False after Ctrl-C."""
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(name, total=steps, terms="")
        shown = " ".join(f"{term} {terms[term]:.4g}" for term in SHOWN if term in terms)
        self._progress.update(self._bars[name], completed=done, terms=shown)
        return not self.interrupted

    def _interrupt(self, *_: object) -> None:
        self.interrupted = True
        signal.signal(signal.SIGINT, self._before)  # a second Ctrl-C stops without waiting for the step


def console() -> Any:  # noqa: ANN401 - rich is imported where it is used
    """Return a console on standard error; standard output is for results."""
    from rich.console import Console

    return Console(stderr=True)
