"""TinyViT (arXiv 2207.10666) as MobileSAM (arXiv 2306.14289) has it: an encoder for a CPU.

A stage of convolutions and three of attention in windows, on grids of 4, 8, 16 and 16 pixels a
token; the last stage keeps the grid, so that embeddings are as SAM's. Names are MobileSAM's.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alps.engine.sam.config import MobileSamConfig
from alps.engine.sam.image_encoder import join_windows, split_windows
from alps.engine.sam.layers import LayerNorm2d, modules

EXPANSION = 4  # the middle of a block over its width


class TinyViT(nn.Module):
    """Pixels (B, 3, S, S), normalised -> image embedding (B, C, S / 16, S / 16)."""

    def __init__(self, config: MobileSamConfig) -> None:
        super().__init__()
        out = config.embedding_channels
        self.patch_embed = Patches(config.stage_widths[0])
        self.layers = modules(Stage(config, stage) for stage in range(len(config.stage_widths)))
        self.neck = nn.Sequential(
            nn.Conv2d(config.stage_widths[-1], out, 1, bias=False),
            LayerNorm2d(out),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
            LayerNorm2d(out),
        )

    def tokens(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) -> tokens before the neck (B, h, w, width)."""
        image = self.patch_embed(pixels)
        for stage in self.layers:
            image = stage(image)
        return image.permute(0, 2, 3, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) -> embedding (B, C, h, w)."""
        return self.neck(self.tokens(pixels).permute(0, 3, 1, 2))


@torch.no_grad()
def measure_norms(encoder: TinyViT, pixels: Tensor) -> None:
    """Set all statistics to those of what a few images (B, 3, S, S) give, layer after layer.

    For an encoder that begins to learn: nothing trains statistics, so that what learns is the
    network that will run, whatever its batches.
    """

    def measure(module: nn.Module, given: Any) -> None:
        assert isinstance(module, NormedConv)
        conv = module.c
        raw = F.conv2d(given[0], conv.weight, None, conv.stride, conv.padding, groups=conv.groups)
        module.bn.running_mean.copy_(raw.mean((0, 2, 3)))
        module.bn.running_var.copy_(raw.var((0, 2, 3)))

    parts = [part for part in encoder.modules() if isinstance(part, NormedConv)]
    handles = [part.register_forward_pre_hook(measure) for part in parts]
    try:
        encoder(pixels)
    finally:
        for handle in handles:
            handle.remove()


class NormedConv(nn.Module):
    """A convolution and a batch norm with fixed statistics, computed as one convolution."""

    def __init__(
        self, width: int, out: int, side: int = 1, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.c = nn.Conv2d(width, out, side, stride, side // 2, groups=groups, bias=False)
        self.bn = FixedNorm(out)

    def forward(self, image: Tensor) -> Tensor:
        """(B, width, h, w) -> (B, out, h / stride, w / stride)."""
        scale, shift = self.bn.scale_and_shift()
        conv = self.c
        weight = conv.weight * scale[:, None, None, None]
        return F.conv2d(image, weight, shift, conv.stride, conv.padding, groups=conv.groups)


class FixedNorm(nn.Module):
    """What a trained batch norm does: a scale and a shift a channel."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """(channels,) each."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale


class Patches(nn.Module):
    """Two convolutions of stride 2: (B, 3, S, S) -> (B, width, S / 4, S / 4)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(
            NormedConv(3, width // 2, 3, stride=2),
            nn.GELU(),
            NormedConv(width // 2, width, 3, stride=2),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed the patches."""
        return self.seq(pixels)


class Stage(nn.Module):
    """Blocks of one width, and the step to the next one's; the first stage only convolves."""

    def __init__(self, config: MobileSamConfig, stage: int) -> None:
        super().__init__()
        width, depth = config.stage_widths[stage], config.stage_blocks[stage]
        heads, window = config.stage_heads[stage], config.window_sizes[stage]
        last = len(config.stage_widths) - 1
        self.blocks = modules(
            ConvBlock(width) if stage == 0 else WindowBlock(width, heads, window)
            for _ in range(depth)
        )
        if stage < last:
            # The last stage keeps the grid.
            self.downsample = Merging(width, config.stage_widths[stage + 1], keep=stage + 1 == last)

    def forward(self, image: Tensor) -> Tensor:
        """(B, width, h, w) -> (B, next width, h / 2, w / 2), of the last stages (…, h, w)."""
        for block in self.blocks:
            image = block(image)
        return self.downsample(image) if hasattr(self, "downsample") else image


class Merging(nn.Module):
    """A step to another width, and to half the grid unless that is to be kept."""

    def __init__(self, width: int, out: int, *, keep: bool) -> None:
        super().__init__()
        self.conv1 = NormedConv(width, out)
        self.conv2 = NormedConv(out, out, 3, stride=1 if keep else 2, groups=out)
        self.conv3 = NormedConv(out, out)

    def forward(self, image: Tensor) -> Tensor:
        """(B, width, h, w) -> (B, out, h', w')."""
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(image)))))


class ConvBlock(nn.Module):
    """An inverted bottleneck (MBConv): wide, each channel by itself, and back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = EXPANSION * width
        self.conv1 = NormedConv(width, hidden)
        self.conv2 = NormedConv(hidden, hidden, 3, groups=hidden)
        self.conv3 = NormedConv(hidden, width)

    def forward(self, image: Tensor) -> Tensor:
        """(B, width, h, w) -> (B, width, h, w)."""
        hidden = F.gelu(self.conv2(F.gelu(self.conv1(image))))
        return F.gelu(image + self.conv3(hidden))


class WindowBlock(nn.Module):
    """Attention in windows, a convolution of each channel, two linear layers."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = WindowAttention(width, heads, window)
        self.local_conv = NormedConv(width, width, 3, groups=width)
        self.mlp = NormedMLP(width)

    def forward(self, image: Tensor) -> Tensor:
        """(B, width, h, w) -> (B, width, h, w)."""
        tokens = image.permute(0, 2, 3, 1)
        windows, padded = split_windows(tokens, self.window)
        tokens = tokens + join_windows(self.attn(windows), padded, tokens.shape[1:3])
        tokens = self.local_conv(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return (tokens + self.mlp(tokens)).permute(0, 3, 1, 2)


class WindowAttention(nn.Module):
    """Multi-head attention with a learnt offset for each distance, by rows and by columns."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        # In the order in which distances from the first token turn up: row by row.
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))

    def forward(self, windows: Tensor) -> Tensor:
        """(B·n, window, window, width) -> the same; what pads an image is attended to as well."""
        tokens = self.norm(windows.flatten(1, 2))
        # Of each head the query, the key and the value.
        qkv = self.qkv(tokens).unflatten(2, (self.heads, 3, -1)).permute(3, 0, 2, 1, 4)
        query, key, value = qkv
        offsets = self._offsets().to(query.dtype)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=offsets)
        return self.proj(out.transpose(1, 2).flatten(2)).unflatten(1, windows.shape[1:3])

    def _offsets(self) -> Tensor:
        """(heads, window², window²)."""
        side = torch.arange(self.window, device=self.attention_biases.device)
        away = (side[:, None] - side).abs()
        index = away[:, None, :, None] * self.window + away[None, :, None, :]
        return self.attention_biases[:, index.flatten(2).flatten(0, 1)]


class NormedMLP(nn.Module):
    """Layer norm, linear, GELU, linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, EXPANSION * width)
        self.fc2 = nn.Linear(EXPANSION * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(…, width) -> (…, width)."""
        return self.fc2(F.gelu(self.fc1(self.norm(tokens))))
