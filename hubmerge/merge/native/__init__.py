"""Compiled kernels for the methods that are used most; torch does the same wherever there is no library.

Their C sources are built when the package is installed, if there is a C compiler. Results do not depend on it:
combinations are the same to the bit. Sums are taken in fp64 on both sides but in another order, so they may differ by
about 1e-15 of the sum; what follows from them is rounded to fp32 before it is used. `HUBMERGE_NATIVE=0` in the
environment turns the kernels off.
"""

from __future__ import annotations
