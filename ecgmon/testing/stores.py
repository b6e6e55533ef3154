"""Stores like those of a daemon, made without a daemon."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ecgmon.testing.synthetic import SyntheticECG


def store_of(ecg: SyntheticECG, folder: Path | str, *, stream: str = "synthetic") -> Path:
    """Score a synthetic ECG and store it as a daemon would.

    Parameters
    ----------
    ecg : SyntheticECG
    folder : Path or str
        State folder; created if missing.
    stream : str
        Id of the stream.

    Returns
    -------
    Path
        The folder, which :func:`ecgmon.connect` takes.

    Raises
    ------
    ecgmon.errors.StoreError
        If the store cannot be written.

    Examples
    --------
    >>> from ecgmon.testing import store_of, synthetic_ecg
    >>> folder = store_of(synthetic_ecg(30), "state")
    >>> sorted(file.name for file in folder.glob("*.sqlite"))
    ['ecgmon.sqlite']
    """
    from ecgmon.models.inference.model import load_model
    from ecgmon.monitor.config.schema import AlertSettings
    from ecgmon.monitor.offline.alerts import watch
    from ecgmon.monitor.store import Store
    from ecgmon.pipelines.sources.arrays import source_of

    model = load_model()
    source = replace(source_of(ecg.signal, ecg.fs, leads=ecg.leads), stream=stream)
    folder = Path(folder)
    store = Store(folder)
    try:
        known = store.use_model(model.fingerprint, model.name)
        with model.running() as scorer:
            parts = list(watch(source, scorer, AlertSettings()))
        state = store.open_stream(stream, ecg.fs, parts[0].entry.state.leads, now := time.time_ns())
        store.write([replace(part.entry, state=replace(part.entry.state, id=state.id)) for part in parts], known, now)
    finally:
        store.close()
    return folder
