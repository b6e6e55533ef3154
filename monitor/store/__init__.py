"""The store: every scored beat and every alert, in SQLite."""

from ecgmon.monitor.store.errors import StoreError, StreamChangedError
from ecgmon.monitor.store.reading import Reader, StoredAlert, StoredStream
from ecgmon.monitor.store.schema import FILE, VERSION
from ecgmon.monitor.store.writing import Store

__all__ = ["FILE", "VERSION", "Reader", "Store", "StoreError", "StoredAlert", "StoredStream", "StreamChangedError"]
