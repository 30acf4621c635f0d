"""NumPy arrays by their element type."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


Ints = NDArray[np.int64]


Bools = NDArray[np.bool_]
Column = Floats | Ints | Bools  # numbers or truth values, one per row
