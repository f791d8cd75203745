"""Wrong changes of kernels/: CPU versions, references, and those of a GPU in the simulator."""

from alps.bench.proofs.mutants import Mutant

MUTANTS = [
    Mutant(
        "kernels/superpixels/cpu.py",
        old="if distance < best:",
        new="if distance <= best:",
        tests=("tests/kernels/test_superpixels.py",),
        why="of seeds equally near the last is taken",
    ),
]
