"""The network: is it right in every precision, and how long does each part take."""

from functools import partial
from typing import Any

from alps.bench.gpu.checks.context import Context, largest_error
from alps.bench.gpu.prediction import predicted_ms

PRECISIONS = ("fp32", "fp16", "bf16")
POINTS = 8  # of which the errors are looked at
PER_SIDE = 32


def _pixels(context: Context, sam: Any, images: int) -> Any:
    import torch

    side = sam.config.image_size
    generator = torch.Generator().manual_seed(1)
    return torch.randn(images, 3, side, side, generator=generator).to(context.device)


def _points(sam: Any, per_side: int) -> Any:
    import torch

    place = (torch.arange(per_side) + 0.5) / per_side * sam.config.image_size
    return torch.cartesian_prod(place, place)


def right(context: Context) -> None:
    """Errors against float64 on a CPU, beside PyTorch's own; twice the same bits."""
    context.need_values()
    import torch

    from alps.engine.runtimes.pytorch import TorchRuntime
    from alps.engine.sam.absorbed import AbsorbedDecoder

    sam = context.sam("tiny")
    pixels, points = _pixels(context, sam, 1), _points(sam, 32)[:: 1024 // POINTS]
    exact = context.sam("tiny").cpu().double()
    with torch.inference_mode():
        embedding = exact.encode(pixels.cpu().double())[0]
        decoder = AbsorbedDecoder(exact, compiled=False)
        decoded = decoder.transform(decoder.share(embedding), points.double())
        output = torch.arange(3).repeat(len(points))
        logits = decoder.masks(decoded, torch.arange(len(points)).repeat_interleave(3), output)
    truth = {"embedding": embedding, "predicted IoU": decoded.predicted_iou.flatten(),
             "logits": logits}  # fmt: skip
    own = embedding.float().to(context.device)

    def answers(runtime: TorchRuntime) -> dict[str, Any]:
        parts = list(runtime.decode(own, points, 0.0, len(points)))
        return {
            "embedding": runtime.encode(pixels)[0],
            "predicted IoU": torch.cat([part.predicted_iou for part in parts]),
            "logits": torch.cat([part.logits for part in parts]),
        }

    def look(precision: str, decoder: str) -> None:
        runtime = TorchRuntime(sam, precision=precision, decoder=decoder)
        poisoned = torch.full((1 << (16 if context.small else 28),), float("nan"),
                              device=context.device)  # fmt: skip
        del poisoned  # the pool hands this memory out next
        found, again = answers(runtime), answers(runtime)
        for name, value in found.items():
            note = "" if torch.equal(value, again[name]) else "not the same bits twice"
            context.add(f"{precision}, {decoder}: {name}", largest_error(value, truth[name]),
                        "error to float64", note)  # fmt: skip

    for precision in PRECISIONS:
        for form in ("auto", "absorbed"):
            context.tried(f"{precision}, {form}", partial(look, precision, form))


def speed(context: Context) -> None:
    """Encoder and decoder of official shapes: a batch of one, four and eight, both forms."""
    for name in (
        ("vit_b",) if context.small or context.kind == "fake" else ("vit_b", "vit_l", "vit_h")
    ):
        for precision in ("fp16",) if context.small else PRECISIONS:
            context.tried(f"{name}, {precision}", partial(_time, context, name, precision))


def _time(context: Context, name: str, precision: str) -> None:
    import torch

    from alps.engine.runtimes.pytorch import TorchRuntime

    sam = context.sam(name)
    runtime = TorchRuntime(sam, precision=precision)
    expected = predicted_ms(name, precision)
    for images in (1,) if context.small else (1, 4, 8):
        pixels = _pixels(context, sam, images)
        taken = context.milliseconds(lambda: runtime.encode(pixels))  # noqa: B023
        context.add(f"{name}, {precision}: encode, batch of {images}", taken / images, "ms a tile",
                    f"predicted for an H100, of 8: {expected['encode']:.1f}")  # fmt: skip
        if context.on_gpu:
            plain = context.milliseconds(lambda: _plain_encode(sam, precision, pixels))  # noqa: B023
            note = f"batch of {images}, PyTorch's own kernels"
            context.add(f"{name}, {precision}: encode, {note}", plain / images, "ms a tile")
    embedding = runtime.encode(_pixels(context, sam, 1))[0]
    points = _points(sam, 6 if context.small else PER_SIDE)
    first = next(iter(runtime.decode(embedding, points[:64], 0.0, 64)))
    # As many masks as there are points' halves: what a usual threshold leaves.
    threshold = max(float(torch.as_tensor(first.predicted_iou).float().quantile(0.67)), 1e-6)
    for decoder in ("auto", "absorbed"):
        form = TorchRuntime(sam, precision=precision, decoder=decoder)
        taken = context.milliseconds(
            lambda: list(form.decode(embedding, points, threshold, 64)),  # noqa: B023
            times=5,
        )
        note = f"{len(points)} points; predicted for 1024: {expected['decode']:.1f}"
        context.add(f"{name}, {precision}: decode, {decoder}", taken, "ms a tile", note)


def passes(context: Context) -> None:
    """The decoder's kernels by the shape of their blocks, one tile a launch and eight."""
    import torch

    context.need_gpu()
    from alps.engine.sam.fused import FusedDecoder
    from alps.kernels.base.triton import FP16
    from alps.kernels.decoder.gpu.launch import Blocks, Launch

    sam = context.sam("vit_b")
    config = sam.config
    side, slots = 6 if context.small else PER_SIDE, 1536
    shape = config.embedding_channels, config.embedding_size, config.embedding_size

    def look(blocks: Blocks, images: int) -> None:
        with torch.inference_mode(), context.in_full_float32():
            fused = FusedDecoder(sam, Launch(FP16.value, blocks, blocks))
            embeddings = torch.randn(images, *shape, device=context.device)
            points = _points(sam, side).to(context.device).expand(images, -1, -1)
            asked = torch.ones(points.shape[:2], dtype=torch.bool, device=context.device)
            first = fused.decode(embeddings[:1], points[:1], asked[:1], 0.0, 3 * side**2)
            threshold = max(float(first.predicted_iou.quantile(0.67)), 1e-6)
            del first
            taken = context.milliseconds(
                lambda: fused.decode(embeddings, points, asked, threshold, slots), times=5
            )
        context.add(f"blocks of {blocks.pixels} pixels, {blocks.warps} warps, {images} tile(s)",
                    taken / images, "ms a tile", "fp16, tokens counted")  # fmt: skip

    for pixels, warps in ((128, 8), (128, 4), (64, 8), (64, 4)):
        for images in (1, 8):
            name = f"blocks of {pixels} pixels, {warps} warps, {images} tile(s)"
            context.tried(name, partial(look, Blocks(pixels, warps), images))


def _plain_encode(sam: Any, precision: str, pixels: Any) -> Any:
    import torch

    kinds = {"fp16": torch.float16, "bf16": torch.bfloat16}
    dtype = kinds.get(precision)
    with torch.inference_mode(), torch.autocast("cuda", dtype, enabled=dtype is not None):
        return sam.encode(pixels)


def attention(context: Context) -> None:
    """Global blocks: our kernel beside PyTorch's three."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    images, heads, side, width = (1, 2, 8, 16) if context.small else (8, 12, 64, 64)
    count = side * side
    dtype = torch.float16 if context.on_gpu else torch.float32
    query, key, value = (
        torch.randn(images, heads, count, width, device=context.device, dtype=dtype)
        for _ in range(3)
    )
    flop = 4 * images * heads * count**2 * width

    def rate(name: str, call: Any) -> None:
        taken = context.milliseconds(call)
        context.add(f"attention, {name}", flop / taken / 1e9, "TFLOP/s", f"{taken:.3f} ms")

    for name, backend in (
        ("flash, without offsets", SDPBackend.FLASH_ATTENTION),
        ("cuDNN, without offsets", SDPBackend.CUDNN_ATTENTION),
        ("efficient, without offsets", SDPBackend.EFFICIENT_ATTENTION),
    ):

        def plain(backend: Any = backend, name: str = name) -> None:
            if not context.on_gpu and backend != SDPBackend.FLASH_ATTENTION:
                context.need_gpu()
            with sdpa_kernel(backend):
                rate(name, lambda: scaled_dot_product_attention(query, key, value))

        context.tried(name, plain)

    def own() -> None:
        context.need_gpu()
        from alps.kernels.encoder.gpu.attention import Heads, attend, make_offsets
        from alps.kernels.encoder.gpu.forms import Form

        shape, form = Heads(images, heads, side, side, width), Form("fp16", False)
        qkv = torch.randn(images * count, 3 * heads * width, device=context.device, dtype=dtype)
        table = torch.randn(2 * side - 1, width, device=context.device, dtype=dtype)
        by_row = qkv.new_empty((images * heads, side, count), dtype=torch.float32)
        by_column = qkv.new_empty((images * heads, count, side), dtype=torch.float32)
        out = qkv.new_empty(images * count, heads * width)
        offsets, scale = (by_row, by_column), qkv.new_ones(1, dtype=torch.float32)
        rate("ours, offsets made", lambda: attend(qkv, offsets, scale, out, shape, form))
        taken = context.milliseconds(
            lambda: make_offsets(qkv, table, table, by_row, by_column, shape, form)
        )
        context.add("offsets of all queries", taken, "ms")

    context.tried("ours", own)


def compiled(context: Context) -> None:
    """What each of Triton's kernels takes of this GPU, as compiled here: held beside CI's."""
    import torch

    context.need_gpu()
    from triton.runtime.jit import JITFunction

    from alps.engine.runtimes.pytorch import TorchRuntime

    found: dict[str, Any] = {}
    launch = JITFunction.run

    def noted(self: Any, *arguments: Any, **options: Any) -> Any:
        kernel = launch(self, *arguments, **options)
        if kernel is not None:
            found.setdefault(f"{self.fn.__name__} {getattr(kernel, 'hash', '')[:6]}", kernel)
        return kernel

    JITFunction.run = noted
    try:
        for model in ("tiny",) if context.small else ("tiny", "vit_b", "vit_h"):
            sam = context.sam(model)
            for precision in PRECISIONS:
                runtime = TorchRuntime(sam, precision=precision)
                embedding = runtime.encode(_pixels(context, sam, 1))[0]
                list(runtime.decode(embedding, _points(sam, 4), 0.0, 16))
        torch.cuda.synchronize()
    finally:
        JITFunction.run = launch
    for name, kernel in sorted(found.items()):
        context.add(name, int(getattr(kernel, "n_regs", -1)), "registers",
                    f"{getattr(kernel, 'n_spills', '?')} spilled, "
                    f"{getattr(kernel.metadata, 'shared', '?')} bytes shared")  # fmt: skip
