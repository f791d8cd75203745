"""SAM's image encoder on a CPU in float32: the same numbers as ``ImageEncoder`` to rounding.

Some tokens at a time go through a block's linear layers on one thread, and what lies between two
products is done while it is in the cache, in place. PyTorch writes an array for each step, 50 MB
for a hidden layer of ViT-B, and pages each in anew; and products of one thread, several at a time,
are as fast as one of several. They are of the same tokens on any number of threads, so no bit of
what blocks give depends on it; PyTorch's convolutions before and after them may round otherwise.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from alps.engine.base.device import on_one_thread
from alps.engine.sam.cpu.rooms import Rooms
from alps.engine.sam.image_encoder import Block, GridAttention, ImageEncoder
from alps.kernels.base.blas import one_blas_thread
from alps.kernels.base.threads import spread
from alps.kernels.encoder.attention import grid_attention
from alps.kernels.encoder.rows import add_and_gelu, add_and_norm

TOKENS = 512  # of a thread at a time: the hidden layer of ViT-B has 6 MB of them


class CompiledEncoder:
    """Runs an image encoder where its weights lie: in float32, on a CPU, without gradients.

    It is for attention with relative positions, which all official models have. Without them
    PyTorch's own attention leaves nothing to gain.
    """

    def __init__(self, encoder: ImageEncoder) -> None:
        self._encoder = encoder

    def __call__(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, S, S), normalised -> embedding (B, C, h, w)."""
        encoder = self._encoder
        # A convolution may leave channels apart in memory.
        grid = (encoder.patch_embed(pixels) + encoder.pos_embed).contiguous()
        shape = grid.shape
        tokens = grid.view(-1, shape[-1])
        before = torch.get_num_threads()
        try:
            with one_blas_thread():
                _through_blocks(encoder, tokens, shape[:3])
        finally:
            torch.set_num_threads(before)
        return encoder.neck(tokens.view(shape).permute(0, 3, 1, 2))


def _through_blocks(encoder: ImageEncoder, tokens: Tensor, grid: torch.Size) -> None:
    """Tokens (B·h·w, width) through all blocks, in place; grid: B, h, w."""
    count, width = tokens.shape
    qkv = tokens.new_empty(count, 3 * width)
    rooms = Rooms()
    attended: Tensor | None = None
    before: Block | None = None
    for block in [*encoder.blocks, None]:
        _in_pieces(_Step(tokens, before, attended, block, qkv, rooms), count)
        if block is not None:
            attended = _attend(block, qkv, grid)
        before = block


class _Step:
    """What follows a block's attention, and what precedes the next block's, for some tokens."""

    def __init__(
        self,
        tokens: Tensor,
        before: Block | None,
        attended: Tensor | None,
        after: Block | None,
        qkv: Tensor,
        rooms: Rooms,
    ) -> None:
        self.tokens, self.before, self.attended = tokens, before, attended
        self.after, self.qkv, self.rooms = after, qkv, rooms

    def __call__(self, first: int, last: int) -> None:
        tokens = self.tokens[first:last]
        normed = self.rooms.of("normed", *tokens.shape)
        bias = tokens.new_zeros(tokens.shape[1])
        if self.before is not None:
            assert self.attended is not None
            attention, mlp = self.before.attn, self.before.mlp
            tokens.addmm_(self.attended[first:last], attention.proj.weight.T)
            _norm(tokens, attention.proj.bias, self.before.norm2, normed)
            hidden = self.rooms.of("hidden", len(tokens), mlp.lin1.out_features)
            torch.mm(normed, mlp.lin1.weight.T, out=hidden)
            add_and_gelu(hidden.numpy(), mlp.lin1.bias.numpy())
            tokens.addmm_(hidden, mlp.lin2.weight.T)
            bias = mlp.lin2.bias
        if self.after is None:
            tokens += bias
        else:
            _norm(tokens, bias, self.after.norm1, normed)
            torch.mm(normed, self.after.attn.qkv.weight.T, out=self.qkv[first:last])


def _norm(tokens: Tensor, bias: Tensor, norm: torch.nn.LayerNorm, normed: Tensor) -> None:
    """tokens += bias, in place; normed: layer norm of them."""
    weight, shift = norm.weight.numpy(), norm.bias.numpy()
    add_and_norm(tokens.numpy(), bias.numpy(), weight, shift, norm.eps, normed.numpy())


def _in_pieces(step: Callable[[int, int], None], count: int) -> None:
    @torch.inference_mode()
    def some(first: int, last: int) -> None:
        on_one_thread()
        for start in range(first * TOKENS, min(count, last * TOKENS), TOKENS):
            step(start, min(count, start + TOKENS))

    spread(some, -(-count // TOKENS))


def _attend(block: Block, qkv: Tensor, grid: torch.Size) -> Tensor:
    """Queries, keys and values (B·h·w, 3·width) but for their bias -> (B·h·w, width)."""
    attention: GridAttention = block.attn
    shape = (*grid, 3, attention.heads, -1)
    window = (block.window, block.window) if block.window else (grid[1], grid[2])
    arrays = qkv.view(shape).numpy()
    by_row, by_column = attention.rel_pos_h.numpy(), attention.rel_pos_w.numpy()
    bias = attention.qkv.bias.view(3, attention.heads, -1).numpy()
    return torch.from_numpy(grid_attention(arrays, bias, by_row, by_column, window)).view(
        len(qkv), -1
    )
