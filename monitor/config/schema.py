"""The configuration's schema: every key with its type, range, unit, default and one line of documentation.

This is the only place where a key is described.  Loading (:mod:`ecgmon.monitor.config.reading`), the documented
TOML file and the reference page (:mod:`ecgmon.monitor.config.documentation`) all read it from here.

The structs are frozen and compare by value.  Nothing heavy is imported, because every command
reads the configuration before it does anything else.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from ecgmon.pipelines.limits import MAX_ITEMS, MAX_STREAM_ID, STREAM_ID

PriorityName = Literal["high", "medium", "low", "off"]
"""Priority of an alert after IEC 60601-1-8; ``off`` means that the alert is never raised."""


_STREAM: Final = rf"^(?=.{{0,{MAX_STREAM_ID}}}$)({STREAM_ID})?$"


def _text(
    description: str, *, pattern: str | None = None, min_length: int | None = None, form: str = "text in quotes"
) -> Meta:
    """Describe a key whose value is text, or one of several words; ``form`` describes its form in words."""
    return Meta(description=description, pattern=pattern, min_length=min_length, extra={"unit": "", "form": form})


def _at_least(ge: float, description: str, unit: str = "", *, le: float | None = None) -> Meta:
    """Describe a key whose value is a number from ``ge`` on, up to ``le`` if that is given."""
    return Meta(description=description, ge=ge, le=le, extra={"unit": unit})


def _above(gt: float, description: str, unit: str = "", *, le: float | None = None) -> Meta:
    """Describe a key whose value is a number greater than ``gt``, up to ``le`` if that is given."""
    return Meta(description=description, gt=gt, le=le, extra={"unit": unit})


class RuntimeSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the processes meet, and how they stop."""

    dir: Annotated[
        str,
        _text(
            "Folder of the sockets, made with mode 0700; empty: $RUNTIME_DIRECTORY, else $XDG_RUNTIME_DIR/ecgmon, "
            "else /tmp/ecgmon-UID."
        ),
    ] = ""
    drain_seconds: Annotated[
        float, _at_least(0, "Longest time to finish what is in progress after SIGTERM or Ctrl-C.", "s", le=3600)
    ] = 10.0


class StoreSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is stored, where and for how long."""

    path: Annotated[
        str,
        _text(
            "State folder, which holds the database; empty: $STATE_DIRECTORY, else $XDG_STATE_HOME/ecgmon, "
            "else ~/.local/state/ecgmon."
        ),
    ] = ""
    retention_days: Annotated[
        float, _at_least(0, "Beats and cleared alerts older than this are deleted; 0 keeps them forever.", "d")
    ] = 0.0
    commit_interval_seconds: Annotated[
        float, _at_least(0, "Longest time that a scored beat waits for others to be committed with it.", "s", le=10)
    ] = 0.01
    detail: Annotated[
        Literal["none", "anomalous", "all"],
        _text(
            "Beats that are stored with their window and their squared difference per tick, not only with their score."
        ),
    ] = "anomalous"


class DeliverySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How beats go from producers through the monitor to workers, and how many may be in transit."""

    window_items: Annotated[
        int,
        _at_least(
            1,
            "Credit of a producer: items that it can have sent before the first of them is stored.",
            "items",
            le=1_000_000,
        ),
    ] = 4096
    batch_beats: Annotated[
        int, _at_least(1, "Maximum number of beats in a batch for a worker.", "beats", le=MAX_ITEMS)
    ] = 64
    lease_seconds: Annotated[
        float, _above(0, "A batch that is not answered in this time goes to another worker.", "s", le=3600)
    ] = 10.0
    heartbeat_seconds: Annotated[
        float, _above(0, "Time between two heartbeats of a producer or a worker.", "s", le=600)
    ] = 1.0
    dead_after_seconds: Annotated[
        float, _above(0, "A peer that is silent for this long counts as dead.", "s", le=3600)
    ] = 5.0
    queue_items: Annotated[
        int,
        _at_least(
            1,
            "Maximum number of unstored items in the monitor, over all producers; each gets at most half of what is left.",
            "items",
        ),
    ] = 65_536
    max_producers: Annotated[int, _at_least(1, "Maximum number of connected producers.", "producers")] = 64
    max_workers: Annotated[int, _at_least(1, "Maximum number of connected workers.", "workers")] = 64
    max_streams: Annotated[int, _at_least(1, "Maximum number of known streams.", "streams")] = 10_000
    max_messages_per_second: Annotated[
        int,
        _at_least(
            10, "Messages of one connection that are processed in a second; more are discarded and counted.", "1/s"
        ),
    ] = 10_000


_TCP: Final = r"^(tcp://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5})?$"
_TCP_FORM: Final = '"tcp://HOST:PORT" or empty'


class NetworkSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Roles on several hosts: tcp with CURVE keys, beside the sockets in the runtime folder; docs/security.md explains it."""

    bind_producers: Annotated[
        str, _text("Where the monitor listens for producers of other hosts.", pattern=_TCP, form=_TCP_FORM)
    ] = ""
    bind_workers: Annotated[
        str, _text("Where the monitor listens for workers of other hosts.", pattern=_TCP, form=_TCP_FORM)
    ] = ""
    clients: Annotated[
        str,
        _text(
            "Client list: who may connect to the two above, one client per line: name, producer or worker, public key and, "
            "for producers, patterns of the streams that they may write. It is read again when it changes."
        ),
    ] = ""
    connect_producers: Annotated[
        str,
        _text("Where a producer finds the monitor; empty: in the runtime folder.", pattern=_TCP, form=_TCP_FORM),
    ] = ""
    connect_workers: Annotated[
        str, _text("Where a worker finds the monitor; empty: in the runtime folder.", pattern=_TCP, form=_TCP_FORM)
    ] = ""
    monitor_key: Annotated[
        str,
        _text("Public key of the monitor that the two above connect to.", pattern=r"^(\S{40})?$", form="40 characters"),
    ] = ""
    key_file: Annotated[
        str,
        _text(
            "Secret key of this host, from `ecgmon keygen`, mode 0600; empty: the systemd credential ecgmon.key. "
            "Required for every tcp address."
        ),
    ] = ""


class WorkerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How beats are scored."""

    count: Annotated[int, _at_least(1, "Workers that `ecgmon run` starts.", "processes", le=1024)] = 1
    device: Annotated[
        Literal["auto", "cpu", "cuda"], _text("Where the model runs; auto takes the GPU where there is one.")
    ] = "auto"
    threads: Annotated[int, _at_least(1, "CPU threads of each worker.", "threads", le=1024)] = 1
    weights: Annotated[
        str, _text("Checkpoint file; empty: the deployed model of the registry, at first the one that ecgmon ships.")
    ] = ""
    registry: Annotated[
        str, _text("Folder of the model registry (`ecgmon models`); empty: `models` in the state folder.")
    ] = ""
    credit_batches: Annotated[
        int,
        _at_least(
            1, "Batches that a worker holds in advance, so that it does not wait for the next.", "batches", le=64
        ),
    ] = 8


class ProducerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How samples are read, and how many items are kept until they are stored."""

    chunk_seconds: Annotated[float, _above(0, "Signal read at a time.", "s", le=60)] = 0.25
    buffer_items: Annotated[
        int,
        _at_least(
            1,
            "Items, over all streams, that are kept until the monitor has stored them; when full, reading waits.",
            "items",
        ),
    ] = 4096


class SourceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stream that `ecgmon run` starts."""

    record: Annotated[
        str,
        _text("WFDB record, by path without its extension or by name.", min_length=1, form="text in quotes, not empty"),
    ]
    name: Annotated[
        str,
        _text(
            "Stream id, unique, never a patient's name: it is shown in metrics; empty: the record's name.",
            pattern=_STREAM,
            form=f"letters, digits, '.', '_', '-' and at most one '/', {MAX_STREAM_ID} characters at most",
        ),
    ] = ""
    speed: Annotated[float, _at_least(0, "Speed as a multiple of real time; 0 is as fast as possible.", "x")] = 1.0
    leads: Annotated[
        tuple[str, ...], _text("Leads to read, by name; none: MLII, else II, else the first of the record.")
    ] = ()
    start: Annotated[float, _at_least(0, "Start in the record.", "s")] = 0.0
    stop: Annotated[float, _at_least(0, "End in the record; 0: at its end.", "s")] = 0.0
    loop: Annotated[int, _at_least(0, "Times that the record is played, as one stream; 0: forever.", "times")] = 1
    live: Annotated[
        bool,
        _text(
            "Whether it behaves like a live feed and does not wait for a slow daemon: the newest beats are kept, the "
            "others counted as dropped. For all sources of a producer or none.",
            form="true or false",
        ),
    ] = False


class PrioritySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Priority of each kind of alert, after IEC 60601-1-8."""

    asystole: Annotated[PriorityName, _text("No beat.")] = "high"
    extreme_bradycardia: Annotated[PriorityName, _text("Heart rate far too low.")] = "high"
    extreme_tachycardia: Annotated[PriorityName, _text("Heart rate far too high.")] = "high"
    anomalous_episode: Annotated[PriorityName, _text("Many of the last beats are anomalous.")] = "medium"
    lead_off: Annotated[PriorityName, _text("The signal is flat: a lead is off, or there is nothing to see.")] = (
        "medium"
    )
    signal_missing: Annotated[PriorityName, _text("The source delivers no values.")] = "medium"
    saturated: Annotated[PriorityName, _text("The signal is at the limit of the converter.")] = "medium"
    noisy: Annotated[PriorityName, _text("Noise hides the shape of the beats.")] = "low"
    stream_stalled: Annotated[PriorityName, _text("Nothing arrives from the stream.")] = "medium"
    beats_dropped: Annotated[PriorityName, _text("A live source was faster than the daemon, and beats were lost.")] = (
        "low"
    )


class AlertSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When alerts are raised and cleared; docs/alerts.md explains the rules."""

    score_threshold: Annotated[
        float, _above(0, "A beat is anomalous from this score on: 2 is one normal beat in a hundred.", "-log10 share")
    ] = 2.0
    episode_beats_k: Annotated[
        int, _at_least(1, "An episode is raised when this many of the last M scored beats are anomalous.", "beats")
    ] = 3
    episode_beats_m: Annotated[int, _at_least(1, "M: number of last scored beats that count.", "beats", le=1000)] = 10
    episode_clear_beats: Annotated[
        int,
        _at_least(0, "An episode is cleared when at most this many of the last M scored beats are anomalous.", "beats"),
    ] = 0
    episode_gap_seconds: Annotated[
        float, _above(0, "After this long without a scored beat, older beats no longer count.", "s")
    ] = 10.0
    asystole_seconds: Annotated[float, _above(0, "Asystole: no beat for this long.", "s", le=60)] = 4.0
    asystole_first_seconds: Annotated[
        float, _above(0, "The same before a stream's first beat, while the detector learns.", "s", le=60)
    ] = 10.0
    asystole_clear_beats: Annotated[
        int, _at_least(1, "Asystole is cleared by this many beats without another such pause.", "beats", le=100)
    ] = 3
    bradycardia_per_minute: Annotated[
        float, _above(0, "Extreme bradycardia: mean heart rate below this.", "1/min", le=300)
    ] = 40.0
    bradycardia_clear_per_minute: Annotated[
        float, _above(0, "It is cleared when the mean heart rate is at or above this.", "1/min", le=300)
    ] = 45.0
    bradycardia_beats: Annotated[
        int, _at_least(2, "Consecutive beats over which this heart rate is averaged.", "beats", le=100)
    ] = 5
    tachycardia_per_minute: Annotated[
        float, _above(0, "Extreme tachycardia: mean heart rate above this.", "1/min", le=400)
    ] = 140.0
    tachycardia_clear_per_minute: Annotated[
        float, _above(0, "It is cleared when the mean heart rate is at or below this.", "1/min", le=400)
    ] = 130.0
    tachycardia_beats: Annotated[
        int, _at_least(2, "Consecutive beats over which this heart rate is averaged.", "beats", le=100)
    ] = 17
    technical_seconds: Annotated[
        int,
        _at_least(1, "Lead off, signal missing, saturated: this many such seconds in the window below.", "s", le=600),
    ] = 3
    technical_window_seconds: Annotated[
        int, _at_least(1, "Length of this window; cleared when none of them is such a second.", "s", le=600)
    ] = 5
    noisy_seconds: Annotated[int, _at_least(1, "Noisy: this many noisy seconds in the window below.", "s", le=600)] = 10
    noisy_window_seconds: Annotated[
        int, _at_least(1, "Length of this window; cleared when none of them is noisy.", "s", le=600)
    ] = 15
    dropped_clear_seconds: Annotated[
        float, _above(0, "Beats dropped is cleared after this long without another loss.", "s")
    ] = 30.0
    stalled_seconds: Annotated[
        float, _above(0, "Stream stalled: nothing arrived for this long, by the clock.", "s")
    ] = 10.0
    priorities: PrioritySettings = PrioritySettings()


class ExporterSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTP server of the metrics."""

    host: Annotated[
        str,
        _text(
            "Address to listen on; the default is this machine only. Every other than a loopback address needs the TLS and user "
            "keys below.",
            min_length=1,
            form="text in quotes, not empty",
        ),
    ] = "127.0.0.1"
    port: Annotated[int, _at_least(0, "Port to listen on; 0 takes any free one.", le=65_535)] = 9464
    max_stream_labels: Annotated[
        int, _at_least(0, "Streams with their own label; the others share one.", "streams", le=10_000)
    ] = 64
    tls_certificate: Annotated[
        str, _text("PEM file of the certificate chain; with it and tls_key the server accepts only TLS.")
    ] = ""
    tls_key: Annotated[str, _text("PEM file of the certificate's key, without a password, of mode 0600 or 0400.")] = ""
    user: Annotated[
        str,
        _text(
            "Who may read the metrics, by HTTP basic authentication; empty: everyone who reaches the address.",
            pattern=r"^[^:\x00-\x1f\x7f]{0,64}$",
            form="text in quotes, at most 64 characters without a colon",
        ),
    ] = ""
    password_file: Annotated[
        str, _text("File of mode 0600 or 0400 with the hash of the user's password; `ecgmon password` writes it.")
    ] = ""


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address to listen on."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name may stand for any address
        return False


class LogSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is logged, to standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], _text("Least severe level that is logged.")] = "info"
    format: Annotated[
        Literal["auto", "console", "json"], _text("Form of a log line; auto is console on a terminal, else JSON.")
    ] = "auto"


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole configuration.  ``Config()`` is the defaults."""

    runtime: RuntimeSettings = RuntimeSettings()
    store: StoreSettings = StoreSettings()
    delivery: DeliverySettings = DeliverySettings()
    network: NetworkSettings = NetworkSettings()
    worker: WorkerSettings = WorkerSettings()
    producer: ProducerSettings = ProducerSettings()
    source: tuple[SourceSettings, ...] = ()
    alerts: AlertSettings = AlertSettings()
    exporter: ExporterSettings = ExporterSettings()
    log: LogSettings = LogSettings()
