"""The command ``ecgmon``.

Only the module of the given command is imported, so ``ecgmon --help`` is fast and only the commands that
need torch import it.
"""

from __future__ import annotations

import gc
import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from importlib import import_module
from typing import TYPE_CHECKING, Final

from ecgmon.monitor.cli.printing import complain
from ecgmon.monitor.process.exit_status import CRASHED, DONE, INTERRUPTED, REFUSED, WRONG_USAGE

if TYPE_CHECKING:
    from argparse import Namespace
    from types import ModuleType

COMMANDS: Final = {
    "demo": "the whole pipeline on the built-in record, with a live view",
    "replay": "records through the whole pipeline",
    "run": "the daemon: producer, monitor and workers under one supervisor",
    "monitor": "one role: store scores and alerts, serve metrics",
    "worker": "one role: score beats",
    "producer": "one role: read sources, cut beats",
    "status": "state of a running daemon, or of a store",
    "alerts": "alerts of a running daemon or of a store",
    "score": "score records offline: WFDB annotations, CSV or Parquet",
    "explain": "picture of a beat, its reconstruction and its anomalous ticks",
    "evaluate": "measure detection, scores and alerts against reference annotations",
    "train": "prepare data, train a model and fit its score",
    "models": "the model registry: list, show, add, compare, promote, rollback",
    "export": "write a model for other programs: ONNX",
    "bench": "measure speed against references in the same run",
    "backup": "copy a store to a file, even while a daemon writes to it",
    "keygen": "make a key pair for roles on several hosts",
    "password": "make the password file of the metrics' HTTP server",
    "check-config": "check a configuration and print its errors",
}
"""Commands and their help; the module of each has the same name and the functions ``add_arguments`` and ``run``."""

_GARBAGE: Final = (20_000, 50, 100)
"""Objects made before the youngest generation is searched; searches before the next older one is.

Rarely: nearly all objects are rows and arrays, which are freed without a search, and those of imports stay.
"""

_DESCRIPTION: Final = """\
A streaming ECG monitoring daemon. It cuts ECG streams into beats, gives every beat an
anomaly score with a distilled BeatGAN generator, raises alerts, and publishes metrics
to Prometheus.

It is not a medical device."""

_EPILOG: Final = """\
examples:
  ecgmon demo                          watch five minutes of a real record in 15 seconds
  ecgmon replay 208 100 --speed max    two MIT-BIH records as fast as possible
  ecgmon run --config ecgmon.toml      the daemon
  ecgmon alerts --follow               alerts as they are raised and cleared

Help on one command: ecgmon COMMAND --help"""


def main(argv: list[str] | None = None) -> int:
    """Run ``ecgmon`` with ``argv``, by default the arguments of the process.

    Returns
    -------
    int
        Exit status: see :mod:`ecgmon.monitor.process.exit_status`.
    """
    gc.set_threshold(*_GARBAGE)
    argv = sys.argv[1:] if argv is None else argv
    parser = ArgumentParser(
        prog="ecgmon", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    asked = next((word for word in argv if not word.startswith("-")), None)
    for name, text in COMMANDS.items():
        sub = subparsers.add_parser(name, help=text)
        if name == asked:
            _module(name).add_arguments(sub)
    args = parser.parse_args(argv)
    if args.version:
        from importlib.metadata import version

        print(f"ecgmon {version('ecgmon')}")
        return DONE
    if args.command is None:
        parser.print_help()
        return WRONG_USAGE
    return _run(args.command, args)


def _module(command: str) -> ModuleType:
    return import_module(f"ecgmon.monitor.cli.{command.replace('-', '_')}")


def _run(command: str, args: Namespace) -> int:
    from ecgmon.monitor.config.errors import ConfigError

    try:
        return int(_module(command).run(args))
    except ConfigError as error:
        return complain(error, REFUSED)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # the reader of the output (head, less) has exited; Python would report that again when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception:  # noqa: BLE001 - printed in full, with its own status, at which a supervisor restarts the role
        import traceback

        traceback.print_exc()
        return CRASHED
