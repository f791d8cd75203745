"""The mask decoder for points of several images at once on a GPU, without storing image tokens.

What ``AbsorbedDecoder`` computes, with the pixel side in four passes of kernels
(``alps.kernels.decoder.gpu``) and the tokens between them in products over all points. Nothing is
read back on the way: which masks go on is decided on the device, into a fixed number of slots.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from alps.engine.sam.config import SamConfig
from alps.engine.sam.mask_decoder import Attention, TwoWayBlock
from alps.engine.sam.model import Sam
from alps.engine.sam.rows import (
    Folding,
    Form,
    absorbed,
    blocks_of_masks,
    by_head,
    own_columns,
    padded,
    power_below,
    scaled_heads,
    value_rows,
    without_mean,
)
from alps.kernels.decoder.gpu import launch as kernels
from alps.kernels.decoder.gpu.launch import Chosen, Launch, Layer, Look, Norm, Tiles, Upscaling

# Points whose image tokens are stored at a time before they are upscaled.
STORED_POINTS = 512

_FORMS = {
    0: Form(torch.float16, exact=False),
    1: Form(torch.bfloat16, exact=False),
    2: Form(torch.float16, exact=True),
}


@dataclass
class FoundMasks:
    """Masks of B images whose predicted IoU passed, K slots an image, on the device.

    Slots of an image are filled from the first on, by point, then output; what lies in the others
    means nothing.
    """

    logits: Tensor  # (B, K, 4h, 4w) float32
    predicted_iou: Tensor  # (B, K) float32
    point: Tensor  # (B, K) int64, of the image's N
    count: Tensor  # (B,) int64 masks that passed, more than K where slots did not suffice
    finite: Tensor  # (B,) bool; False: a value left float16's range, and masks may be missing


def refusal(config: SamConfig) -> str | None:
    """Why the kernels cannot run a network, None if they can."""
    channels, heads = config.embedding_channels, config.decoder_heads
    if config.decoder_depth != 2:
        return f"it has {config.decoder_depth} decoder layers instead of 2"
    if channels not in (64, 128, 256) or heads not in (2, 4, 8) or config.multimask_outputs != 3:
        return f"its decoder has {channels} channels and {heads} heads"
    if config.embedding_size not in (16, 32, 64):
        return f"its embedding is {config.embedding_size} a side, not 16, 32 or 64"
    return None


class FusedDecoder:
    """Answers points on several images at a time.

    Args:
        sam: whose prompt encoder and mask decoder are run, where their weights lie; ``refusal``
            has none of it.
        launch: form of the products and shape of the kernels' blocks.
    """

    def __init__(self, sam: Sam, launch: Launch) -> None:
        self.decoder, self.prompts, self.launch = sam.mask_decoder, sam.prompt_encoder, launch
        self.form = _FORMS[launch.form]
        self.side = sam.config.embedding_size
        # Tokens of a prompt: IoU, the single mask, which is not asked for, the masks, the point's.
        masks = len(self.decoder.output_hypernetworks_mlps)
        read = [0, *range(2, 1 + masks)]
        self.read = torch.tensor(read, device=sam.device)  # a list would be sent at each call
        self.tokens = 1 + masks + 2  # the point's: its place, and what says that no box follows
        layers = self.decoder.transformer.layers
        self.folding = [Folding.of(layer.norm4) for layer in layers]
        self.positions = self.prompts.dense_positions().flatten(1).T.contiguous()  # (P, C)
        self.norms = [self._norm(folding) for folding in self.folding]
        self.upscaling = self._prepare_upscaling()

    @torch.inference_mode()
    def decode(
        self, embeddings: Tensor, points: Tensor, asked: Tensor, threshold: float, slots: int
    ) -> FoundMasks:
        """Masks at points.

        Args:
            embeddings: (B, C, h, w) float32.
            points: (B, N, 2) x, y in pixels of the network's input.
            asked: (B, N) bool, which of them are points at all.
            threshold: of the predicted IoU; 0 or less keeps all.
            slots: of an image, for its masks.
        """
        images, count = points.shape[:2]
        device = embeddings.device
        tile = torch.arange(images, dtype=torch.int32, device=device)[:, None]
        tile = torch.where(asked, tile, -1).flatten().contiguous()
        with self._on(device):
            tiles, keys, values, unscale = self._share(embeddings)
            of_point = unscale.repeat_interleave(count)
            layers, mask_tokens, predicted_iou = self._transform(
                tiles, tile, keys, values, points.flatten(0, 1), of_point
            )
            passed = asked.flatten()[:, None] & (
                predicted_iou > threshold if threshold > 0 else torch.ones_like(predicted_iou) > 0
            )  # (B · N, 3)
            finite = embeddings.flatten(1).isfinite().all(1) & (
                (predicted_iou.isfinite().all(1) | ~asked.flatten())
                .unflatten(0, (images, -1))
                .all(1)
            )
            ordered = passed.view(images, -1)  # (B, 3 N)
            rank = ordered.cumsum(1) - 1
            kept = ordered & (rank < slots)
            at = torch.where(kept, rank, slots)  # one slot more for all that are not
            where = torch.where(
                kept, rank + slots * torch.arange(images, device=device)[:, None], -1
            )
            where = where.view(-1, passed.shape[1]).int()
            logits = embeddings.new_empty(images * slots, 4 * self.side, 4 * self.side)
            self._upscale(tiles, tile, layers, mask_tokens, where.contiguous(), logits)
        number = torch.arange(count, device=device).repeat_interleave(passed.shape[1])
        return FoundMasks(
            logits=logits.unflatten(0, (images, slots)),
            predicted_iou=_slotted(predicted_iou.view(images, -1), at, slots),
            point=_slotted(number.expand(images, -1), at, slots),
            count=ordered.sum(1),
            finite=finite,
        )

    def _on(self, device: torch.device) -> AbstractContextManager:
        """Kernels go to the current device."""
        return torch.cuda.device(device) if device.type == "cuda" else nullcontext()

    def _perceive(self, layer: TwoWayBlock, tokens: Tensor) -> Tensor:
        """The layer's feed-forward part: most of the work on tokens, the rest of which is float32.

        Rounding its products costs nothing that shows; rounding the others trebles the error.
        """
        if self.form.exact:
            return layer.norm3(tokens + layer.mlp(tokens))
        with torch.autocast(tokens.device.type, self.form.dtype):
            change = layer.mlp(tokens)
        return layer.norm3(tokens + change)

    def _share(self, embeddings: Tensor) -> tuple[Tiles, Tensor, Tensor, Tensor]:
        """What the points of each image share: rows of it, keys and values (B, H, P, d) of the
        first layer's look, and what takes the scale of the queries away (B,).
        """
        tokens = (embeddings.float() + self.prompts.no_mask()).flatten(2).mT  # (B, P, C)
        placed = tokens + self.positions
        first = self.decoder.transformer.layers[0]
        look, mark = first.cross_attn_token_to_image, first.cross_attn_image_to_token
        keys, values = look.k_proj(placed), look.v_proj(tokens)
        # Softmax over pixels does not see what all of them share: smaller keys round less.
        keys = keys - keys.mean(1, keepdim=True)
        rows, unscale = self.form.rows(mark.q_proj(placed))
        image = tokens - tokens.mean(-1, keepdim=True)
        tiles = Tiles(rows.contiguous(), self._stored(image).contiguous())
        return tiles, by_head(keys, look.heads), by_head(values, look.heads), unscale

    def _stored(self, values: Tensor) -> Tensor:
        """What is no operand of a product: float32 if exact."""
        return values.float() if self.form.exact else values.to(self.form.dtype)

    def _transform(
        self,
        tiles: Tiles,
        tile: Tensor,
        keys: Tensor,
        values: Tensor,
        xy: Tensor,
        of_queries: Tensor,
    ) -> tuple[list[tuple[Layer, Norm]], Tensor, Tensor]:
        """Points (N, 2) through the transformer: rows of its layers, mask tokens (N, 3, C) and
        predicted IoU (N, 3), float32.
        """
        device, transformer = xy.device, self.decoder.transformer
        one, two = transformer.layers
        labels = torch.ones(len(xy), 1, dtype=torch.int64, device=device)
        prompt = self.decoder.with_output_tokens(self.prompts.points(xy[:, None], labels))
        tokens = one.attend_to_tokens(prompt[None], prompt[None])[0]
        seen = self._look_at_shared(one.cross_attn_token_to_image, tokens + prompt, keys, values)
        tokens = self._perceive(one, one.norm2(tokens + seen))
        layers = [(self._first_rows(tokens, tokens + prompt, of_queries), self.norms[0])]
        tokens = two.attend_to_tokens(tokens[None], prompt[None])[0]
        look = two.cross_attn_token_to_image
        seen = self._look(tiles, tile, layers, look, tokens + prompt)
        tokens = self._perceive(two, two.norm2(tokens + seen))
        layers.append((self._second_rows(tokens, tokens + prompt), self.norms[1]))
        tokens, prompt = tokens[:, self.read], prompt[:, self.read]
        look = transformer.final_attn_token_to_image
        seen = self._look(tiles, tile, layers, look, tokens + prompt)
        tokens = transformer.norm_final_attn(tokens + seen)
        predicted_iou = self.decoder.iou_prediction_head(tokens[:, 0])[:, 1:].contiguous()
        return layers, tokens[:, 1:], predicted_iou

    def _look_at_shared(
        self, look: Attention, asking: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """Tokens (B · N, T, C) to image, whose keys and values (B, H, P, d) its points share."""
        images, tokens = len(keys), asking.shape[1]
        query = by_head(look.q_proj(asking).unflatten(0, (images, -1)).flatten(1, 2), look.heads)
        keys, values, query = (self._stored(array) for array in (keys, values, query))
        seen = F.scaled_dot_product_attention(query, keys, values).float()  # (B, H, N · T, d)
        seen = seen.transpose(1, 2).flatten(2).unflatten(1, (-1, tokens)).flatten(0, 1)
        return look.out_proj(seen)

    def _first_rows(self, tokens: Tensor, placed: Tensor, of_queries: Tensor) -> Layer:
        """First layer, image to tokens (N, T, C); of_queries: what takes their scale away."""
        mark = self.decoder.transformer.layers[0].cross_attn_image_to_token
        own = without_mean(scaled_heads(mark.k_proj, placed, mark.heads))
        keys, of_keys = self.form.rows(own_columns(own))
        rows = value_rows(mark, tokens)
        rows = rows - rows.mean(-1, keepdim=True)
        values, of_values = self.form.rows(padded(rows))
        return Layer(keys, values, None, (of_keys * of_queries, of_values / _WEIGHTS))

    def _second_rows(self, tokens: Tensor, placed: Tensor) -> Layer:
        """Second layer, image to tokens (N, T, C)."""
        mark = self.decoder.transformer.layers[1].cross_attn_image_to_token
        before = self.folding[0]
        own = without_mean(scaled_heads(mark.k_proj, placed, mark.heads))
        rows = absorbed(own, mark.q_proj)
        asked = mark.q_proj.bias.float().unflatten(0, (mark.heads, -1))  # (H, d)
        bias = (own * asked[:, None]).sum(-1) + before.constant(rows)
        keys, of_keys = self.form.rows(padded(before.rows(rows)))
        rows = value_rows(mark, tokens)
        if before.folded:
            rows = rows + before.bias / mark.heads
        values, of_values = self.form.rows(padded(rows))
        unscale = of_keys / self.norms[0].scale, of_values / _WEIGHTS
        return Layer(keys, values, padded(bias, float("-inf")), unscale)

    def _look(
        self,
        tiles: Tiles,
        tile: Tensor,
        layers: list[tuple[Layer, Norm]],
        look: Attention,
        asking: Tensor,
    ) -> Tensor:
        """What tokens (N, t, C) see in the image after these layers, (N, t, C)."""
        folding, norm = self.folding[len(layers) - 1], layers[-1][1]
        rows = absorbed(scaled_heads(look.q_proj, asking, look.heads), look.k_proj)
        rows = folding.rows(rows).flatten(1, 2)  # a head's together
        own = rows.shape[1]
        rows = F.pad(rows, (0, 0, 0, max(16, 1 << (own - 1).bit_length()) - own))
        operands, unscale = self.form.rows(rows)
        channels = rows.shape[2]
        found = self._stored(rows.new_empty(len(rows), channels, rows.shape[1]))
        kernels.look_through(
            self.launch,
            tiles,
            tile,
            layers,
            Look(operands, unscale / norm.scale),
            self.tokens,
            found,
        )
        found = folding.whole(found[..., :own].mT.float())  # (N, H · t, C)
        means = found.unflatten(1, (look.heads, -1))
        weight = look.v_proj.weight.unflatten(0, (look.heads, -1))  # (H, d, C)
        seen = (means @ weight.mT).transpose(1, 2).flatten(2) + look.v_proj.bias
        return look.out_proj(seen)

    def _upscale(
        self,
        tiles: Tiles,
        tile: Tensor,
        layers: list[tuple[Layer, Norm]],
        mask_tokens: Tensor,
        slots: Tensor,
        logits: Tensor,
    ) -> None:
        """Fill slots of ``logits`` with the masks of points (N, 3, C) that have one, (N, 3)."""
        device = slots.device
        mlps = self.decoder.output_hypernetworks_mlps[1:]
        each = [mlp(mask_tokens[:, index]) for index, mlp in enumerate(mlps)]
        vectors, unscale = self.form.rows(blocks_of_masks(torch.stack(each, dim=2)))
        hyper = vectors, unscale / self.upscaling.scales[2]
        wanted = (slots >= 0).any(1)
        many = len(wanted)
        to = torch.where(wanted, wanted.cumsum(0) - 1, many)
        points = torch.zeros(many + 1, dtype=torch.int32, device=device)
        points.scatter_(0, to, torch.arange(many, dtype=torch.int32, device=device))
        chosen = Chosen(points, wanted.sum(dtype=torch.int32)[None])
        at_once = min(STORED_POINTS, many)
        pixels, channels = tiles.image.shape[1:]
        image = tiles.image.new_empty(at_once, pixels, channels)
        for first in range(0, many, at_once):
            kernels.store_tokens(
                self.launch, tiles, tile, layers, self.tokens, chosen, first, image
            )
            kernels.mask_logits(
                self.launch, image, self.upscaling, hyper, slots, chosen, first, logits
            )

    def _norm(self, folding: Folding) -> Norm:
        places = folding.places(self.positions)
        scale = 1.0
        if self.form.exact:
            scale = power_below(max(folding.bound(), float(places.abs().max())))
        return Norm(
            weight=folding.weight,
            bias=folding.bias,
            folded=folding.folded,
            places=self.form.table(places, scale).contiguous(),
            scale=scale,
            epsilon=folding.epsilon,
        )

    def _prepare_upscaling(self) -> Upscaling:
        modules: Any = self.decoder.output_upscaling
        first, norm, _, second, _ = modules
        folding, last = self.folding[-1], self.norms[-1]
        # (places, in, out); the norm behind it does not see a mean over what goes out
        one = first.weight.detach().float().permute(2, 3, 0, 1).flatten(0, 1)
        bias = first.bias.detach().float().expand(4, -1)
        if folding.folded:
            bias = bias + folding.bias @ one
            one = folding.weight[:, None] * one
        one, bias = (value - value.mean(-1, keepdim=True) for value in (one, bias))
        two = second.weight.detach().float().permute(0, 2, 3, 1).flatten(1)  # (in, place, out)
        second_bias = second.bias.detach().float().repeat(4)
        weight, shift = norm.weight.detach().float(), norm.bias.detach().float()
        scales = [1.0] * 5
        of_one = of_two = 1.0
        if self.form.exact:
            # No activation is greater than what goes into it, and those by Cauchy and Schwarz.
            into = len(weight) ** 0.5 * weight.abs() + shift.abs()
            out = float((into @ two.abs() + second_bias.abs()).max())
            of_one, of_two = (power_below(float(value.abs().max())) for value in (one, two))
            scales = [last.scale, power_below(float(into.max())), power_below(out)]
            scales += [1 / (scales[0] * of_one), 1 / (scales[1] * of_two)]
        pairs = [self.form.table(one[place], of_one) for place in range(4)]
        if self.form.exact:  # halves of all places, then what is missing of all
            halves = torch.stack(pairs).unflatten(1, (2, -1)).transpose(0, 1)
            whole = halves.flatten(0, 1)
        else:
            whole = torch.stack(pairs)
        return Upscaling(
            first=whole.contiguous(),
            second=self.form.table(two, of_two).contiguous(),
            biases=torch.cat([bias.flatten(), weight, shift, second_bias]),
            epsilon=norm.eps,
            scales=(scales[0], scales[1], scales[2], scales[3], scales[4]),
        )


_WEIGHTS = 2.0**15  # the scale of softmax's results as operands in the kernels


def _slotted(values: Tensor, at: Tensor, slots: int) -> Tensor:
    """Values (B, M) to their slots (B, slots), those at ``slots`` to none."""
    return values.new_zeros(len(values), slots + 1).scatter_(1, at, values)[:, :slots]
