"""SAM 2 as transformers has it, small and with random weights, to hold ours against."""

import torch

from alps.engine.sam2 import Sam2Config

SMALL = Sam2Config(
    image_size=128,
    encoder_width=16,
    encoder_heads=1,
    stage_blocks=(1, 2, 3, 1),
    window_sizes=(8, 4, 6, 2),
    global_blocks=(5,),
    position_size=5,
    embedding_channels=32,
    decoder_hidden=48,
    iou_head_hidden=24,
    mask_input_channels=8,
)


def transformers_sam2(kind="Sam2Model", seed=3):
    """Its network in these dimensions; ``kind`` may be Sam2VideoModel."""
    import transformers

    widths = list(SMALL.stage_widths)
    config_kind = getattr(transformers, kind.replace("Model", "Config"))
    config = config_kind(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": 16,
                "num_attention_heads": 1,
                "image_size": [128, 128],
                "window_positional_embedding_background_size": [5, 5],
                "blocks_per_stage": [1, 2, 3, 1],
                "embed_dim_per_stage": widths,
                "num_attention_heads_per_stage": [1, 2, 4, 8],
                "window_size_per_stage": [8, 4, 6, 2],
                "global_attention_blocks": [5],
            },
            "backbone_channel_list": widths[::-1],
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
            "fpn_hidden_size": 32,
        },
        prompt_encoder_config={
            "hidden_size": 32, "image_size": 128, "patch_size": 16, "mask_input_channels": 8,
        },
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 48, "iou_head_hidden_dim": 24},
    )  # fmt: skip
    torch.manual_seed(seed)
    model = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            elif "embed" in name or "token.weight" in name:
                parameter.normal_()
            else:  # as initialised, every point gets the same pale mask
                gain = 3.0 if "mask_decoder.transformer" in name else 1.0
                parameter.normal_(std=gain * parameter[0].numel() ** -0.5)
        # Trained ones have them once; transformers draws them twice.
        shared = model.shared_image_embedding.positional_embedding
        model.prompt_encoder.shared_embedding.positional_embedding.copy_(shared)
    return model.requires_grad_(False)
