"""``ecgmon models``: the model registry, and which model is deployed."""

from __future__ import annotations

import getpass
import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgmon.monitor.cli import models_compared
from ecgmon.monitor.cli.configuration import add_config_flags, add_state_flag, load_config
from ecgmon.monitor.cli.model_card import card, card_table
from ecgmon.monitor.cli.printing import complain

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from ecgmon.models.weights.registry import Change, Registry
    from ecgmon.monitor.config.schema import Config

_MODEL_HELP = "name, or the first digits of the fingerprint; `shipped` is the model that is installed with ecgmon"


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Keep models in a folder ([worker] registry), compare them, and deploy one. The deployed model is what the daemon "
        "scores with, unless [worker] weights names a file."
    )
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    add = what.add_parser("add", help="copy a checkpoint into the registry", description="Copy a checkpoint.")
    add.add_argument("file", type=Path, metavar="FILE", help="checkpoint, as `ecgmon train` writes it")
    add.add_argument("--name", metavar="NAME", help="name of the model (default: that of the file without suffix)")
    what.add_parser("list", help="all models", description="List all models; the deployed one is marked.")
    show = what.add_parser("show", help="one model", description="Show what is known of a model.")
    show.add_argument("model", metavar="MODEL", help=_MODEL_HELP)
    compare = what.add_parser(
        "compare",
        help="two models beside each other, with their AUC and AP on annotated records",
        description="Show two models beside each other; with --db, also how well they separate the beats of records.",
    )
    models_compared.add_arguments(compare, _MODEL_HELP)
    for name, text, description in (
        ("promote", "deploy a model", "Deploy a model. A running daemon changes to it without losing a beat."),
        (
            "rollback",
            "deploy the model before the deployed one",
            "Undo the last promotion; again: the one before that.",
        ),
    ):
        change = what.add_parser(name, help=text, description=description)
        change.epilog = (
            "Exit status: 0, or 1 if the model cannot be deployed, or a running daemon does not change to it."
        )
        if name == "promote":
            change.add_argument("model", metavar="MODEL", help=_MODEL_HELP)
    what.add_parser("history", help="promotions and rollbacks", description="List all promotions and rollbacks.")
    for each in what.choices.values():
        each.add_argument("--json", action="store_true", help="print one JSON object on standard output")
        add_state_flag(each)
        add_config_flags(each)


def run(args: Namespace) -> int:
    """Do what is asked; return 1, with a message, if it is not possible."""
    from ecgmon.models.weights.checkpoint import CheckpointError
    from ecgmon.monitor.process.deployment import DeploymentError
    from ecgmon.monitor.process.roles.setup import registry_of

    config = load_config(args, {"store.path": args.state})
    registry = registry_of(config)
    try:
        if args.what == "compare":
            return models_compared.run(args, registry)
        if args.what in {"promote", "rollback"}:
            return _deploy(args, config, registry)
        answer = {"add": _add, "list": _list, "show": _show, "history": _history}[args.what](args, registry)
    except (CheckpointError, DeploymentError) as error:
        return complain(error)
    if args.json:
        print(json.dumps(answer))
    return 0


def _stamp() -> dict[str, str]:
    """Return time and user of a change."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # the system's list of users has no entry for the user
        user = str(os.getuid())
    return {"when": datetime.now(UTC).isoformat(timespec="seconds"), "by": user}


def _add(args: Namespace, registry: Registry) -> dict[str, Any]:
    name = args.file.stem if args.name is None else args.name
    added = registry.add(args.file, name, **_stamp())
    if not args.json:
        print(f"{added.name}: {added.fingerprint}")
    return asdict(added)


def _list(args: Namespace, registry: Registry) -> dict[str, Any]:
    from rich.console import Console
    from rich.table import Table

    deployed = registry.deployed()
    found = [card(registry, model) for model in registry.models()]
    if not args.json:
        table = Table()
        for column in ("", "name", "fingerprint", "model", "leads", "added", "by"):
            table.add_column(column, no_wrap=column in {"fingerprint", "added"}, overflow="fold")
        for each in found:
            mark = "deployed" if each["name"] == deployed.name else ""
            table.add_row(
                mark, each["name"], each["fingerprint"][:12], each.get("model", f"[red]{each.get('error')}"),
                str(each.get("leads", "")), each["added"][:10], each["by"],
            )  # fmt: skip
        Console(highlight=False, soft_wrap=True).print(table)
    return {"deployed": deployed.name, "models": found}


def _show(args: Namespace, registry: Registry) -> dict[str, Any]:
    model = registry.find(args.model)
    registry.path(model)  # an error here, but not in a list
    found = card(registry, model) | {"deployed": registry.deployed() == model}
    if not args.json:
        card_table({model.name: found})
    return found


def _history(args: Namespace, registry: Registry) -> dict[str, Any]:
    history = registry.history()
    if not args.json:
        for change in history:
            print(f"{change.when}  {change.by:12}  {_described(registry, change)}")
    return {"history": [asdict(change) for change in history]}


def _described(registry: Registry, change: Change) -> str:
    return f"{change.action:8}  {registry.name_of(change.before)} -> {registry.name_of(change.after)}"


def _deploy(args: Namespace, config: Config, registry: Registry) -> int:
    """Promote or roll back, and have a running daemon change to the model."""
    from ecgmon.models.weights.checkpoint import read_info
    from ecgmon.monitor.process.deployment import deploy

    if config.worker.weights:
        return complain(
            f"the configuration names a checkpoint, [worker] weights = {config.worker.weights}, so the daemon does not use the "
            "registry; remove that key"
        )
    if args.what == "promote":
        change = registry.promote(registry.find(args.model), **_stamp())
    else:
        change = registry.rollback(**_stamp())
    if not args.json:
        print(_described(registry, change))
    info = read_info(registry.path(registry.deployed()))
    status = deploy(Path(config.runtime.dir), info.fingerprint)
    if args.json:
        workers = None if status is None else len(status.workers)
        print(
            json.dumps(
                asdict(change) | {"fingerprint": info.fingerprint, "daemon": status is not None, "workers": workers}
            )
        )
    elif status is None:
        print(f"no daemon runs in {config.runtime.dir}; the next one starts with this model")
    else:
        print(f"the daemon scores with {info.fingerprint[:12]}, on {len(status.workers)} workers")
    return 0
