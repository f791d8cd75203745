"""Cutting an archive into regions: group by group, whole or not at all, where its sources lie."""

import os
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from made_run import class_regions, make_archive
from PIL import Image

from alps.engine.images.windows import Window
from alps.engine.regions.raster import open_regions
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.tables import read_table, write_table
from alps.engine.stages.label import cut_stage
from alps.engine.stages.regions import (
    CutSettings,
    cut_archive,
    forget_regions,
    groups_to_cut,
    regions_cut,
)
from alps.engine.workers.protocol import Alone
from alps.kernels.base.gpu import is_on_gpu
from alps.kernels.superpixels import cpu, gpu
from alps.kernels.superpixels.rules import first_regions

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
SETTINGS = CutSettings(None, 30_000.0)  # a cell is 6 pixels wide
WIDTH, HEIGHT = 40, 24
WINDOWS = [Window(0, 0, 24, 24), Window(16, 0, 24, 24)]


def pixels(bands=3, seed=0):
    """(H, W, bands) uint8, in blocks."""
    coarse = np.random.default_rng(seed).integers(0, 256, (HEIGHT // 4, WIDTH // 4, bands))
    return coarse.repeat(4, 0).repeat(4, 1).astype(np.uint8)


def segments():
    masks = np.zeros((2, 24, 24), bool)
    masks[0, 4:15, 4:20], masks[1, 10:22, :9] = True, True
    return [[{"mask": masks[0]}], [{"mask": masks[0]}, {"mask": masks[1]}]]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two sources of two windows, each a group of its own, not cut yet."""
    monkeypatch.setattr("alps.engine.run_folder.plan.SHARD_TILES", 2)
    run = make_archive(
        tmp_path / "run", {name: (WINDOWS, segments()) for name in ("a.png", "b.png")}
    )
    for seed, name in enumerate(("a.png", "b.png")):
        Image.fromarray(pixels(seed=seed)).save(run.root / name)
    forget_regions(run)
    return run


def raster_of(folder, name="a.png"):
    with open_regions(folder.region_raster(name)) as raster:
        return raster.read(0, 0, *raster.size)


def files_of(folder):
    paths = (folder.root / "regions").rglob("*")
    return {path.name: path.read_bytes() for path in paths if path.is_file()}


def test_every_group_is_cut_and_counted(folder):
    assert groups_to_cut(folder) == [0, 1]
    cut_archive(folder, SETTINGS)
    assert groups_to_cut(folder) == []
    counts = [int(raster_of(folder, name).max()) + 1 for name in ("a.png", "b.png")]
    assert [read_table(folder.regions(group)).num_rows for group in (0, 1)] == counts
    assert regions_cut(folder) == sum(counts)


def test_objects_are_listed_segment_by_segment(folder):
    cut_archive(folder, SETTINGS)
    table = read_table(folder.objects(1))
    assert table["tile_id"].to_pylist() == [2, 3, 3]
    assert table["segment_id"].to_pylist() == [0, 0, 1]
    assert len(set(table["object"].to_pylist())) > 1


def test_stopped_at_any_rename_a_group_is_cut_again(folder, monkeypatch):
    cut_archive(folder, SETTINGS)
    expected = files_of(folder)
    renames = []
    real = os.replace
    for stop in range(len(expected)):
        forget_regions(folder)
        renames.clear()

        def replace(source, target, stop=stop):
            if len(renames) == stop:
                raise KeyboardInterrupt
            renames.append(target.name)
            real(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            with pytest.raises(KeyboardInterrupt):
                cut_archive(folder, SETTINGS)
        done = [name for name in renames if name.startswith("part-")]
        assert groups_to_cut(folder) == [0, 1][len(done) :]
        cut_archive(folder, SETTINGS)
        assert files_of(folder) == expected


def test_what_is_forgotten_leaves_nothing_that_was_made_of_regions(folder):
    cut_archive(folder, SETTINGS)
    class_regions(folder, lambda tiles, table: (np.zeros(len(table)), np.zeros(len(table))))
    forget_regions(folder)
    left = {path.name for path in folder.root.iterdir()}
    assert left == {"a.png", "b.png", "journal", "segments"}
    forget_regions(folder)  # nothing to forget is no error


@pytest.mark.parametrize("change", ["gone", "larger", "turned"])
def test_a_source_that_is_not_what_was_segmented_has_no_regions(folder, capsys, change):
    path = folder.root / "a.png"
    path.unlink()
    if change != "gone":
        size = {"larger": (HEIGHT, WIDTH + 1), "turned": (WIDTH, HEIGHT)}[change]
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(path)
    cut_archive(folder, SETTINGS)
    assert "a.png: not cut into regions" in capsys.readouterr().err
    assert not folder.region_raster("a.png").exists()
    assert read_table(folder.regions(0)).num_rows == 0
    assert groups_to_cut(folder) == []
    assert raster_of(folder, "b.png").shape == (HEIGHT, WIDTH)


def save_tiff(path, image, **place):
    with rasterio.open(
        path, "w", driver="GTiff", width=WIDTH, height=HEIGHT, count=image.shape[2], dtype="uint8",
        **place,
    ) as file:  # fmt: skip
        file.write(image.transpose(2, 0, 1))


def test_rasters_lie_where_their_sources_do(folder):
    transform = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 4_000_000)
    save_tiff(folder.root / "a.png", pixels(), crs="EPSG:32631", transform=transform)
    cut_archive(folder, SETTINGS)
    with rasterio.open(folder.region_raster("a.png")) as raster:
        assert (raster.crs, raster.transform) == ("EPSG:32631", transform)
    with open_regions(folder.region_raster("b.png")) as raster:
        assert raster.place.crs is None and raster.place.transform is None


def test_regions_are_cut_on_the_bands_that_were_segmented(folder):
    four = np.concatenate([pixels(1, seed) for seed in range(4)], axis=2)
    save_tiff(folder.root / "a.png", four)
    Image.fromarray(np.ascontiguousarray(four[..., [3, 0, 2]])).save(folder.root / "b.png")
    run = {"settings": {"source": {"bands": [4, 1, 3]}, "segment": {"superpixels": 30_000.0}}}
    cut_archive(folder, CutSettings.of_run(folder, run))
    chosen = raster_of(folder)
    forget_regions(folder)
    run["settings"]["source"]["bands"] = None
    cut_archive(folder, CutSettings.of_run(folder, run))
    np.testing.assert_array_equal(raster_of(folder, "b.png"), chosen)
    assert not np.array_equal(raster_of(folder), chosen)


def test_a_sample_of_one_window_is_a_scene_of_its_own(folder, tmp_path):
    write_table(read_table(folder.plan).slice(1, 1), folder.plan)
    cut_archive(folder, SETTINGS)
    alone = make_archive(tmp_path / "alone", {"a.png": ([Window(0, 0, 24, 24)], segments()[1:])})
    Image.fromarray(pixels()[:, 16:]).save(alone.root / "a.png")
    forget_regions(alone)
    cut_archive(alone, SETTINGS)
    np.testing.assert_array_equal(raster_of(folder), raster_of(alone))
    names = ["x", "y", "area", "segment_id", "object"]
    assert read_table(folder.regions(0), names).equals(read_table(alone.regions(0), names))


def test_superpixels_of_a_gpu_give_the_same_files(folder, monkeypatch):
    asked = []

    def refine(pixels, valid, seeds):  # the kernels' own are held against these elsewhere
        asked.append(is_on_gpu(pixels))
        return cpu.refine(pixels.copy_to_host(), first_regions(valid, seeds), seeds)

    monkeypatch.setattr(gpu, "refine", refine)
    settings = replace(SETTINGS, on_gpu=True)
    cut_archive(folder, settings)
    assert not asked  # kernels can use none here
    expected = files_of(folder)
    forget_regions(folder)
    monkeypatch.setattr("alps.engine.stages.regions.usable_gpu", lambda: True)
    cut_archive(folder, settings)
    assert asked == [True, True]
    assert files_of(folder) == expected


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_who_cuts_says_where(folder, monkeypatch, kind):
    """A crew's device counts, and without a crew the device that was asked for."""
    monkeypatch.setattr("alps.engine.stages.label.choose_device", torch.device)
    monkeypatch.setattr("alps.engine.stages.label.usable_gpu", lambda: True)
    monkeypatch.setattr("alps.engine.stages.label.uncut_again", lambda *given: [])
    monkeypatch.setattr("alps.engine.stages.label.groups_to_cut", lambda folder: [])
    monkeypatch.setattr(RunFolder, "read_planned", lambda self: {})
    asked = []
    monkeypatch.setattr(
        CutSettings, "of_run", lambda *given: asked.append(given[-1]) or replace(SETTINGS)
    )
    crew = Alone()
    cut_stage(folder, crew=crew, device=kind)
    crew.device = kind
    cut_stage(folder, crew=crew, device="cpu")
    assert asked == [kind == "cuda"] * 2
