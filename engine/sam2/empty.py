"""A network without weights, whichever its dimensions are of."""

import torch

from alps.engine.sam.config import NetworkConfig
from alps.engine.sam.empty import Unfilled, empty_sam
from alps.engine.sam.model import Network
from alps.engine.sam2.config import Sam2Config
from alps.engine.sam2.model import Sam2


def empty_sam2(config: Sam2Config) -> Sam2:
    """The network on the meta device, where tensors have a shape and no values."""
    with torch.device("meta"), Unfilled():
        return Sam2(config)


def empty_network(config: NetworkConfig) -> Network:
    """Likewise of SAM, SAM 2 or MobileSAM."""
    return empty_sam2(config) if isinstance(config, Sam2Config) else empty_sam(config)
