"""Which signals of a record are leads of an ECG that can be used, and which of them are wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ecgmon.pipelines.sources.errors import GainError, LeadError
from ecgmon.pipelines.sources.units import millivolts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ecgmon.pipelines.sources.errors import SourceError
    from ecgmon.pipelines.sources.segments import Part

GAIN_RANGE: Final = (1.0, 1e9)
"""Plausible gains, in ADC units per mV.  Below one unit a QRS complex is a step or two; float signals
scaled to 32 bits reach some 1e8."""


def lead_problem(parts: Iterable[Part | None], number: int, name: str) -> SourceError | None:
    """Say why a lead cannot be used: its unit or its gain, in any segment.

    Parameters
    ----------
    parts : iterable of Part or None
        The record's segments; the first that is not None lists all leads.
    number : int
        Of the lead.
    name : str
        What messages call the record.

    Returns
    -------
    SourceError or None
        None where it can be used.
    """
    lead: str | None = None
    unit: float | None = None
    for part in parts:
        if part is None:
            continue
        names = [signal.name for signal in part.header.signals]
        if lead is None:
            where = number
            lead, unit = names[number], millivolts(part.header.signals[number].unit)
        elif lead in names:  # segments of a variable record have the leads they have, in any order
            where = names.index(lead)
        else:
            continue
        signal = part.header.signals[where]
        if unit is None:
            return LeadError(f"{name}: lead {lead!r} is in {signal.unit!r}, expected a voltage (V, mV, uV or nV)")
        if millivolts(signal.unit) != unit:
            return LeadError(f"{name}: lead {lead!r} changes its unit to {signal.unit!r} on the way")
        gain = signal.written_gain
        if part.is_layout or gain is None:  # no gain written: 200 a unit, says HEADER(5)
            continue
        low, high = GAIN_RANGE
        if not low <= gain / unit <= high:
            return GainError(
                f"{name}: lead {lead!r} has a gain of {gain:g} ADC units per {signal.unit}, expected "
                f"{low:g} to {high:g} per mV; correct the header's gain (zero means never calibrated)"
            )
    return None


def choose_leads(
    names: Sequence[str], problems: Sequence[SourceError | None], wanted: Sequence[str] | None, record: str
) -> tuple[list[int], list[str]]:
    """Choose leads by name or number.

    Parameters
    ----------
    names : sequence of str
        Of all leads.
    problems : sequence of SourceError or None
        Why each cannot be used.
    wanted : sequence of str, optional
        Names or numbers (from 0), in the order wanted; all that can be used by default.
    record : str
        What messages call the record.

    Returns
    -------
    channels : list of int
    notes : list of str
        One for every lead that is left out because it cannot be used.

    Raises
    ------
    SourceError
        If no lead is left, or one is asked for twice.
    """
    if wanted is None:
        channels = [number for number, problem in enumerate(problems) if problem is None]
        if not channels:
            raise _none_usable(problems, record)
        return channels, [f"left out: {problem}" for problem in problems if problem is not None]
    if not wanted:
        raise LeadError(f"{record}: an empty list of leads was asked for; it has {', '.join(names)}")
    channels = []
    failures: list[SourceError] = []
    for lead in wanted:
        if lead in names:
            channel = names.index(lead)
        elif lead.isdecimal() and int(lead) < len(names):
            channel = int(lead)
        else:
            has = ", ".join(names)
            failures.append(LeadError(f"{record}: there is no lead {lead!r}; it has {has} (or 0 to {len(names) - 1})"))
            continue
        problem = problems[channel]
        if problem is not None:
            failures.append(problem)
            continue
        if channel in channels:
            raise LeadError(f"{record}: lead {lead!r} is asked for twice; once is enough")
        channels.append(channel)
    if not channels:
        raise failures[0]
    return channels, [f"left out: {failure}" for failure in failures]


def _none_usable(problems: Sequence[SourceError | None], record: str) -> SourceError:
    """Join what is wrong with the leads, none of which can be used."""
    text = "; ".join(str(problem).removeprefix(f"{record}: ") for problem in problems)
    kind = GainError if all(isinstance(problem, GainError) for problem in problems) else LeadError
    return kind(f"{record}: no usable lead: {text}")
