"""The bench of polygons: both sides draw the same, and ours fit together."""

import numpy as np
from click.testing import CliRunner
from made_run import cut_as, make_archive, paint_run

from alps.bench.labels.polygons import SIDES, label_maps, main, measure
from alps.engine.images.windows import Window

SIDE = 40


def test_both_sides_find_the_same_polygons(tmp_path):
    folder = make_archive(
        tmp_path / "run", {"a.png": ([Window(0, 0, SIDE, SIDE)], [[{"cluster": 0}]])}
    )
    numbers = np.random.default_rng(0).integers(-1, 3, (SIDE // 4, SIDE // 4)).repeat(4, 0)
    cut_as(folder, [numbers.repeat(4, 1)], [np.arange(3)])
    paint_run(folder, 3)
    folder.update_run(started="2021-05-01")
    ours, gdal = (measure(folder.root, one, tmp_path / f"{one}.gpkg") for one in SIDES)
    assert ours.polygons == gdal.polygons > 3 and ours.megapixels == SIDE**2 / 1e6
    assert ours.pixels_missing == gdal.pixels_missing == 0
    assert ours.are_valid and ours.share_borders and gdal.are_valid
    assert len(label_maps(folder.root)) == 1


def test_a_run_that_is_none_ends_the_bench(tmp_path):
    done = CliRunner().invoke(main, [str(tmp_path)])
    assert done.exit_code and "ours failed on" in done.output
