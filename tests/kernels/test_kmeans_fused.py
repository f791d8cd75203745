"""The pass of k-means in one Triton kernel: in the interpreter, and compiled for GPUs."""

from dataclasses import replace

import numpy as np
import pytest
from interpreted import interpreted, needs_triton

from alps.kernels.kmeans import gpu, reference_assign

pytestmark = needs_triton


@pytest.mark.parametrize(
    ("rows", "clusters", "channels", "weighted"),
    [
        (1, 1, 1, False),
        (70, 3, 5, True),
        (300, 17, 32, True),
        pytest.param(700, 46, 38, False, marks=pytest.mark.slow),
        pytest.param(700, 46, 256, True, marks=pytest.mark.slow),
    ],
)
def test_the_same_as_in_float64(rows, clusters, channels, weighted):
    """Several programs, several rounds, a last tile that is not full."""
    found = interpreted(
        "triton_kmeans",
        "compared",
        rows=rows,
        clusters=clusters,
        channels=channels,
        weighted=weighted,
    )
    assert found["other labels"] == found["counts"] == 0
    assert clusters == 1 or found["apart"] > 0.9
    assert found["nearest"] < 1e-5 and found["second"] < 1e-5 and found["inertia"] < 1e-5
    assert found["sums"] < 1e-6 and found["weights"] < 1e-12
    assert found["endless"] == (clusters == 1)


def test_ties_and_what_is_no_number():
    found = interpreted("triton_kmeans", "special")
    assert found == {
        "labels": [1, 2, 1, 2, 0],
        "nearest": [4, 0, 2, 2, 1],
        "second": [4, 0, 2, 2, 1],
        "on their centroids": True,
        "no number": True,
        "the same": True,
    }


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    ("channels", "weighted"), [(38, True), pytest.param(256, True, marks=pytest.mark.slow)]
)
def test_it_fits_a_gpu(capability, channels, weighted):
    from alps.bench.gpu.clustering import resources
    from alps.bench.gpu.decoder_resources import SHARED

    taken = resources(46, channels, weighted, capability)
    assert taken.shared <= SHARED[capability] // 2  # two programs' worth
    assert taken.registers <= 255 and taken.stack <= 64
    assert taken.tensor_cores == {80: "HMMA", 90: "HGMMA"}[capability]


def test_which_vectors_it_takes(monkeypatch, to_gpu):
    """Of float16, in order, of centroids not too many or far away, on a GPU that is one."""
    rng = np.random.default_rng(0)
    vectors = to_gpu(rng.normal(size=(8, 32)).astype(np.float16))
    centroids = rng.normal(size=(46, 32)).astype(np.float32)
    assert not gpu.is_fused(vectors, centroids)  # the simulator is none
    monkeypatch.setattr(gpu, "usable_gpu", lambda: True)
    vectors.strides = (64, 2)
    assert gpu.is_fused(vectors, centroids)
    assert not gpu.is_fused(vectors, centroids + 100)
    assert not gpu.is_fused(vectors, np.tile(centroids, (12, 1)))
    assert not gpu.is_fused(vectors, rng.normal(size=(4, 2048)).astype(np.float32))
    monkeypatch.setattr(gpu, "triton_missing", lambda: "it is not there")
    assert not gpu.is_fused(vectors, centroids)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (None, None),
        ("raises", "RuntimeError: no such instruction"),
        ("labels", "its labels were off by 1.0e+00"),
        ("sums", "its sums were off by"),
        ("inertia", "its inertia were off by inf"),
    ],
)
def test_a_kernel_that_errs_is_not_taken(monkeypatch, caplog, fault, said, weighted):
    def assigned(vectors, centroids, weights):
        if fault == "raises":
            raise RuntimeError("no such\ninstruction")
        found = reference_assign(gpu.on_host(vectors), centroids, weights)
        change = {"labels": found.labels + 1, "sums": found.sums * 1.01, "inertia": np.nan}
        return replace(found, **{fault: change[fault]}) if fault else found

    monkeypatch.setattr(gpu, "_fused", assigned)
    gpu.is_right.cache_clear()
    assert gpu.is_right(5, 8, weighted) == (fault is None)
    gpu.is_right.cache_clear()
    assert (said is None) == (not caplog.text)
    assert (said or "") in caplog.text
