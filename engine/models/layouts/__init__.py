"""How programs lay out a SAM's checkpoint, one file a layout.

A layout is recognised by names of tensors or by the config.json beside them, and read into this
package's names and dimensions. A new one is a file with a ``LAYOUT``, and a place in ``LAYOUTS``.
"""

from alps.engine.base.errors import ModelError
from alps.engine.models.folder import CONFIG
from alps.engine.models.layouts import (
    huggingface,
    mobile_sam,
    official,
    own,
    sam2,
    sam2_huggingface,
)
from alps.engine.models.layouts.base import Contents, Form, Layout, Stored, Written

__all__ = ["LAYOUTS", "Contents", "Form", "Layout", "Stored", "Written", "layout_of", "model_types"]

# Tried in this order. The official one takes whatever is left, and says what is missing in it.
LAYOUTS: tuple[Layout, ...] = (
    own.LAYOUT,
    sam2_huggingface.LAYOUT,
    huggingface.LAYOUT,
    sam2.LAYOUT,
    mobile_sam.LAYOUT,
    official.LAYOUT,
)


def model_types() -> list[str]:
    """What config.json may call a model that can be used."""
    return [name for layout in LAYOUTS for name in layout.model_types]


def layout_of(stored: Stored) -> Layout:
    """The layout of a checkpoint; the official one where none is recognised.

    Raises:
        ModelError: config.json says that it is another kind of model.
    """
    kind = stored.config.get("model_type")
    known = model_types()
    if kind is not None and kind not in known:
        raise ModelError(
            f"{stored.path}: {CONFIG} says that it is a model of type {kind!r}; of Hugging Face's "
            f"models these can be used: {', '.join(known)}"
        )
    return next(layout for layout in LAYOUTS if layout.recognises(stored))
