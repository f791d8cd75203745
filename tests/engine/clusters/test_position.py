"""Removing from embeddings what their place in the window predicts."""

import numpy as np
import pytest

from alps.engine.clusters.position import cosine_basis, fit_position_effect


def placed(count, content=1.0, effect=5.0, seed=0):
    """Embeddings that are a smooth function of place plus content; returns all three."""
    rng = np.random.default_rng(seed)
    places = rng.random((count, 2))
    kinds = rng.normal(size=(3, 8))[rng.integers(3, size=count)] * content
    by_place = cosine_basis(places, 3) @ rng.normal(size=(9, 8)) * effect
    return (kinds + by_place).astype(np.float16), places, kinds


def test_what_place_predicts_goes_and_content_stays():
    vectors, places, kinds = placed(4000)
    left = fit_position_effect([(vectors, places)], len(vectors)).remove(vectors, places)
    content = kinds - kinds.mean(0)
    assert np.abs(left - content).mean() < 0.1 * np.abs(content).mean()


def test_pieces_make_no_difference():
    vectors, places, _ = placed(3000)
    whole = fit_position_effect([(vectors, places)], 3000)
    parts = [(vectors[i : i + 700], places[i : i + 700]) for i in range(0, 3000, 700)]
    parts.insert(2, (vectors[:0], places[:0]))
    pieces = fit_position_effect(parts, 3000)
    assert np.allclose(whole.coefficients, pieces.coefficients, atol=1e-4)


@pytest.mark.parametrize(("count", "terms"), [(1, 1), (39, 1), (160, 4), (1440, 36), (10**5, 36)])
def test_few_segments_get_few_terms(count, terms):
    """With as many terms as segments the fit would explain everything and leave nothing."""
    vectors, places, _ = placed(min(count, 2000))
    effect = fit_position_effect([(vectors, places)], count)
    assert effect.coefficients.shape == (terms, 8)


def test_undetermined_terms_are_finite():
    vectors, _, _ = placed(500)
    one_place = np.full((500, 2), 0.25)
    left = fit_position_effect([(vectors, one_place)], 500).remove(vectors, one_place)
    assert np.isfinite(left).all()
    assert np.allclose(left.mean(0), 0, atol=1e-2)


def test_basis_is_the_product_of_cosines():
    places = np.array([[0.3, 0.8]])
    naive = [
        [np.cos(np.pi * i * 0.3) * np.cos(np.pi * j * 0.8) for i in range(4) for j in range(4)]
    ]
    assert np.allclose(cosine_basis(places, 4), naive, atol=1e-6)
