"""Whether torch can compute on a device, found out before anything else can fail."""

from __future__ import annotations

import torch


class DeviceError(Exception):
    """A device that torch does not know or that is not there.

    Attributes
    ----------
    device : str
    reason : str
        What torch says, in one line.
    """

    def __init__(self, device: str, reason: str) -> None:
        super().__init__(f"the device {device!r} cannot be used ({reason}); choose cpu")
        self.device = device
        self.reason = reason


def check_device(device: str) -> None:
    """Make sure that torch can compute on a device.

    Parameters
    ----------
    device : str
        As torch names them: ``cpu``, ``cuda``, ``cuda:1``.

    Raises
    ------
    DeviceError
        If it cannot; the message says why and what to do.

    Examples
    --------
    >>> check_device("cpu")
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch has no exception of its own for it
        raise DeviceError(device, str(error).splitlines()[0]) from error
