"""Which checkpoint a role runs, and what is said of a daemon that does not change its model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from ecgmon.models.weights.checkpoint import default_weights, shipped
from ecgmon.models.weights.registry import RegistryError
from ecgmon.monitor.config.schema import Config
from ecgmon.monitor.core.status import Status, WorkerStatus
from ecgmon.monitor.process.deployment import deploy, shortfall
from ecgmon.monitor.process.roles.setup import registry_of, weights_path

if TYPE_CHECKING:
    from pathlib import Path


def configured(state: Path, **worker: str) -> Config:
    config = Config()
    return replace(config, store=replace(config.store, path=str(state)), worker=replace(config.worker, **worker))


@pytest.mark.parametrize("apart", [False, True])
def test_a_role_runs_the_named_file_else_the_deployed_model_else_the_shipped_one(
    tmp_path: Path, *, apart: bool
) -> None:
    config = configured(tmp_path / "state", registry=str(tmp_path / "apart") if apart else "")
    assert weights_path(config) == default_weights()
    registry = registry_of(config)
    assert registry.folder == (tmp_path / "apart" if apart else tmp_path / "state" / "models")
    model = registry.add(shipped("fold0"), "fold0", when="", by="")
    assert weights_path(config) == default_weights()
    registry.promote(model, when="", by="")
    assert weights_path(config) == registry.path(model)
    assert weights_path(replace(config, worker=replace(config.worker, weights="/x"))).as_posix() == "/x"
    registry.path(model).unlink()
    with pytest.raises(RegistryError):
        weights_path(config)


def test_without_a_daemon_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    assert deploy(tmp_path, "0" * 64) is None


def test_a_daemon_that_keeps_its_model_and_workers_that_do_not_follow_are_told_apart() -> None:
    kept = Status(model="old", fingerprint="a" * 64)
    assert "the daemon still scores with old (aaaaaaaaaaaa) after 5 s" in shortfall(kept, "b" * 64, 2, 5.0)
    alone = Status(model="new", fingerprint="b" * 64, workers=[WorkerStatus("x", "cpu", 0, 0.0)])
    assert "only 1 of 2 workers have joined it" in shortfall(alone, "b" * 64, 2, 5.0)
