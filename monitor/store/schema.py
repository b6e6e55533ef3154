"""Schema of the store's file, documented in docs/store.md, and the migrations of older files."""

from __future__ import annotations

from typing import Final

FILE: Final = "ecgmon.sqlite"
"""Name of the store's file in the state folder."""

MIGRATIONS: Final = (
    # 0 -> 1: the first schema
    """
    CREATE TABLE models (
        id INTEGER PRIMARY KEY,
        fingerprint TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL
    ) STRICT;
    CREATE TABLE streams (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        fs REAL NOT NULL,
        leads TEXT NOT NULL,
        position INTEGER NOT NULL,
        beats INTEGER NOT NULL,
        seconds REAL NOT NULL,
        ended INTEGER NOT NULL,
        rules BLOB NOT NULL,
        created INTEGER NOT NULL,
        updated INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE beats (
        stream INTEGER NOT NULL REFERENCES streams,
        seq INTEGER NOT NULL,
        sample INTEGER NOT NULL,
        rr REAL,
        rr_ratio REAL,
        quality INTEGER NOT NULL,
        flags INTEGER NOT NULL,
        error REAL,
        score REAL,
        model INTEGER NOT NULL REFERENCES models,
        stored INTEGER NOT NULL,
        PRIMARY KEY (stream, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE details (
        stream INTEGER NOT NULL REFERENCES streams,
        seq INTEGER NOT NULL,
        window BLOB NOT NULL,
        ticks BLOB NOT NULL,
        PRIMARY KEY (stream, seq)
    ) STRICT;
    CREATE TABLE alerts (
        stream INTEGER NOT NULL REFERENCES streams,
        number INTEGER NOT NULL,
        kind TEXT NOT NULL,
        priority TEXT NOT NULL,
        started REAL NOT NULL,
        raised REAL NOT NULL,
        ended REAL,
        beats TEXT NOT NULL,
        message TEXT NOT NULL,
        change INTEGER NOT NULL,
        stored INTEGER NOT NULL,
        PRIMARY KEY (stream, number)
    ) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX alerts_by_change ON alerts (change);
    CREATE INDEX alerts_active ON alerts (stream) WHERE ended IS NULL;
    CREATE TABLE quality (
        stream INTEGER NOT NULL REFERENCES streams,
        second INTEGER NOT NULL,
        seconds INTEGER NOT NULL,
        quality INTEGER NOT NULL,
        PRIMARY KEY (stream, second)
    ) STRICT, WITHOUT ROWID;
    """,
    # 1 -> 2: the recent beats of a stream, with which its next beats are compared; older files have none
    """
    CREATE TABLE recent (
        stream INTEGER NOT NULL REFERENCES streams,
        slot INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        beat BLOB NOT NULL,
        PRIMARY KEY (stream, slot)
    ) STRICT, WITHOUT ROWID;
    """,
    # 2 -> 3: a stream remembers more than its last beats; an older stream starts to learn again
    """
    DROP TABLE recent;
    CREATE TABLE remembered (
        stream INTEGER NOT NULL REFERENCES streams,
        place INTEGER NOT NULL,
        beat BLOB NOT NULL,
        PRIMARY KEY (stream, place)
    ) STRICT, WITHOUT ROWID;
    """,
)

VERSION: Final = len(MIGRATIONS)
"""Version of the schema that this program writes."""
