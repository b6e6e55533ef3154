"""The command ``ecgmon``.

Only the module of the command that is asked for is imported, so that ``ecgmon --help`` is there at
once and nothing but ``train`` and ``score`` pays for torch.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from importlib import import_module
from typing import Final

CRASHED: Final = 70
"""Exit status after an error that nobody expected (EX_SOFTWARE of sysexits.h)."""

COMMANDS: Final = {
    "demo": ("ecgmon.monitor.cli.replay", "the whole pipeline on the built-in record, with a live view"),
    "replay": ("ecgmon.monitor.cli.replay", "records through the whole pipeline"),
    "run": ("ecgmon.monitor.cli.roles", "the daemon: producer, monitor and workers under one supervisor"),
    "monitor": ("ecgmon.monitor.cli.roles", "one role: store, alerts, metrics"),
    "worker": ("ecgmon.monitor.cli.roles", "one role: score beats"),
    "producer": ("ecgmon.monitor.cli.roles", "one role: read sources, cut beats"),
    "status": ("ecgmon.monitor.cli.status", "how a running daemon stands, or what a store holds"),
    "alerts": ("ecgmon.monitor.cli.status", "alerts of a running daemon or a store"),
    "score": ("ecgmon.monitor.cli.score", "score records offline: WFDB annotations, CSV or Parquet"),
    "explain": ("ecgmon.monitor.cli.score", "picture of a beat, its reconstruction and its anomalous ticks"),
    "evaluate": ("ecgmon.monitor.cli.evaluate", "measure detection against reference annotations"),
    "train": ("ecgmon.monitor.cli.evaluate", "prepare data, train and calibrate a model"),
    "bench": ("ecgmon.monitor.cli.bench", "measure speed against references in the same run"),
    "backup": ("ecgmon.monitor.cli.status", "copy a store to a file, also while a daemon writes it"),
    "keygen": ("ecgmon.monitor.cli.keygen", "make a key pair for roles on several hosts"),
    "password": ("ecgmon.monitor.cli.password", "make the password file of the metrics' HTTP server"),
    "check-config": ("ecgmon.monitor.cli.check_config", "say what is wrong with a configuration"),
}
"""Commands, the module that has their ``add_`` and ``run_`` functions, and what they do."""

_DESCRIPTION: Final = """\
A streaming ECG monitoring daemon: cuts ECG streams into beats, gives every beat an
anomaly score with a distilled BeatGAN generator, raises alerts, and publishes
metrics to Prometheus.

It is not a medical device."""

_EPILOG: Final = """\
examples:
  ecgmon demo                          watch five minutes of a real record in 15 seconds
  ecgmon replay 208 100 --speed max    two MIT-BIH records as fast as possible
  ecgmon run --config ecgmon.toml      the daemon
  ecgmon alerts --follow               alerts as they come

Every command explains itself: ecgmon COMMAND --help"""


def main(argv: list[str] | None = None) -> int:
    """Run ``ecgmon`` with the arguments of the process, or those given.

    Returns
    -------
    int
        Exit status: 0 done; 1 something failed, and a message says what; 2 wrong usage; 3 a role that
        would fail again the same way; :data:`CRASHED` a bug, with a traceback.
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = ArgumentParser(
        prog="ecgmon", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="store_true", help="print the version and end")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    asked = next((word for word in argv if not word.startswith("-")), None)
    for name, (module, text) in COMMANDS.items():
        sub = subparsers.add_parser(name, help=text)
        if name == asked:
            getattr(import_module(module), f"add_{name.replace('-', '_')}")(sub)
    args = parser.parse_args(argv)
    if args.version:
        from importlib.metadata import version

        print(f"ecgmon {version('ecgmon')}")
        return 0
    if args.command is None:
        parser.print_help()
        return 2
    return _run(args.command, args)


def _run(command: str, args: object) -> int:
    from ecgmon.monitor.config.errors import ConfigError

    run = getattr(import_module(COMMANDS[command][0]), f"run_{command.replace('-', '_')}")
    try:
        return int(run(args))
    except ConfigError as error:
        print(f"ecgmon: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # whoever read our output has gone (head, less); Python would complain again when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:  # noqa: BLE001 - said in full, with a status of its own: a supervisor starts such a role again
        import traceback

        traceback.print_exc()
        return CRASHED
