"""GDAL's cache of blocks has a size of its own, not a share of the machine's memory."""

import os
import subprocess
import sys

import pytest

SAYS = (
    "import alps.engine.images.tiff\n"
    "from rasterio._env import get_gdal_config\n"
    "print(get_gdal_config('GDAL_CACHEMAX') >> 20)\n"
)


@pytest.mark.parametrize(("given", "found"), [(None, "64"), ("32", "32")])
def test_cache_is_bounded_unless_its_size_is_given(given, found):
    kept = {name: value for name, value in os.environ.items() if name != "GDAL_CACHEMAX"}
    env = kept if given is None else kept | {"GDAL_CACHEMAX": given}
    done = subprocess.run([sys.executable, "-c", SAYS], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == found, done.stderr
