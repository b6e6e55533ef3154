"""What can be wrong with a record, each as an exception of its own.

Every message names the record, the offending value, what was expected and what to do, in one line:
it is printed as it is.  Whoever handles many records catches :class:`SourceError` and goes on with
the others.
"""

from __future__ import annotations


class SourceError(Exception):
    """Something is wrong with a record, or with what was asked of it."""


class UnsafeNameError(SourceError):
    """A name with control characters, ``..`` or other characters that a stream's id cannot have."""


class DuplicateStreamError(SourceError):
    """Two records would get the same stream id."""


class RecordNotFoundError(SourceError):
    """No such record in any of the places where records are looked for."""


class DownloadError(SourceError):
    """A record is not on this machine and could not be downloaded."""


class HeaderError(SourceError):
    """A header that cannot be read, or that contradicts itself."""


class SamplingRateError(SourceError):
    """A sampling frequency outside what the segmenter takes."""


class SignalFormatError(SourceError):
    """A signal format that is unknown, or that cannot be read from its middle."""


class SignalFileError(SourceError):
    """A signal file that is missing or cannot be read."""


class GainError(SourceError):
    """A gain of zero, or one that no ECG has."""


class LeadError(SourceError):
    """No lead with a voltage in it, or none by the name that was asked for."""


class RecordTooShortError(SourceError):
    """Fewer samples than one window."""


class RecordTruncatedError(SourceError):
    """The header promises more samples than there are; raised after those that are there were given."""


class RangeError(SourceError):
    """A time that cannot be read, or that lies outside the record."""


class AnnotationError(SourceError):
    """An annotation file that is missing, unreadable, or does not belong to the record."""


for _error in (SourceError, *SourceError.__subclasses__()):
    _error.__module__ = "ecgmon.errors"  # by which users know them
