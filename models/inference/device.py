"""Check early whether torch can compute on a device."""

from __future__ import annotations

import torch


class DeviceError(Exception):
    """Torch does not know a device, or the device is not present.

    Attributes
    ----------
    device : str
    reason : str
        First line of torch's error message.
    """

    def __init__(self, device: str, reason: str) -> None:
        super().__init__(f"the device {device!r} cannot be used ({reason}); choose cpu")
        self.device = device
        self.reason = reason


def check_device(device: str) -> None:
    """Raise an error if torch cannot compute on a device.

    Parameters
    ----------
    device : str
        Torch's name of the device: ``cpu``, ``cuda``, ``cuda:1``.

    Raises
    ------
    DeviceError
        If torch cannot use the device; the message has the reason and a remedy.

    Examples
    --------
    >>> check_device("cpu")
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch has no specific exception for this
        raise DeviceError(device, str(error).splitlines()[0]) from error
