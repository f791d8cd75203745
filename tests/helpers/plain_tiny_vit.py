"""TinyViT of MobileSAM once more, written plainly from its description.

Convolution, batch norm, offsets pair by pair: nothing is fused and nothing is shared with ours.
"""

import torch
from torch.nn import functional as F


def plain_tiny_vit(state: dict[str, torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
    """The image embedding (B, C, h, w), from a state dict by MobileSAM's names."""

    def conv(name, image, stride=1, grouped=False):
        weight = state[f"{name}.c.weight"]
        groups = image.shape[1] if grouped else 1
        image = F.conv2d(image, weight, None, stride, weight.shape[2] // 2, groups=groups)
        mean, var, scale, shift = (
            state[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(image, mean, var, scale, shift, eps=1e-5)

    def norm(name, tokens):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return F.layer_norm(tokens, weight.shape, weight, bias)

    def linear(name, tokens):
        return tokens @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def attention(name, tokens, side):  # (side * side, width) of one window
        biases = state[f"{name}.attention_biases"]
        heads = len(biases)
        tokens = norm(f"{name}.norm", tokens)
        parts = linear(f"{name}.qkv", tokens).chunk(heads, dim=1)
        places = [(y, x) for y in range(side) for x in range(side)]
        number = {}
        for a in places:
            for b in places:
                number.setdefault((abs(a[0] - b[0]), abs(a[1] - b[1])), len(number))
        index = torch.tensor(
            [[number[abs(a[0] - b[0]), abs(a[1] - b[1])] for b in places] for a in places]
        )
        out = []
        for part, bias in zip(parts, biases, strict=True):
            query, key, value = part.chunk(3, dim=1)
            logits = query @ key.T / query.shape[1] ** 0.5 + bias[index]
            out.append(logits.softmax(1) @ value)
        return linear(f"{name}.proj", torch.cat(out, dim=1))

    def window_block(name, image):
        side = round(state[f"{name}.attn.attention_biases"].shape[1] ** 0.5)
        batch, _, height, across = image.shape
        padded = F.pad(image, (0, -across % side, 0, -height % side))
        out = torch.empty_like(padded)
        for b in range(batch):
            for y in range(0, padded.shape[2], side):
                for x in range(0, padded.shape[3], side):
                    window = padded[b, :, y : y + side, x : x + side]
                    found = attention(f"{name}.attn", window.flatten(1).T, side)
                    out[b, :, y : y + side, x : x + side] = found.T.reshape(window.shape)
        image = conv(f"{name}.local_conv", image + out[:, :, :height, :across], grouped=True)
        tokens = image.flatten(2).mT
        hidden = F.gelu(linear(f"{name}.mlp.fc1", norm(f"{name}.mlp.norm", tokens)))
        return image + linear(f"{name}.mlp.fc2", hidden).mT.reshape(image.shape)

    def conv_block(name, image):
        hidden = F.gelu(conv(f"{name}.conv1", image))
        hidden = F.gelu(conv(f"{name}.conv2", hidden, grouped=True))
        return F.gelu(image + conv(f"{name}.conv3", hidden))

    def blocks(stage):
        named = [name.split(".") for name in state if name.startswith(f"layers.{stage}.blocks.")]
        return 1 + max(int(parts[3]) for parts in named)

    image = conv("patch_embed.seq.0", pixels, 2)
    image = conv("patch_embed.seq.2", F.gelu(image), 2)
    for stage in range(4):
        for index in range(blocks(stage)):
            image = (window_block if stage else conv_block)(f"layers.{stage}.blocks.{index}", image)
        if stage < 3:
            name = f"layers.{stage}.downsample"
            image = F.gelu(conv(f"{name}.conv1", image))
            image = F.gelu(conv(f"{name}.conv2", image, 2 if stage < 2 else 1, grouped=True))
            image = conv(f"{name}.conv3", image)

    def norm2d(name, image):
        centred = image - image.mean(1, keepdim=True)
        image = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
        return image * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]

    image = norm2d("neck.1", F.conv2d(image, state["neck.0.weight"]))
    return norm2d("neck.3", F.conv2d(image, state["neck.2.weight"], padding=1))
