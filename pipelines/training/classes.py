"""Classes of beats after AAMI EC57, and the WFDB annotation symbols of each class."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class BeatClass(IntEnum):
    """Class of a beat after AAMI EC57, as the BeatGAN protocol groups the annotations.

    The protocol counts the escape beats e and j as S, though AAMI counts them as N.
    """

    N = 0
    S = 1
    V = 2
    F = 3
    Q = 4


SYMBOLS: Final = {
    BeatClass.N: "NLRB",
    BeatClass.S: "aJASjen",
    BeatClass.V: "VEr",
    BeatClass.F: "F",
    BeatClass.Q: "/fQ?",
}
"""WFDB annotation symbols of each class (WFDB Applications Guide, annotation codes).  MIT-BIH has no B, n, r and ?."""

FLUTTER: Final = "!"
"""WFDB annotation symbol of a ventricular flutter wave, which is not a beat."""

SYMBOL_CLASSES: Final = {symbol: aami for aami, symbols in SYMBOLS.items() for symbol in symbols}
"""Class of each symbol."""
