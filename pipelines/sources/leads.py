"""Check which signals of a record are usable ECG leads, and choose from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ecgmon.pipelines.sources.errors import GainError, LeadError
from ecgmon.pipelines.sources.units import millivolts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ecgmon.pipelines.sources.errors import SourceError
    from ecgmon.pipelines.sources.segments import Part

GAIN_RANGE: Final = (1.0, 1e9)
"""Plausible gains, in ADC units per mV.  With less than one unit per mV, a QRS complex is one or two steps high.  Float
signals scaled to 32 bits reach about 1e8."""


def lead_problem(parts: Iterable[Part | None], number: int, name: str) -> SourceError | None:
    """Check the unit and the gain of a lead in all segments.

    Parameters
    ----------
    parts : iterable of Part or None
        The record's segments; the first that is not None lists all leads.
    number : int
        Number of the lead.
    name : str
        Name of the record in messages.

    Returns
    -------
    SourceError or None
        Why the lead cannot be used; None if it can.
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
        elif lead in names:  # each segment of a variable record has its own leads, in any order
            where = names.index(lead)
        else:
            continue
        signal = part.header.signals[where]
        if unit is None:
            return LeadError(f"{name}: lead {lead!r} is in {signal.unit!r}, expected a voltage (V, mV, uV or nV)")
        if millivolts(signal.unit) != unit:
            return LeadError(f"{name}: lead {lead!r} changes its unit to {signal.unit!r} between segments")
        gain = signal.written_gain
        if part.is_layout or gain is None:  # without a written gain, HEADER(5) specifies 200 per unit
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
        Names of all leads.
    problems : sequence of SourceError or None
        For each lead, why it cannot be used; None if it can.
    wanted : sequence of str, optional
        Names or numbers (from 0) of the leads, in order; all usable leads by default.
    record : str
        Name of the record in messages.

    Returns
    -------
    channels : list of int
    notes : list of str
        One for every lead that is left out.

    Raises
    ------
    SourceError
        If no lead is left, or a lead is requested twice.
    """
    if wanted is None:
        channels = [number for number, problem in enumerate(problems) if problem is None]
        if not channels:
            raise _none_usable(problems, record)
        return channels, [f"left out: {problem}" for problem in problems if problem is not None]
    if not wanted:
        raise LeadError(f"{record}: the list of leads is empty; choose from {', '.join(names)}")
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
            raise LeadError(f"{record}: lead {lead!r} is requested twice; name it once")
        channels.append(channel)
    if not channels:
        raise failures[0]
    return channels, [f"left out: {failure}" for failure in failures]


def _none_usable(problems: Sequence[SourceError | None], record: str) -> SourceError:
    """Make one error from the problems of all leads, none of which can be used."""
    text = "; ".join(str(problem).removeprefix(f"{record}: ") for problem in problems)
    kind = GainError if all(isinstance(problem, GainError) for problem in problems) else LeadError
    return kind(f"{record}: no usable lead: {text}")
