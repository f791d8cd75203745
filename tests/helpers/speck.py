"""A SAM of a few thousand random weights: all of the pipeline's paths in milliseconds a tile."""

from dataclasses import replace
from pathlib import Path

import torch

from alps.bench.proofs.faults.smallest import CONFIG
from alps.bench.proofs.faults.smallest import DEFAULTS as SMALLEST
from alps.engine.models.checkpoints import save_sam
from alps.engine.sam import Sam

DEFAULTS = replace(SMALLEST, points_per_side=6)


def save_speck(path: Path, seed: int = 5) -> Path:
    """Write its checkpoint."""
    torch.manual_seed(seed)
    model = Sam(CONFIG)
    with torch.no_grad():
        # A point attends to its own place, and logits are large: masks differ from point to point.
        model.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.mul_(2)
        decoder = model.mask_decoder
        layers = decoder.transformer.layers
        looks = [layer.cross_attn_token_to_image for layer in layers]
        marks = [layer.cross_attn_image_to_token for layer in layers]
        for attention in [*looks, *marks, decoder.transformer.final_attn_token_to_image]:
            attention.q_proj.weight.mul_(8)
            attention.k_proj.weight.copy_(attention.q_proj.weight)
            attention.out_proj.weight.mul_(8)
        for mlp in decoder.output_hypernetworks_mlps:
            mlp.layers[-1].weight.mul_(100)
            mlp.layers[-1].bias.zero_()
    save_sam(model, path, DEFAULTS, metadata={})
    return path
