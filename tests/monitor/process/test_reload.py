"""A reload takes all of a changed configuration that can be taken, or nothing."""

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


def test_a_monitor_takes_thresholds_and_holds_on_to_its_addresses() -> None:
    new = changed(alerts={"score_threshold": 3.0}, exporter={"port": 1}, store={"path": "/x", "retention_days": 2.0})
    taken, held = merged(BEFORE, new, "monitor")
    assert (taken.alerts.score_threshold, taken.store.retention_days) == (3.0, 2.0)
    assert (taken.exporter, taken.store.path) == (BEFORE.exporter, BEFORE.store.path)
    assert held == ["store.path", "exporter.port"]


def test_a_producer_is_started_again_for_other_sources() -> None:
    new = replace(BEFORE, source=(SourceSettings(record="100"),))
    assert merged(BEFORE, new, "producer") == (BEFORE, ["source"])
    assert merged(BEFORE, new, "supervisor") == (new, [])


def test_what_is_the_same_is_neither_changed_nor_held() -> None:
    for role in ("monitor", "worker", "producer", "supervisor"):
        assert merged(BEFORE, Config(), role) == (BEFORE, [])


@pytest.fixture
def asked() -> Iterator[ReloadRequest]:
    before = signal.getsignal(signal.SIGHUP)
    yield ReloadRequest()
    signal.signal(signal.SIGHUP, before)


def test_a_reload_happens_once_between_two_turns(asked: ReloadRequest) -> None:
    taken: list[Config] = []
    new = changed(alerts={"score_threshold": 3.0})
    reloader = Reloader("monitor", BEFORE, lambda: new, asked=asked, service=Service({}))
    reloader.turned(str, taken.append)
    assert taken == []
    for _ in range(3):  # several signals before it is looked at are one
        os.kill(os.getpid(), signal.SIGHUP)
    reloader.turned(str, taken.append)
    reloader.turned(str, taken.append)
    assert taken == [new]
    assert reloader.config == new


@pytest.mark.parametrize(
    "error",
    [ConfigError([Problem("f.toml", 3, "alerts", None, "no such key")]), ReloadError("not now"), OSError("gone")],
)
def test_what_is_wrong_is_refused_and_told_and_the_next_one_is_taken(
    asked: ReloadRequest, error: OSError | ConfigError | ReloadError
) -> None:
    class Told(Service):
        def turned(self, status: Callable[..., Any]) -> None:
            said.append(status())

    said: list[str] = []
    wrong = True

    def load() -> Config:
        if wrong:
            raise error
        return BEFORE

    reloader = Reloader("monitor", BEFORE, load, asked=asked, service=Told({}))
    os.kill(os.getpid(), signal.SIGHUP)
    reloader.turned(lambda: "fine", lambda _: None)
    reloader.turned(lambda: "fine", lambda _: None)
    assert "refused" in said[-1]
    wrong = False
    os.kill(os.getpid(), signal.SIGHUP)
    reloader.turned(lambda: "fine", lambda _: None)
    reloader.turned(lambda: "fine", lambda _: None)
    assert said[-1] == "fine"


def test_a_bug_is_no_refusal(asked: ReloadRequest) -> None:
    def broken(_: Config) -> None:
        raise ZeroDivisionError

    reloader = Reloader("monitor", BEFORE, lambda: BEFORE, asked=asked, service=Service({}))
    os.kill(os.getpid(), signal.SIGHUP)
    with pytest.raises(ZeroDivisionError):
        reloader.turned(str, broken)
