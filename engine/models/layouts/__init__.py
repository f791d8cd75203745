"""How programs lay out a SAM's checkpoint, one file a layout.

A layout is recognised by names of tensors or by the config.json beside them, and read into this
package's names and dimensions. A new one is a file with a ``LAYOUT``, and a place in ``LAYOUTS``.
"""

from alps.engine.models.layouts import official, own
from alps.engine.models.layouts.base import Contents, Layout, Stored, Written

__all__ = ["LAYOUTS", "Contents", "Layout", "Stored", "Written", "layout_of"]

# Tried in this order. The official one takes whatever is left, and says what is missing in it.
LAYOUTS: tuple[Layout, ...] = (own.LAYOUT, official.LAYOUT)


def layout_of(stored: Stored) -> Layout:
    """The layout of a checkpoint; the official one where none is recognised."""
    return next(layout for layout in LAYOUTS if layout.recognises(stored))
