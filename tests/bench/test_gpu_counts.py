"""What a tile asks of a GPU, counted on one that is not there."""

import json
import subprocess
import sys

import pytest

SMALL = """
import json
from alps.bench.gpu.counts import count_tile, table
from alps.engine.sam import SamConfig

config = SamConfig(
    image_size=128, encoder_depth=2, encoder_width=32, encoder_heads=2, global_blocks=(1,),
    window_size=4, embedding_channels=32,
)
parts = count_tile(config, "fp32", 2, 16)
print(json.dumps({name: counts.row() for name, counts in parts.items()}))
print("\\n".join(table(parts, 2)))
"""
CARD = """
import json
import numpy as np
import torch
from alps.bench.gpu.fake_card import FakeCard

card = FakeCard.install()
found = {}
with card.counting() as counts:
    a = torch.zeros(4, 8).to("cuda")
    b = torch.empty(8, 5, device="cuda:0")
    c = a @ b
    c[:, 1].view(4, 1)
    c.add_(1)
    int(c.sum())
    assert c.is_cuda and c.device.type == "cuda" and not torch.zeros(2).is_cuda
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        torch.zeros(3, device=c.device).add_(1)
    graph.replay()
    graph.replay()
    torch.nn.functional.scaled_dot_product_attention(*[c.expand(2, 3, 4, 5)] * 3)
    c.expand(100, 4, 5).contiguous()
    c.cpu().numpy()
found["torch"] = vars(counts)
from alps.kernels.base.numba_cuda import cuda

@cuda.jit
def kernel(out):
    out[cuda.grid(1)] = cuda.threadIdx.x

with card.counting() as counts:
    out = cuda.device_array((2, 3), np.float32)
    kernel[1, 2](out[0])
    out.copy_to_host()
found["numba"] = vars(counts)
print(json.dumps(found))
"""


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def test_a_card_that_counts():
    (line,) = run(CARD)
    found = json.loads(line)
    ours = found["torch"]
    assert ours["launches"] == {
        "mm": 1, "add_": 3, "sum": 1, "attention": 1, "clone": 1, "zeros": 2
    }  # fmt: skip
    assert ours["graphs"] == {"replays": 2, "kernels": 4}
    assert ours["waits"] == {"to the card": 1, "a value read": 1, "to the host": 1}
    assert ours["moved"]["up"] == 4 * 8 * 4 and ours["moved"]["down"] == 4 + 4 * 5 * 4
    read_and_written = 4 * (4 * 8 + 8 * 5 + 4 * 5)  # of the product; what is expanded is one
    expected = read_and_written + 4 * 40 + 4 * 21 + 4 * (3 * 20 + 120) + 4 * (20 + 2000)
    expected += 2 * 4 * (3 + 6)  # of the graph
    assert ours["moved"]["memory"] == expected
    assert found["numba"] == {
        "launches": {"kernel": 1},
        "waits": {"Numba: copy_to_host": 1},
        "room": {"driver": 1},
        "moved": {"memory": 12, "down": 24},
        "by_name": {"kernel": 12},
        "graphs": {},
    }


def test_a_tile_is_counted_in_parts():
    first, *lines = run(SMALL)
    parts = json.loads(first)
    assert list(parts) == ["encode", "decode", "after the masks"]
    assert all(row["kernels"] > 0 and row["GB moved in memory"] > 0 for row in parts.values())
    assert len(lines) == 6 and lines[-1].startswith("| a tile | ")
    whole = sum(row["kernels"] for row in parts.values()) / 2
    assert float(lines[-1].split("|")[2]) == pytest.approx(whole, abs=0.06)
