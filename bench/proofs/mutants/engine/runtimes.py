"""Wrong changes of engine/runtimes and of the encoder prepared for a GPU."""

from alps.bench.proofs.mutants import changes_of

GRAPHS = ("tests/engine/runtimes/test_graphs.py",)
GPU_ENCODER = ("tests/engine/runtimes/test_gpu_encoder.py",)
ENCODER = ("tests/kernels/test_encoder.py",)

MUTANTS = [
    *changes_of(
        "engine/runtimes/gpu/graphs.py",
        GRAPHS,
        (
            "found = self._steps.keep(captured.output)",
            "found = captured.output",
            "the next batch overwrites the embeddings of the last",
        ),
        (
            "            stream.wait_event(captured.done)\n",
            "",
            "another stream overwrites what was not read yet",
        ),
        ('"thread_local"', '"global"', "a capture is broken by what other threads do"),
        (
            "            if is_out_of_memory(error):\n                raise\n",
            "",
            "out of memory is taken for a graph that cannot be",
        ),
    ),
    *changes_of(
        "engine/runtimes/gpu/packed.py",
        GPU_ENCODER,
        (
            "if rows_first(part.pixels.shape, *wanted)",
            "if not rows_first(part.pixels.shape, *wanted)",
            "axes are resized in the other order",
        ),
        ("(old, new) not in self.tables", "True", "a table travels once an image"),
    ),
    *changes_of(
        "engine/runtimes/gpu/encoder.py",
        GPU_ENCODER,
        ("if off <= FORGIVEN[precision]:", "if True:", "kernels that compute nonsense are used"),
    ),
    *changes_of(
        "engine/sam/fused_encoder.py",
        ENCODER,
        ("math.log2(math.e) / root", "1 / root", "logits to base e are taken to base 2"),
        (
            "order = Order(grid, from_windows=windowed)",
            "order = Order(grid)",
            "what windows found goes to other tokens",
        ),
    ),
]
