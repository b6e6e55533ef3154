"""Exceptions of records and their files.

Every message is one line that can be printed unchanged.  It names the record, the wrong value, the
expected value and a remedy.  Code that handles many records catches :class:`SourceError` and
continues with the next record.
"""

from __future__ import annotations


class SourceError(Exception):
    """A record cannot be used, or a request does not fit the record."""


class UnsafeNameError(SourceError):
    """A name with control characters, ``..`` or other characters that are not allowed in a stream id."""


class DuplicateStreamError(SourceError):
    """Two records would get the same stream id."""


class RecordNotFoundError(SourceError):
    """The record is in none of the places where records are searched."""


class DownloadError(SourceError):
    """A record is not on this machine and could not be downloaded."""


class HeaderError(SourceError):
    """A header that cannot be read or contradicts itself."""


class SamplingRateError(SourceError):
    """A sampling frequency outside the range that the segmenter supports."""


class SignalFormatError(SourceError):
    """A signal format that is unknown, or that can only be read from the beginning of a file."""


class SignalFileError(SourceError):
    """A signal file that is missing or cannot be read."""


class GainError(SourceError):
    """A gain of zero, or outside the plausible range for an ECG."""


class LeadError(SourceError):
    """No lead holds a voltage, or no lead has the requested name."""


class RecordTooShortError(SourceError):
    """Fewer samples than one window."""


class RecordTruncatedError(SourceError):
    """The header promises more samples than the files hold; raised after the last available sample."""


class RangeError(SourceError):
    """A time that cannot be parsed or lies outside the record."""


class AnnotationError(SourceError):
    """An annotation file that is missing, is unreadable or does not belong to the record."""


for _error in (SourceError, *SourceError.__subclasses__()):
    _error.__module__ = "ecgmon.errors"  # the public name of these exceptions
