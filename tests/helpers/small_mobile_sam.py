"""A MobileSAM of a few thousand weights."""

from alps.bench.proofs.mobile_sam import counted_weights
from alps.engine.sam.config import MobileSamConfig
from alps.engine.sam.empty import empty_sam

SMALL_T = MobileSamConfig(
    image_size=96,
    stage_widths=(8, 16, 20, 24),
    stage_blocks=(1, 2, 1, 2),
    stage_heads=(2, 4, 5, 3),
    window_sizes=(7, 5, 4, 3),  # of grids of 24, 12, 6, 6: none fits, one fits twice
    embedding_channels=32,
    decoder_hidden=48,
    iou_head_hidden=24,
    mask_input_channels=8,
)


def with_counted_weights(config):
    """A network whose weights depend on their names alone."""
    network = empty_sam(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    network.load_state_dict(counted_weights(shapes), assign=True)
    network.set_pixel_statistics()
    return network.eval()
