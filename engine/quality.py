"""How right label maps are, held against real labels of the same images.

Everything follows from one contingency table n[t, k]: how many pixels of truth class t carry
pseudo-class k, with a column u[t] beside it for those that carry none. It is summed window by
window, so memory depends on the number of classes and not on the images.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import numpy as np
from scipy.special import entr, rel_entr

from alps.engine.errors import SettingsError, SourceError
from alps.engine.label_pairs import LabelledImage, read_pixels

# More distinct values than this are instance ids or a photograph, not classes.
MOST_TRUTH_CLASSES = 1024
# Pixels counted at once: their int64 keys stay in the cache of one core.
CHUNK_PIXELS = 1 << 20


