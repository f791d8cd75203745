"""The mask decoder for many points of one image, with its projections moved to the tokens' side.

The same numbers as ``MaskDecoder`` gives, to rounding, for a quarter of the work. A prompt has T
tokens (7 for a point) and 4096 image tokens X, which the plain decoder projects six times a point.
Next to T tokens each projection can be absorbed by them, head by head (h, W_h its d x C slice):

- tokens → image: logits q_h · (W_k,h (x + e) + b_k,h) = (q_h W_k,h) · (x + e) + a constant of the
  row, which softmax over pixels drops. Values: Σ a (W_v,h x + b_v,h) = W_v,h (Σ a x) + b_v,h,
  since softmax rows add up to 1.
- image → tokens: logits (W_q,h (x + e) + b_q,h) · k_h = (W_qᵀ,h k_h) · (x + e) + b_q,h · k_h.
  Values: Σ_h W_o,h Σ_t a v_h,t = Σ_h Σ_t a (W_o,h v_h,t).
- In the first layer X is the image itself, the same for all points: its keys, values and queries
  are computed once (multi-head latent attention absorbs its weights likewise, arXiv 2405.04434).

What remains for each pixel are products with R = heads x T rows. Predicted IoU needs no mask, so
upscaling is left for prompts of which a mask is wanted.

The compiled decoder does not even make the last layer's image tokens. With s and m the scale and
the mean that a norm finds at a pixel, w and b its weight and bias, and a the attention of image to
tokens with rows v, each layer does X' = s w (X + Σ a v - m) + b: after all layers, X, the same for
all points, has one factor, and each row one, and a first convolution W meets w W X once an image
and w W v once a point, some hundred rows where X has 4096.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from alps.engine.sam.cpu.rooms import Rooms
from alps.engine.sam.mask_decoder import Attention, TwoWayBlock
from alps.engine.sam.model import Network
from alps.kernels.decoder import two_way
from alps.kernels.decoder.look import look_at
from alps.kernels.decoder.mask_logits import UpscaledImages, UpscalingWeights, mask_logits
from alps.kernels.decoder.two_way import ImageUpdate, Marks


@dataclass
class SharedImage:
    """What all points of one image share; P image tokens of C channels, H heads of d."""

    tokens: Tensor  # (P, C)
    positions: Tensor  # (P, C)
    keys: Tensor  # (H, P, d) of the first layer's tokens → image
    values: Tensor  # (H, P, d) likewise
    queries: Tensor  # (H·d, P) of the first layer's image → tokens
    # (P, C) the tokens through all norms' weights and the first convolution, if compiled
    upscaled: Tensor | None = field(default=None, kw_only=True)


@dataclass
class DecodedPoints:
    """What the transformer leaves of N points."""

    mask_tokens: Tensor  # (N, M, C), of the M masks that several are asked for
    image_tokens: Tensor  # (N, P, C); (N, 0, C) where what makes them is kept instead
    predicted_iou: Tensor  # (N, M)
    upscaled: Tensor | None = field(default=None, kw_only=True)  # of the image, see there
    marks: Sequence[Marks] = field(default=(), kw_only=True)  # what each layer did to it


class AbsorbedDecoder:
    """Answers points on one image at a time.

    Args:
        sam: whose prompt encoder and mask decoder are run, where their weights lie.
        compiled: run the pixel side in the compiled kernels; they need float32 on a CPU.
    """

    def __init__(self, sam: Network, *, compiled: bool) -> None:
        self.decoder, self.prompts = sam.mask_decoder, sam.prompt_encoder
        self.side = sam.config.embedding_size
        self.compiled = compiled
        # Tokens of a prompt: the decoder's own, IoU, the single mask, which is not asked for, the
        # masks, the point's.
        first, masks = self.decoder.tokens_before, len(self.decoder.output_hypernetworks_mlps)
        self._rooms = Rooms()
        self.read = [first, *range(first + 2, first + 1 + masks)]

    def share(self, embedding: Tensor) -> SharedImage:
        """Prepare an image embedding (C, h, w)."""
        tokens = (embedding + self.prompts.no_mask()).flatten(1).T.contiguous()
        positions = self.prompts.dense_positions().flatten(1).T.contiguous()
        placed = tokens + positions
        first = self.decoder.transformer.layers[0]
        look, mark = first.cross_attn_token_to_image, first.cross_attn_image_to_token
        return SharedImage(
            tokens=tokens,
            positions=positions,
            keys=_heads(look.k_proj(placed), look.heads).contiguous(),
            values=_heads(look.v_proj(tokens), look.heads).contiguous(),
            queries=mark.q_proj(placed).T.contiguous(),
            upscaled=tokens @ self._through_norms[0] if self.compiled else None,
        )

    def transform(self, image: SharedImage, xy: Tensor) -> DecodedPoints:
        """Run the two-way transformer for points (N, 2), x and y in input pixels."""
        labels = torch.ones(xy.shape[0], 1, dtype=torch.int64, device=xy.device)
        prompt = self.decoder.with_output_tokens(self.prompts.points(xy[:, None], labels))
        transformer = self.decoder.transformer
        layers = transformer.layers
        looks = [layer.cross_attn_token_to_image for layer in layers[1:]]
        looks.append(transformer.final_attn_token_to_image)

        tokens = _attend_to_tokens(layers[0], prompt, prompt)
        first = layers[0].cross_attn_token_to_image
        seen = _look_at_shared(first, tokens + prompt, image, compiled=self.compiled)
        own, marks = image.tokens[None], []
        for index, (layer, look) in enumerate(zip(layers, looks, strict=True)):
            tokens = layer.norm2(tokens + seen)
            tokens = layer.norm3(tokens + layer.mlp(tokens))
            mark = layer.cross_attn_image_to_token
            queries = image.queries if index == 0 else None
            rows, bias = _logit_rows(mark, tokens + prompt, shared_queries=index == 0)
            values = _value_rows(mark, tokens)
            if index + 1 < len(layers):
                tokens = _attend_to_tokens(layers[index + 1], tokens, prompt)
            else:  # only these are read: the IoU token and the tokens of several masks
                tokens, prompt = tokens[:, self.read], prompt[:, self.read]
            own, found, marked = self._update_image(
                own,
                image.positions,
                queries,
                f"image {index % 2}" if index + 1 < len(layers) else None,
                ImageUpdate(
                    tokens=values.shape[1] // mark.heads,
                    logit_rows=rows,
                    logit_bias=bias,
                    value_rows=values,
                    value_bias=mark.out_proj.bias,
                    norm_weight=layer.norm4.weight,
                    norm_bias=layer.norm4.bias,
                    norm_epsilon=layer.norm4.eps,
                    look_rows=_look_rows(look, tokens + prompt),
                ),
            )
            marks += marked
            seen = _seen(look, found)
        tokens = transformer.norm_final_attn(tokens + seen)
        return DecodedPoints(
            mask_tokens=tokens[:, 1:],
            image_tokens=own,
            predicted_iou=self.decoder.iou_prediction_head(tokens[:, 0])[:, 1:],
            upscaled=image.upscaled,
            marks=marks,
        )

    def masks(self, decoded: DecodedPoints, point: Tensor, output: Tensor) -> Tensor:
        """Logits (S, 4h, 4w) of S masks.

        Args:
            decoded: N points.
            point: (S,) int64 ascending, into them.
            output: (S,) int64, which of the M masks of that point.
        """
        if self.compiled:
            weights = self._upscaling_of(decoded)
            hyper = decoded.mask_tokens.new_empty(len(point), weights.second.shape[1] // 4)
            for index, mlp in enumerate(self.decoder.output_hypernetworks_mlps[1:]):
                own = output == index
                hyper[own] = mlp(decoded.mask_tokens[point[own], index])
            logits = mask_logits(
                self._upscaled(decoded, point.unique_consecutive()),
                point.numpy(),
                hyper.numpy(),
                weights,
                (self.side, self.side),
            )
            return torch.from_numpy(logits)
        prompts, row = point.unique_consecutive(return_inverse=True)
        return self._all_masks(decoded, prompts)[row, output]

    def _all_masks(self, decoded: DecodedPoints, prompts: Tensor) -> Tensor:
        """Logits (U, M, 4h, 4w) of all masks of U points: what a GPU computes.

        Kernels of 2 x 2 with stride 2 do not overlap, so the transposed convolutions are products,
        pixel by pixel, without turning the tokens into an image; the places of a patch are put
        in order last, when a mask has one number there. Three masks from one read of what they
        share cost less than one each.
        """
        weights = self._upscaling_of(decoded)
        patches = _product(decoded.image_tokens[prompts], weights.first, weights.first_bias)
        patches = patches.unflatten(2, (4, -1))  # (U, P, 4, C / 4)
        patches = F.layer_norm(
            patches,
            patches.shape[-1:],
            weights.norm_weight,
            weights.norm_bias,
            weights.norm_epsilon,
        )
        patches = F.gelu(patches).flatten(1, 2)  # (U, 4 P, C / 4)
        patches = F.gelu(_product(patches, weights.second, weights.second_bias))
        patches = patches.unflatten(2, (4, -1)).flatten(1, 2)  # (U, 16 P, C / 8)
        tokens = decoded.mask_tokens[prompts]
        mlps = self.decoder.output_hypernetworks_mlps[1:]
        hyper = torch.stack([mlp(tokens[:, index]) for index, mlp in enumerate(mlps)], dim=2)
        places = (patches @ hyper).unflatten(1, (self.side, self.side, 2, 2, 2, 2))
        return places.permute(0, 7, 1, 3, 5, 2, 4, 6).flatten(5, 7).flatten(2, 4)

    def _upscaled(self, decoded: DecodedPoints, points: Tensor) -> UpscaledImages:
        """Image tokens of some points (U,) behind the first convolution, see there."""
        assert decoded.upscaled is not None
        last: Any = self.decoder.transformer.layers[-1]
        bias = last.norm4.bias @ self._through_norms[-1]
        rows = [bias.expand(len(points), 1, -1)]
        for index, mark in reversed(list(enumerate(decoded.marks))):
            matrix = self._through_norms[index]
            constant = torch.from_numpy(mark.value_bias)[points]
            if index:
                constant = constant + self.decoder.transformer.layers[index - 1].norm4.bias
            rows += [
                (constant @ matrix)[:, None],
                -matrix.sum(0).expand(len(points), 1, -1),
                torch.from_numpy(mark.value_rows)[points] @ matrix,
            ]
        upscaled = decoded.upscaled.numpy()
        return UpscaledImages(upscaled, torch.cat(rows, dim=1).numpy(), decoded.marks)

    @cached_property
    def _through_norms(self) -> list[Tensor]:
        """The first convolution (C, 4 x C1) behind the norms' weights from each layer on; bare, and
        without each place's mean over C1, which the norm behind it takes away.
        """
        layers: Any = self.decoder.output_upscaling
        places = layers[0].weight.detach().permute(0, 2, 3, 1).flatten(1, 2)
        matrices = [(places - places.mean(2, keepdim=True)).flatten(1).contiguous()]
        for layer in reversed(list(self.decoder.transformer.layers)):
            matrices.append(layer.norm4.weight.detach()[:, None] * matrices[-1])
        return matrices[::-1]

    def _update_image(
        self,
        image: Tensor,
        positions: Tensor,
        queries: Tensor | None,
        room: str | None,
        update: ImageUpdate[Tensor],
    ) -> tuple[Tensor, Tensor, list[Marks]]:
        """Image (1 or N, P, C) -> image' (N, P, C) and what was looked for (N, R, C).

        The compiled decoder tells what was done, and makes image' only in a room: until something
        else is made there.
        """
        if not self.compiled:
            return *update_image(image, positions, queries, update), []
        arrays: dict[str, Any] = {
            name: np.ascontiguousarray(value.numpy()) if isinstance(value, Tensor) else value
            for name, value in vars(update).items()
        }
        shape = (len(update.logit_rows), *positions.shape)
        out, looked, marks = two_way.update_image(
            image.numpy(),
            positions.numpy(),
            None if queries is None else queries.numpy(),
            ImageUpdate(**arrays),
            keep=room is not None,
            room=self._rooms.of(room, *shape).numpy() if room else None,
        )
        return torch.from_numpy(out), torch.from_numpy(looked), [marks]

    def _upscaling_of(self, decoded: DecodedPoints) -> UpscalingWeights[Any]:
        """The upscaling that these points' image takes; the same for all where nothing skips."""
        return self._upscaling

    @cached_property
    def _upscaling(self) -> UpscalingWeights[Any]:
        """The two transposed convolutions as matrices (in, place x out), of NumPy if compiled."""
        layers: Any = self.decoder.output_upscaling
        first, norm, _, second, _ = layers
        matrices = [
            conv.weight.permute(0, 2, 3, 1).flatten(1).contiguous().detach()
            for conv in (first, second)
        ]
        weights = UpscalingWeights(
            first=matrices[0],
            first_bias=first.bias.detach().repeat(4),
            norm_weight=norm.weight.detach(),
            norm_bias=norm.bias.detach(),
            norm_epsilon=norm.eps,
            second=matrices[1],
            second_bias=second.bias.detach().repeat(4),
        )
        if not self.compiled:
            return weights
        arrays: dict[str, Any] = {
            name: value.numpy() if isinstance(value, Tensor) else value
            for name, value in vars(weights).items()
        }
        return UpscalingWeights(**arrays)


def update_image(
    image: Tensor, positions: Tensor, queries: Tensor | None, update: ImageUpdate[Tensor]
) -> tuple[Tensor, Tensor]:
    """The kernel ``two_way.update_image`` in PyTorch: its reference, and what a GPU runs."""
    prompts = update.logit_rows.shape[0]  # len() would fix the number in an exported graph
    keys = update.logit_rows.unflatten(1, (-1, update.tokens))  # (N, H, T, …)
    if queries is None:
        logits = (keys.flatten(1, 2) @ (image + positions).mT).unflatten(1, keys.shape[1:3])
    else:
        by_head = queries.unflatten(0, (-1, keys.shape[-1]))  # (H, d, P)
        logits = keys.transpose(0, 1).flatten(1, 2) @ by_head  # (H, N·T, P)
        logits = logits.unflatten(1, (prompts, -1)).transpose(0, 1)
    logits = logits + update.logit_bias.unflatten(1, keys.shape[1:3])[..., None]
    weights = logits.softmax(2).flatten(1, 2)  # (N, R, P)
    updated = torch.baddbmm(
        (image + update.value_bias).expand(prompts, -1, -1), weights.mT, update.value_rows
    )
    updated = F.layer_norm(
        updated, updated.shape[-1:], update.norm_weight, update.norm_bias, update.norm_epsilon
    )
    found = (update.look_rows @ (updated + positions).mT).softmax(-1) @ updated
    return updated, found


def _product(values: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
    """(N, rows, in) times (in, out), plus a bias (out,), or one for each row (rows, out)."""
    if bias.dim() == 1:
        return F.linear(values, matrix.T, bias)
    return values @ matrix + bias


def _heads(tokens: Tensor, heads: int) -> Tensor:
    """(…, L, H·d) -> (…, H, L, d)."""
    return tokens.unflatten(-1, (heads, -1)).transpose(-2, -3)


def _times(by_head: Tensor, weight: Tensor) -> Tensor:
    """(N, H, T, a) times each head's (a, b) of (H, a, b): one product a head, of N·T rows."""
    rows = by_head.transpose(0, 1)
    return (rows.flatten(1, 2) @ weight).unflatten(1, rows.shape[1:3]).transpose(0, 1)


def _rows(by_head: Tensor) -> Tensor:
    """(N, H, T, c) -> (N, H·T, c), the rows of a head together."""
    return by_head.flatten(1, 2)


def _attend_to_tokens(layer: TwoWayBlock, tokens: Tensor, prompt: Tensor) -> Tensor:
    """The block's first step for prompts of one image, (N, T, C)."""
    return layer.attend_to_tokens(tokens[None], prompt[None])[0]


def _look_at_shared(
    look: Attention, asking: Tensor, image: SharedImage, *, compiled: bool
) -> Tensor:
    """Tokens (N, T, C) → image whose keys and values (H, P, d) all prompts share."""
    query = _heads(look.q_proj(asking), look.heads)  # (N, H, T, d)
    count, _, tokens, width = query.shape
    query = query.transpose(0, 1).flatten(1, 2) * width**-0.5  # (H, N·T, d)
    if compiled:
        arrays = (query, image.keys, image.values)
        seen = torch.from_numpy(look_at(*(array.numpy() for array in arrays)))
    else:
        seen = (query @ image.keys.mT).softmax(-1) @ image.values
    return look.out_proj(seen.unflatten(1, (count, tokens)).permute(1, 2, 0, 3).flatten(2))


def _look_rows(look: Attention, asking: Tensor) -> Tensor:
    """Tokens (N, t, C) → image: rows (N, L, C) that meet image + positions."""
    query = _heads(look.q_proj(asking), look.heads)  # (N, H, T, d)
    weight = look.k_proj.weight.unflatten(0, (look.heads, -1))  # (H, d, C)
    return _rows(_times(query * query.shape[-1] ** -0.5, weight))


def _seen(look: Attention, found: Tensor) -> Tensor:
    """Mean image tokens of each row (N, L, C) -> what the attention gives the tokens (N, T, C)."""
    by_head = found.unflatten(1, (look.heads, -1))  # (N, H, T, C)
    weight = look.v_proj.weight.unflatten(0, (look.heads, -1))  # (H, d, C)
    seen = _times(by_head, weight.mT).transpose(1, 2).flatten(2) + look.v_proj.bias
    return look.out_proj(seen)


def _logit_rows(mark: Attention, keys_of: Tensor, shared_queries: bool) -> tuple[Tensor, Tensor]:
    """Image → tokens (N, T, C): rows that meet a pixel's query, and their bias (N, R).

    With queries computed beforehand they are the keys (N, R, d), each for its head's part of the
    query; else the query's projection is absorbed: (N, R, C).
    """
    key = _heads(mark.k_proj(keys_of), mark.heads)  # (N, H, T, d)
    key = key * key.shape[-1] ** -0.5
    if shared_queries:
        return _rows(key), key.new_zeros(key.shape[0], key.shape[1] * key.shape[2])
    weight = mark.q_proj.weight.unflatten(0, (mark.heads, -1))  # (H, d, C)
    bias = mark.q_proj.bias.unflatten(0, (mark.heads, -1))  # (H, d)
    return _rows(_times(key, weight)), _rows(_times(key, bias[:, :, None]))[..., 0]


def _value_rows(mark: Attention, values_of: Tensor) -> Tensor:
    """Image → tokens (N, T, C): rows (N, R, C) whose weighted sum is the attention's output."""
    value = _heads(mark.v_proj(values_of), mark.heads)  # (N, H, T, d)
    weight = mark.out_proj.weight.unflatten(1, (mark.heads, -1)).permute(1, 2, 0)  # (H, d, C)
    return _rows(_times(value, weight))
