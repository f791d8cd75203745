"""Training on a run whose classes people named: what was merged or left out is no class."""

from functools import partial

import numpy as np
import pytest
import rasterio

from alps.engine.base.errors import SettingsError
from alps.engine.naming import edit
from alps.engine.run_folder.folder import RunFolder
from alps.engine.settings import ClusterSettings, RunSettings
from alps.engine.stages import naming
from alps.engine.stages.label import label_archive
from alps.engine.stages.opening import RunOptions
from alps.engine.stages.single import paint
from alps.trainer.data.cache import build_cache
from alps.trainer.data.decode import DecodeRequest
from alps.trainer.data.find import find_data
from alps.trainer.data.settings import DataSettings, PseudoSettings

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(saved_archive, tmp_path_factory, speck):
    options = RunOptions(model=str(speck), device="cpu", max_failed=1.0)
    out = tmp_path_factory.mktemp("named") / "run"
    label_archive(saved_archive, out, RunSettings(cluster=ClusterSettings(clusters=5)), options)
    edits = [
        partial(edit.name, clusters=(1, 3), text="water"),
        partial(edit.ignore, cluster=2),
    ]
    naming.change_names(RunFolder(out), edits)
    paint(out)
    return out


def test_classes_are_those_that_label_maps_show(run, tmp_path):
    data = find_data(run, DataSettings())
    assert data.rules.classes == ("cluster 0", "water", "cluster 4")
    assert data.rules.values == (0, 1, 4)
    cache = build_cache(DecodeRequest(data, DataSettings(), 16), tmp_path / "cache")
    (pair,) = (one for one in cache.pairs if one.name == "a")
    with rasterio.open(run / "labels" / "a.png") as file:
        labels = file.read(1)
    expected = np.select([labels == value for value in (0, 1, 4)], [0, 1, 2], 255)
    np.testing.assert_array_equal(pair.labels(cache.root), expected)


def test_random_classes_are_not_drawn_from_those(run, tmp_path):
    pseudo = PseudoSettings(targets="shuffled")
    request = DecodeRequest(find_data(run, DataSettings()), DataSettings(), 16, pseudo=pseudo)
    with pytest.raises(SettingsError, match="--targets shuffled"):
        build_cache(request, tmp_path / "cache")
