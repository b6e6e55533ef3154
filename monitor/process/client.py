"""Access from a program to a running monitor (runtime folder), a store (state folder) or an exporter (URL)."""

from __future__ import annotations

import base64
import math
import ssl
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import unquote, urlsplit

from ecgmon.monitor.core.status import FeedUpdate
from ecgmon.monitor.process import connections
from ecgmon.monitor.process.control import Client, NotRunningError
from ecgmon.monitor.process.observations import LiveScore, MonitorStatus, StreamAlert, StreamStatus
from ecgmon.monitor.store import FILE, Reader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


SCORES_TIMEOUT: Final = 30.0
"""Default time that :meth:`MonitorClient.scores` waits for the next score, in s."""

_POLL_SECONDS: Final = 0.2  # between two polls of the store or the monitor
_BEATS_AT_ONCE: Final = 4096  # most beats of a stream that are read at once
_HTTP_SECONDS: Final = 10.0
_MOST_METRICS: Final = 64 << 20  # bytes: 10,000 streams have about 20 MB of metrics


class ConnectError(Exception):
    """An address has no monitor, store or exporter, or it does not offer the requested data."""

    __module__ = "ecgmon.errors"


class MonitorClient(ABC):
    """A connection made by :func:`ecgmon.connect`; close it after use, or use it in a ``with`` statement."""

    __module__ = "ecgmon"

    def __init__(self, address: str) -> None:
        self.address = address

    def __repr__(self) -> str:
        return f"<ecgmon.MonitorClient: {self.address}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def status(self) -> MonitorStatus:
        """Return the status of the monitor and its streams.

        Raises
        ------
        ecgmon.errors.NotRunningError, ecgmon.errors.StoreError, ecgmon.errors.ConnectError
            If the monitor or exporter does not answer, or the store cannot be read.
        """

    @abstractmethod
    def alerts(self, *, active: bool = False) -> list[StreamAlert]:
        """List alerts in the order of their last changes.

        Parameters
        ----------
        active : bool
            Only active alerts.  A runtime folder has no others.

        Raises
        ------
        ecgmon.errors.ConnectError
            For a URL: metrics count alerts but do not list them.
        """

    @abstractmethod
    def scores(self, *, past: bool = False, timeout: float | None = SCORES_TIMEOUT) -> Iterator[LiveScore]:
        """Follow the scores of all streams, from this call on.

        Parameters
        ----------
        past : bool
            Begin with the first stored beat.  A runtime folder has only new scores.
        timeout : float or None
            The iteration ends after this many seconds without a score; None: no limit.

        Yields
        ------
        LiveScore
            In order within each stream.  The iteration also ends when all streams or the monitor have ended.

        Raises
        ------
        ecgmon.errors.ConnectError
            If ``past`` is not available; always for a URL: metrics have no single scores.
        """

    @abstractmethod
    def close(self) -> None:
        """Close sockets and files."""


def connect(address: str | Path, *, ca_file: Path | str | None = None) -> MonitorClient:
    """Connect to a monitor or a store.

    Parameters
    ----------
    address : str or Path
        One of

        * the runtime folder of a running monitor (``[runtime] dir``): status, active alerts, new scores;
        * a state folder (``[store] path``), with or without a running monitor: all stored data, and new data;
        * the URL of a monitor's exporter, such as ``http://localhost:9464`` or ``https://user:password@host:9464``:
          the status, as far as the metrics contain it.
    ca_file : Path or str, optional
        Certificates (PEM) to check the exporter's with, instead of the system's.

    Returns
    -------
    MonitorClient

    Raises
    ------
    ecgmon.errors.ConnectError
        If there is no monitor, store or exporter at the address.
    ecgmon.errors.NotRunningError
        If the monitor of a runtime folder does not answer.
    ecgmon.errors.StoreError
        If the store cannot be read.

    Examples
    --------
    >>> import ecgmon
    >>> from ecgmon.testing import store_of, synthetic_ecg
    >>> folder = store_of(synthetic_ecg(60, ectopic=[40, 42, 44]), "state")
    >>> with ecgmon.connect(folder) as monitor:
    ...     print(monitor.status())
    ...     print(monitor.alerts()[0].kind)
    ...     print(max(monitor.scores(past=True), key=lambda beat: beat.score).stream)
    <ecgmon.MonitorStatus: stored, 1 streams, 71 beats, 0 active alerts>
    anomalous_episode
    synthetic
    """
    text = str(address)
    if text.startswith(("http://", "https://")):
        return _Exporter(text, ca_file)
    if "://" in text:
        raise ConnectError(f"{text.partition('://')[0]}:// is not supported; expected http:// or https://, or a folder")
    folder = Path(address).expanduser()
    if (folder / connections.CONTROL).exists():
        return _Running(folder)
    if (folder / FILE).is_file():
        return _Stored(folder)
    raise ConnectError(
        f"{folder}: neither a running monitor's sockets nor a store is in this folder; name the runtime folder of a running "
        "monitor ([runtime] dir) or a state folder ([store] path)"
    )


connect.__module__ = "ecgmon"


class _Running(MonitorClient):
    """A running monitor, by its runtime folder."""

    __module__ = "ecgmon"

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self._client = Client(folder)
        try:
            self._client.status()
        except NotRunningError:
            self.close()
            raise

    def status(self) -> MonitorStatus:
        found = self._client.status()
        streams = {
            name: StreamStatus(
                stream.beats, stream.seconds, stream.rate, stream.last_score, stream.ended, stream.stalled,
                tuple(alert.kind for alert in stream.active),
            )
            for name, stream in sorted(found.streams.items())
        }  # fmt: skip
        return MonitorStatus(running=True, model=found.model, streams=streams, active_alerts=_counted(streams))

    def alerts(self, *, active: bool = False) -> list[StreamAlert]:
        del active  # there are no others
        return [
            StreamAlert(name, alert.number, alert.kind, alert.priority, alert.start, alert.end, alert.message)
            for name, stream in sorted(self._client.status().streams.items())
            for alert in stream.active
        ]

    def scores(self, *, past: bool = False, timeout: float | None = SCORES_TIMEOUT) -> Iterator[LiveScore]:
        if past:
            raise ConnectError(
                f"{self.address}: a running monitor has only new scores; past scores are in its state folder"
            )
        return self._follow(timeout)

    def _follow(self, timeout: float | None) -> Iterator[LiveScore]:
        import msgspec

        decoder = msgspec.msgpack.Decoder(FeedUpdate)
        feed = self._client.feed()
        try:
            last = time.monotonic()
            while True:
                while feed.poll(round(1000 * _POLL_SECONDS)):
                    update = decoder.decode(feed.recv_multipart()[1])
                    for at, score in update.beats:
                        yield LiveScore(update.stream, at, score)
                        last = time.monotonic()
                if (timeout is not None and time.monotonic() - last > timeout) or self._is_over():
                    return
        finally:
            feed.close()

    def _is_over(self) -> bool:
        try:
            streams = self._client.status().streams
        except NotRunningError:
            return True
        return bool(streams) and all(stream.ended for stream in streams.values())

    def close(self) -> None:
        self._client.close()


class _Stored(MonitorClient):
    """A store, by its state folder."""

    __module__ = "ecgmon"

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self._reader = Reader(folder)

    def status(self) -> MonitorStatus:
        active: dict[str, list[str]] = {}
        for alert in self.alerts(active=True):
            active.setdefault(alert.stream, []).append(alert.kind)
        streams = {
            stream.name: StreamStatus(
                stream.beats, stream.seconds, *self._newest(stream.name, stream.beats), ended=stream.ended,
                alerts=tuple(active.get(stream.name, ())),
            )
            for stream in self._reader.streams()
        }  # fmt: skip
        return MonitorStatus(None, "", streams, _counted(streams))

    def _newest(self, stream: str, beats: int) -> tuple[float, float]:
        """Return the heart rate at the newest beat, and its score."""
        found = self._reader.beats(stream, first=max(beats - 1, 0))
        return (float(found["rate"][-1]), float(found["score"][-1])) if len(found) else (math.nan, math.nan)

    def alerts(self, *, active: bool = False) -> list[StreamAlert]:
        return [
            StreamAlert(
                found.stream,
                alert.number,
                alert.kind.value,
                alert.priority.value,
                alert.start,
                alert.end,
                alert.message,
            )
            for found in self._reader.alerts()
            if (alert := found.alert).end is None or not active
        ]

    def scores(self, *, past: bool = False, timeout: float | None = SCORES_TIMEOUT) -> Iterator[LiveScore]:
        known = {} if past else {stream.name: stream.beats for stream in self._reader.streams()}
        return self._follow(known, timeout)

    def _follow(self, known: dict[str, int], timeout: float | None) -> Iterator[LiveScore]:
        last = time.monotonic()
        while True:
            streams, is_new = self._reader.streams(), False
            for stream in streams:
                while len(
                    beats := self._reader.beats(stream.name, first=known.get(stream.name, 0), most=_BEATS_AT_ONCE)
                ):
                    known[stream.name] = int(beats["seq"][-1]) + 1
                    for at, score in zip(beats["seconds"].tolist(), beats["score"].tolist(), strict=True):
                        yield LiveScore(stream.name, at, score)
                    last, is_new = time.monotonic(), True
            if not is_new:
                if streams and all(stream.ended for stream in streams):
                    return
                if timeout is not None and time.monotonic() - last > timeout:
                    return
                time.sleep(_POLL_SECONDS)

    def close(self) -> None:
        self._reader.close()


@dataclass(slots=True)
class _Metrics:
    """The status of a monitor, collected from its metrics."""

    beats: dict[str, int] = field(default_factory=dict)
    rate: dict[str, float] = field(default_factory=dict)
    alerts: dict[str, int] = field(default_factory=dict)
    model: str = ""
    ready: bool = False

    def take(self, name: str, labels: Mapping[str, str], value: float) -> None:
        """Add one sample."""
        if name == "ecgmon_beats_stored_total":
            self.beats[labels["stream"]] = int(value)
        elif name == "ecgmon_heart_rate_beats_per_minute":
            self.rate[labels["stream"]] = value
        elif name == "ecgmon_alerts_active" and value:
            self.alerts[labels["kind"]] = self.alerts.get(labels["kind"], 0) + int(value)
        elif name == "ecgmon_model_info":
            self.model = labels.get("name", "")
        elif name == "ecgmon_ready":
            self.ready = bool(value)


class _Exporter(MonitorClient):
    """The exporter of a monitor, by its URL."""

    __module__ = "ecgmon"

    def __init__(self, url: str, ca_file: Path | str | None) -> None:
        parts = urlsplit(url)
        place = parts.netloc.rpartition("@")[2]
        super().__init__(f"{parts.scheme}://{place}{parts.path.removesuffix('/').removesuffix('/metrics')}")
        self._request = urllib.request.Request(f"{self.address}/metrics")  # noqa: S310 - the scheme is http or https
        if parts.username is not None:
            secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            self._request.add_header("Authorization", f"Basic {base64.b64encode(secret).decode()}")
        try:
            self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        except OSError as error:  # SSLError is one
            raise ConnectError(f"the certificates in {ca_file} cannot be used: {error}") from error
        self.status()

    def status(self) -> MonitorStatus:
        found = _Metrics()
        for name, labels, value in _samples(self._metrics(), self.address):
            found.take(name, labels, value)
        streams = {
            name: StreamStatus(beats, rate=found.rate.get(name, math.nan))
            for name, beats in sorted(found.beats.items())
        }
        return MonitorStatus(found.ready, found.model, streams, found.alerts)

    def alerts(self, *, active: bool = False) -> list[StreamAlert]:
        del active
        raise ConnectError(
            f"{self.address}: metrics count alerts (status().active_alerts) but do not list them; connect to the monitor's "
            "runtime or state folder"
        )

    def scores(self, *, past: bool = False, timeout: float | None = SCORES_TIMEOUT) -> Iterator[LiveScore]:
        del past, timeout
        raise ConnectError(
            f"{self.address}: metrics have no single scores; connect to the monitor's runtime folder, or to its state folder"
        )

    def close(self) -> None:
        pass  # no connection is kept between requests

    def _metrics(self) -> str:
        try:
            with urllib.request.urlopen(self._request, timeout=_HTTP_SECONDS, context=self._tls) as answer:  # noqa: S310
                body: bytes = answer.read(_MOST_METRICS)
        except urllib.error.HTTPError as error:
            with error:
                advice = "; give user and password in the URL" if error.code == 401 else ""  # noqa: PLR2004 - Unauthorized
                raise ConnectError(f"{self.address}/metrics answers {error.code} {error.reason}{advice}") from error
        except (OSError, ValueError) as error:  # a URLError is an OSError; a missing host is a ValueError
            raise ConnectError(f"cannot read {self.address}/metrics: {error}") from error
        return body.decode("utf-8", "replace")


def _samples(text: str, address: str) -> Iterable[tuple[str, Mapping[str, str], float]]:
    from prometheus_client.parser import text_string_to_metric_families

    try:
        samples: list[Any] = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    except ValueError as error:
        raise ConnectError(f"{address}/metrics does not contain metrics: {error}") from error
    found = [(sample.name, sample.labels, sample.value) for sample in samples]
    if not any(name.startswith("ecgmon_") for name, _, _ in found):
        raise ConnectError(f"the metrics at {address}/metrics are not those of ecgmon; check host and port")
    return found


def _counted(streams: Mapping[str, StreamStatus]) -> dict[str, int]:
    """Count the active alerts by kind."""
    kinds = [kind for stream in streams.values() for kind in stream.alerts or ()]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}
