"""What is known of a model, as a table or an object."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ecgmon.models.weights.checkpoint import ModelInfo
    from ecgmon.models.weights.registry import Registered, Registry


def card(registry: Registry, model: Registered) -> dict[str, Any]:
    """Return what is known of a model of a registry, ready for JSON; ``error`` if its checkpoint cannot be used."""
    from ecgmon.models.weights.checkpoint import CheckpointError, read_info

    try:
        info = read_info(registry.path(model))
    except CheckpointError as error:
        return asdict(model) | {"error": str(error)}
    return asdict(model) | described(info)


def described(info: ModelInfo) -> dict[str, Any]:
    """Return the description in a checkpoint, ready for JSON."""
    return {
        "fingerprint": info.fingerprint,
        "model": info.name,
        "architecture": info.architecture,
        "leads": info.leads,
        "width": info.width,
        "latent": info.latent,
        "parameters": info.parameters,
        "multiply_adds": info.multiply_adds,
        "score_beats": info.score.beats,
        "second_lead": info.score.parts[0] is not None,
        "command": info.command,
        "data": info.data,
    }


_ROWS = {
    "fingerprint": "fingerprint",
    "deployed": "deployed",
    "added": "added",
    "by": "by",
    "origin": "copied from",
    "model": "model",
    "architecture": "architecture",
    "leads": "leads of the generator",
    "width": "width",
    "latent": "latent",
    "parameters": "parameters",
    "multiply_adds": "multiply-adds a beat",
    "score_beats": "normal beats that the score was measured on",
    "second_lead": "score with a second lead",
    "data": "training data",
    "command": "made by",
}


def card_table(cards: Mapping[str, Mapping[str, Any]]) -> None:
    """Print cards beside each other, with the names of the models above."""
    from rich.console import Console
    from rich.table import Table

    table = Table("")
    for name in cards:
        table.add_column(name, overflow="fold")
    for key, text in _ROWS.items():
        values = [_shown(each.get(key, "")) for each in cards.values()]
        if any(values):
            table.add_row(text, *values)
    Console(highlight=False, soft_wrap=True).print(table)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {digest[:12]}" for name, digest in value.items())
    return str(value)
