"""Sets that grow together: each element points at another of its set, its root at itself.

Paths are halved while they are walked (Tarjan and van Leeuwen, "Worst-case analysis of set union
algorithms", 1984).
"""

import numpy as np

from alps.kernels.base.compiled import njit


@njit(nogil=True, cache=True)
def root_of(parent: np.ndarray, element: int | np.integer) -> int | np.integer:
    """The root of an element's set; parent: (N,) integers, of which paths are shortened."""
    while parent[element] != element:
        parent[element] = parent[parent[element]]
        element = parent[element]
    return element
