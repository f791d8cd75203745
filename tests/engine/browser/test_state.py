"""What is said of classes, against the same counted one by one."""

import numpy as np

from alps.engine.browser import state
from alps.engine.browser.state import described
from alps.engine.browser.survey import Survey
from alps.engine.naming.names import Named, Names
from alps.engine.report.rows.sources import SourceRow


def made_survey(clusters, sources):
    rng = np.random.default_rng(5)
    held = np.flatnonzero(rng.random(clusters * sources) < 0.7)
    pixels = rng.integers(1, 1000, len(held))
    return Survey(
        sha256="a" * 64,
        numbers=tuple(range(clusters)),
        centroids=rng.random((clusters, 3)).astype(np.float32),
        area=np.bincount(held // sources, pixels, clusters).astype(np.int64),
        sources=held % sources,
        clusters=held // sources,
        pixels=pixels,
        rows={i: SourceRow(i, f"s{i}.tif", None, None, 9, 9) for i in range(sources)},
        dates={i: 20_000_000 + 10_000 * i for i in range(0, sources, 2)},
        since=dict.fromkeys(range(clusters), 1),
    )


def test_places_and_shares_of_classes_are_sums_over_their_clusters(monkeypatch):
    monkeypatch.setattr(state, "AT_ONCE", 3)
    survey = made_survey(11, 9)
    names = Names((Named((1, 4, 9), "water"), Named((2,), "sand")))
    found = {one["value"]: one for one in described(names, survey, {})}
    assert sorted(found) == [0, 1, 2, 3, 5, 6, 7, 8, 10]
    water = np.isin(survey.clusters, [1, 4, 9])
    by_source = {s: survey.pixels[water & (survey.sources == s)].sum() for s in range(9)}
    largest = sorted(by_source, key=lambda s: (-by_source[s], s))
    assert found[1]["sources"] == sum(1 for pixels in by_source.values() if pixels)
    assert found[1]["mainly"] == [f"s{s}.tif" for s in largest[:3]]
    dated = [s for s in range(0, 9, 2) if by_source[s]]
    assert found[1]["dates"] == [str(2000 + dated[0]), str(2000 + dated[-1])]
    assert found[1]["share"] == survey.pixels[water].sum() / survey.pixels.sum()


def test_the_nearest_classes_are_the_nearest(monkeypatch):
    monkeypatch.setattr(state, "AT_ONCE", 4)
    survey = made_survey(13, 2)
    found = {one["value"]: one["near"] for one in described(Names(), survey, {})}
    for value, near in found.items():
        distance = ((survey.centroids - survey.centroids[value]) ** 2).sum(axis=1)
        assert near == [n for n in np.argsort(distance).tolist() if n != value][: state.NEAREST]


def test_a_single_class_has_none_beside_it():
    (only,) = described(Names(), made_survey(1, 4), {})
    assert only["near"] == [] and only["share"] == 1 and only["colour"].startswith("#")
