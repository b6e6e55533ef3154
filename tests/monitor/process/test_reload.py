"""A reload applies all changes that a running role can apply, or nothing."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from ecgmon.monitor.config.errors import ConfigError, Problem
from ecgmon.monitor.config.schema import Config, SourceSettings
from ecgmon.monitor.process.reload import Reloader, ReloadError, merged
from ecgmon.monitor.process.signals import ReloadRequest
from ecgmon.monitor.process.systemd import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BEFORE = Config()


def changed(**sections: dict[str, object]) -> Config:
    return replace(BEFORE, **{name: replace(getattr(BEFORE, name), **keys) for name, keys in sections.items()})


def test_a_monitor_changes_thresholds_and_keeps_addresses() -> None:
    new = changed(alerts={"score_threshold": 3.0}, exporter={"port": 1}, store={"path": "/x", "retention_days": 2.0})
    taken, held = merged(BEFORE, new, "monitor")
    assert (taken.alerts.score_threshold, taken.store.retention_days) == (3.0, 2.0)
    assert (taken.exporter, taken.store.path) == (BEFORE.exporter, BEFORE.store.path)
    assert held == ["store.path", "exporter.port"]


def test_other_sources_need_a_restart_of_the_producer() -> None:
    new = replace(BEFORE, source=(SourceSettings(record="100"),))
    assert merged(BEFORE, new, "producer") == (BEFORE, ["source"])
    assert merged(BEFORE, new, "supervisor") == (new, [])


def test_an_equal_configuration_changes_nothing() -> None:
    for role in ("monitor", "worker", "producer", "supervisor"):
        assert merged(BEFORE, Config(), role) == (BEFORE, [])


@pytest.fixture
def reload_request() -> Iterator[ReloadRequest]:
    before = signal.getsignal(signal.SIGHUP)
    yield ReloadRequest()
    signal.signal(signal.SIGHUP, before)


def test_several_signals_cause_one_reload_between_two_turns(reload_request: ReloadRequest) -> None:
    taken: list[Config] = []
    new = changed(alerts={"score_threshold": 3.0})
    reloader = Reloader("monitor", BEFORE, lambda: new, request=reload_request, service=Service({}))
    reloader.turned(str, taken.append)
    assert taken == []
    for _ in range(3):  # several signals between two turns count as one
        os.kill(os.getpid(), signal.SIGHUP)
    reloader.turned(str, taken.append)
    reloader.turned(str, taken.append)
    assert taken == [new]
    assert reloader.config == new


@pytest.mark.parametrize(
    "error",
    [ConfigError([Problem("f.toml", 3, "alerts", None, "no such key")]), ReloadError("not now"), OSError("gone")],
)
def test_an_invalid_configuration_is_refused_with_a_status_and_the_next_one_is_applied(
    reload_request: ReloadRequest, error: OSError | ConfigError | ReloadError
) -> None:
    class Recorder(Service):
        def turned(self, status: Callable[..., Any]) -> None:
            sent.append(status())

    sent: list[str] = []
    wrong = True

    def load() -> Config:
        if wrong:
            raise error
        return BEFORE

    reloader = Reloader("monitor", BEFORE, load, request=reload_request, service=Recorder({}))
    os.kill(os.getpid(), signal.SIGHUP)
    reloader.turned(lambda: "fine", lambda _: None)
    reloader.turned(lambda: "fine", lambda _: None)
    assert "refused" in sent[-1]
    wrong = False
    os.kill(os.getpid(), signal.SIGHUP)
    reloader.turned(lambda: "fine", lambda _: None)
    reloader.turned(lambda: "fine", lambda _: None)
    assert sent[-1] == "fine"


def test_a_bug_is_not_a_refusal(reload_request: ReloadRequest) -> None:
    def broken(_: Config) -> None:
        raise ZeroDivisionError

    reloader = Reloader("monitor", BEFORE, lambda: BEFORE, request=reload_request, service=Service({}))
    os.kill(os.getpid(), signal.SIGHUP)
    with pytest.raises(ZeroDivisionError):
        reloader.turned(str, broken)
