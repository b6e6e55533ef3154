"""The engine: the end of a stream, settings, snapshots, and properties that hold for every stream."""

from __future__ import annotations

from base64 import b64decode
from math import nan
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgmon.monitor.config.schema import AlertSettings, PrioritySettings
from ecgmon.monitor.core.alerts import (
    Alert,
    AlertEngine,
    AlertKind,
    AlertStateError,
    End,
    Gap,
    Priority,
    ScoredBeat,
    SecondPassed,
    Stalled,
)
from ecgmon.pipelines.items import Quality
from tests.monitor.core.alerts.streams import (
    ANOMALOUS,
    FLAT,
    NOISY,
    NORMAL,
    USABLE,
    Stream,
    only,
)

if TYPE_CHECKING:
    from ecgmon.monitor.core.alerts.items import Item


def test_end_of_a_stream_clears_all_active_alerts() -> None:
    stream = Stream()
    stream.scores(5.0, 5.0, 5.0)
    stream.seconds(2, 10, FLAT)
    active = stream.active
    assert len(active) == 2
    cleared = stream.feed(End(10.5))
    assert [alert.kind for alert in cleared] == active
    assert {alert.end for alert in cleared} == {10.5}
    assert stream.engine.active == ()


def test_only_a_stall_may_follow_the_end() -> None:
    stream = Stream()
    stream.feed(End(10.0))
    assert stream.feed(Stalled(10.0)) == []
    with pytest.raises(AlertStateError, match="after the end of the stream at 10 s"):
        stream.beat(11.0)


def test_a_kind_that_is_off_is_never_raised() -> None:
    off = PrioritySettings(**dict.fromkeys((kind.value for kind in AlertKind), "off"))  # type: ignore[arg-type]
    stream = Stream(priorities=off)
    stream.scores(*[5.0] * 20)
    stream.seconds(17, 40)
    stream.seconds(41, 60, FLAT)
    stream.feed(Gap(1, 70.0))
    stream.feed(Stalled(70.0))
    assert stream.changes == []


def test_alert_has_the_configured_priority() -> None:
    stream = Stream(priorities=PrioritySettings(lead_off="high"))
    assert only(stream.seconds(1, 5, FLAT)).priority == Priority.HIGH


TIMES = st.floats(0, 200) | st.integers(0, 200).map(float)
INTERVALS = st.sampled_from([0.3, 0.4, 0.8, 1.6, 3.0, 5.0])
QUALITIES = st.sampled_from(list(Quality))
SCORES = st.sampled_from([0.0, NORMAL, ANOMALOUS, 6.0, nan])
CHAOS = st.lists(
    st.builds(ScoredBeat, st.integers(0, 1000), TIMES, st.floats(0, 10) | st.just(nan), SCORES, QUALITIES)
    | st.builds(SecondPassed, TIMES, QUALITIES)
    | st.builds(Gap, st.integers(1, 1000), TIMES)
    | st.builds(Stalled, TIMES),
    max_size=60,
)


@st.composite
def streams(draw: st.DrawFn) -> list[Item]:
    """Draw items like those of a segmenter: in order, in stretches of one rate, score and quality, some beats late."""
    items: list[tuple[float, Item]] = []
    now, seq, last = 0.3, 0, nan
    stretches = st.tuples(st.integers(1, 20), INTERVALS, SCORES, QUALITIES)
    qualities: list[Quality] = []
    for count, interval, score, quality in draw(st.lists(stretches, max_size=8)):
        silent = draw(st.booleans()) and quality != USABLE
        for _ in range(count):
            now += interval
            if silent:
                last = nan
                continue
            late = draw(st.sampled_from([0.8, 0.8, 2.5]))
            items.append((now + late, ScoredBeat(seq, now, now - last, score, quality)))
            seq, last = seq + 1, now
        qualities += [quality] * (int(now) - len(qualities))
        if draw(st.integers(0, 9)) == 0:
            items.append((now, Gap(5, now)))
    items += [(k + 2.0, SecondPassed(k + 1.0, quality)) for k, quality in enumerate(qualities)]
    items.sort(key=lambda pair: pair[0])
    return [*[item for _, item in items], End(now + 3.0)]


def check_changes(changes: list[Alert]) -> None:
    active: dict[AlertKind, Alert] = {}
    raised = 0
    for change in changes:
        if change.end is None:
            assert change.kind not in active, "raised twice"
            assert change.number == raised
            assert change.start <= change.raised
            active[change.kind] = change
            raised += 1
        else:
            begun = active.pop(change.kind)  # KeyError: cleared before it was raised
            assert msgspec.structs.replace(change, end=None) == begun
            assert change.end >= change.start
            assert change.end >= change.raised or change.kind == AlertKind.ASYSTOLE


@given(CHAOS | streams())
def test_every_alert_is_raised_once_and_cleared_once(items: list[Any]) -> None:
    engine = AlertEngine(AlertSettings())
    changes = [change for item in items for change in engine.feed(item)]
    if not items or not isinstance(items[-1], End):
        changes += engine.feed(End(200.0))
    check_changes(changes)
    assert engine.active == ()
    assert len([change for change in changes if change.end is None]) * 2 == len(changes)


@settings(max_examples=300)
@given(
    CHAOS | streams(),
    st.builds(
        AlertSettings,
        bradycardia_beats=st.integers(2, 6),
        tachycardia_beats=st.integers(2, 6),
        episode_beats_k=st.integers(1, 3),
        priorities=st.sampled_from([PrioritySettings(), PrioritySettings(asystole="off", extreme_bradycardia="off")]),
    ),
)
def test_fast_path_has_the_same_effect_as_the_rules(items: list[Any], rules: AlertSettings) -> None:
    there, here = AlertEngine(rules), AlertEngine(rules)
    for item in items:
        if isinstance(item, ScoredBeat):
            changes = here.beat(item.seq, item.seconds, item.rr, item.score, item.quality)
        elif isinstance(item, SecondPassed):
            changes = here.second(item.seconds, item.quality)
        else:
            changes = here.feed(item)
        assert changes == there.feed(item)
        assert here.snapshot() == there.snapshot()


def test_most_items_of_an_ordinary_stream_take_the_fast_path() -> None:
    engine = AlertEngine(AlertSettings())
    taken = 0
    for k in range(200):
        for item in (ScoredBeat(k, k * 0.9 + 0.5, 0.9, NORMAL, USABLE), SecondPassed(k * 0.9 + 0.9, USABLE)):
            if isinstance(item, ScoredBeat):
                ordinary = engine._ordinary_beat(item.seconds, item.rr, item.score, item.quality)
            else:
                ordinary = engine._ordinary_second(item.seconds, item.quality)
            taken += ordinary
            if not ordinary:
                assert engine.feed(item) == []
    assert taken > 2 * 200 - 30


@given(CHAOS | streams(), st.data())
def test_restart_at_any_item_changes_no_alert(items: list[Any], data: st.DataObject) -> None:
    whole = AlertEngine(AlertSettings())
    expected = [whole.feed(item) for item in items]
    engine = AlertEngine(AlertSettings())
    restarts = data.draw(st.sets(st.integers(0, max(0, len(items) - 1)), max_size=10))
    for k, item in enumerate(items):
        if k in restarts:
            engine = AlertEngine.restore(engine.snapshot(), AlertSettings())
        assert engine.feed(item) == expected[k]
    assert engine.snapshot() == whole.snapshot()


@settings(max_examples=20, deadline=None)
@given(CHAOS)
def test_snapshot_stays_small(items: list[Any]) -> None:
    engine = AlertEngine(AlertSettings())
    for _ in range(30):
        for item in items:
            engine.feed(item)
    assert len(engine.snapshot()) < 8000


def test_snapshot_of_a_long_stream_is_no_larger_than_of_a_short_one() -> None:
    stream = Stream()
    for k in range(5000):
        stream.beats(1, 0.8, score=5.0, quality=USABLE if k % 2 else NOISY)
        stream.seconds(k, k, NOISY)
    assert len(stream.engine.snapshot()) < 2000


def test_active_alert_survives_a_change_of_settings_and_is_cleared_by_the_new_ones() -> None:
    stream = Stream()
    stream.scores(5.0, 5.0, 5.0)
    stream.seconds(2, 6, FLAT)
    fresh = AlertSettings(
        episode_beats_m=4,
        technical_window_seconds=3,
        noisy_seconds=1,
        noisy_window_seconds=3,
        priorities=PrioritySettings(anomalous_episode="off"),
    )
    stream.engine = AlertEngine.restore(stream.engine.snapshot(), fresh)
    assert stream.active == [AlertKind.ANOMALOUS_EPISODE, AlertKind.LEAD_OFF]
    assert only(stream.scores(*[NORMAL] * 4)).kind == AlertKind.ANOMALOUS_EPISODE
    assert only(stream.seconds(7, 9)).kind == AlertKind.LEAD_OFF


FROM_BEFORE = b64decode(
    "jqd2ZXJzaW9uAaNub3fLQDkAAAAAAACmcmFpc2VkBKZhY3RpdmWEsWFub21hbG91c19lcGlzb2RliKZudW1iZXIApGtpbmSxYW5v"
    "bWFsb3VzX2VwaXNvZGWocHJpb3JpdHmmbWVkaXVtpXN0YXJ0y0AwzMzMzMzOpnJhaXNlZMtAMmZmZmZmaKNlbmTApWJlYXRzkxQV"
    "FqdtZXNzYWdl2TgzIG9mIHRoZSBsYXN0IDEwIGJlYXRzIHNjb3JlZCAyIG9yIG1vcmUgKHRoZSBuZXdlc3QgNS4wKa1iZWF0c19k"
    "cm9wcGVkiKZudW1iZXIBpGtpbmStYmVhdHNfZHJvcHBlZKhwcmlvcml0eaNsb3elc3RhcnTLQDMzMzMzMzWmcmFpc2Vky0AzMzMz"
    "MzM1o2VuZMClYmVhdHOQp21lc3NhZ2XZIjMgYmVhdHMgb2YgYSBsaXZlIHNvdXJjZSB3ZXJlIGxvc3SobGVhZF9vZmaIpm51bWJl"
    "cgKka2luZKhsZWFkX29mZqhwcmlvcml0eaZtZWRpdW2lc3RhcnTLQDMAAAAAAACmcmFpc2Vky0A2AAAAAAAAo2VuZMClYmVhdHOQ"
    "p21lc3NhZ2XZUXRoZSBzaWduYWwgaXMgZmxhdDogYSBsZWFkIGlzIG9mZiwgb3IgdGhlcmUgaXMgbm90aGluZyB0byBzZWUgKDMg"
    "b2YgdGhlIGxhc3QgMyBzKa5zdHJlYW1fc3RhbGxlZIimbnVtYmVyA6RraW5krnN0cmVhbV9zdGFsbGVkqHByaW9yaXR5pm1lZGl1"
    "baVzdGFydMtAOQAAAAAAAKZyYWlzZWTLQDkAAAAAAACjZW5kwKViZWF0c5CnbWVzc2FnZb9ub3RoaW5nIGFycml2ZXMgZnJvbSB0"
    "aGUgc3RyZWFtpWVuZGVkwqtxdWlldF9zaW5jZctAOQAAAAAAAKZiZWF0ZW7DqXJlY292ZXJlZAClY2hhaW6QpnNjb3JlZBerbGFz"
    "dF9zY29yZWTLQDMzMzMzMzWpYW5vbWFsb3Vzk5MUy0AwzMzMzMzOFJMVy0AxmZmZmZmbFZMWy0AyZmZmZmZoFqlxdWFsaXRpZXOW"
    "AwMDAwMDqGxhc3RfZ2Fwy0AzMzMzMzM1"
)
"""A snapshot written by version 0.1.0, when the rules were one module; four alerts are active."""


def test_a_snapshot_of_an_earlier_release_is_read_and_written_back_byte_for_byte() -> None:
    engine = AlertEngine.restore(FROM_BEFORE, AlertSettings())
    assert [(alert.number, alert.kind, alert.start, alert.raised, alert.beats) for alert in engine.active] == [
        (0, AlertKind.ANOMALOUS_EPISODE, 16.800000000000004, 18.400000000000006, (20, 21, 22)),
        (1, AlertKind.BEATS_DROPPED, 19.200000000000006, 19.200000000000006, ()),
        (2, AlertKind.LEAD_OFF, 19.0, 22.0, ()),
        (3, AlertKind.STREAM_STALLED, 25.0, 25.0, ()),
    ]
    assert engine.snapshot() == FROM_BEFORE
    cleared = only(engine.second(26.0, USABLE))
    assert (cleared.number, cleared.end, cleared.message) == (3, 26.0, "nothing arrives from the stream")


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93\x01\x02\x03", b"not a snapshot"])
def test_a_damaged_snapshot_is_refused(data: bytes) -> None:
    with pytest.raises(AlertStateError, match="expected the result of snapshot"):
        AlertEngine.restore(data, AlertSettings())


def test_a_snapshot_of_another_version_is_refused() -> None:
    tree = msgspec.msgpack.decode(AlertEngine(AlertSettings()).snapshot())
    tree["version"] = 999
    with pytest.raises(AlertStateError, match="version 999"):
        AlertEngine.restore(msgspec.msgpack.encode(tree), AlertSettings())
