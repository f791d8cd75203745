"""Who computes what follows the masks: the device that they lie on, where it can."""

from collections.abc import Sequence

import torch

from alps.engine.masks.generator import MaskGenerator
from alps.engine.masks.postprocess.device import DevicePostprocessor, can_follow
from alps.engine.masks.postprocess.host import HostPostprocessor
from alps.engine.masks.postprocess.protocol import Pending, Postprocessor, ToSegment

# A tile's masks and bits take at most so much of a GPU's memory, the masks until all are known.
TILE_BYTES = 3 << 30


def postprocessor_for(generator: MaskGenerator, rest_cells: int) -> Postprocessor:
    """For everything mode as it is set up; ``rest_cells`` as of ``MaskGenerator.segment``."""
    host = HostPostprocessor(generator, rest_cells)
    if generator.runtime.on_callers_cores or not can_follow(generator):
        return host
    return _ByPlace(generator, rest_cells, host)


class _ByPlace:
    """Where embeddings lie is known once there are some."""

    def __init__(self, generator: MaskGenerator, rest_cells: int, host: HostPostprocessor) -> None:
        self._generator, self._rest_cells, self._host = generator, rest_cells, host
        self._device: DevicePostprocessor | None = None

    def find(self, images: Sequence[ToSegment]) -> list[Pending]:
        """See ``Postprocessor``."""
        places = {one.device for image in images for one in image.embeddings or ()}
        if {place.type for place in places} != {"cuda"}:
            return self._host.find(images)
        if self._device is None:
            at_once = tiles_at_once(places.pop(), self._generator.runtime.capacity.images)
            self._device = DevicePostprocessor(self._generator, self._rest_cells, at_once)
        return self._device.find(images)


def tiles_at_once(device: torch.device, images: int) -> int:
    """How many tiles' masks a GPU takes, by its whole memory, whoever else uses it."""
    memory = torch.cuda.get_device_properties(device).total_memory
    return max(1, min(images, memory // TILE_BYTES // 2))
