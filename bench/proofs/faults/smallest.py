"""The smallest SAM that has all parts, for random weights: a tile takes milliseconds."""

from alps.engine.sam import ModelDefaults, SamConfig

CONFIG = SamConfig(
    image_size=128,
    patch_size=16,
    encoder_width=32,
    encoder_depth=1,
    encoder_heads=2,
    window_size=0,
    global_blocks=(),
    relative_positions=False,
    embedding_channels=16,
    decoder_heads=2,
    decoder_hidden=32,
    iou_head_hidden=16,
)
# Random weights are sure of nothing, so everything passes.
DEFAULTS = ModelDefaults(
    points_per_side=4,
    pred_iou_thresh=0.0,
    stability_score_thresh=0.0,
    box_nms_thresh=0.95,
    max_area=1.0,
    tile=128,
    overlap=16,
)
