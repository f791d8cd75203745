"""Whole runs with models of other layouts: stopped and resumed, and told apart from others."""

from dataclasses import replace

import pytest
import speck
import torch
from small_mobile_sam import SMALL_T, with_counted_weights
from small_runs import results
from small_sam2 import SMALL

from alps.engine.base.errors import RunFolderError, SettingsError
from alps.engine.models.checkpoints import save_sam
from alps.engine.models.convert import convert_model
from alps.engine.sam2 import Sam2
from alps.engine.settings import ClusterSettings, RunSettings
from alps.engine.stages.label import RunOptions, label_archive
from alps.engine.stages.one_pass import OnePass

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shards_of_two")]

SETTINGS = RunSettings(cluster=ClusterSettings(clusters=4))


def save_model(layout, folder, speck_file):
    """A small model in a layout."""
    if layout == "huggingface":
        return convert_model(speck_file, folder / "there").path
    if layout == "sam2":
        return save_sam2(folder / "sam2.safetensors")
    network = with_counted_weights(replace(SMALL_T, image_size=128))
    with torch.no_grad():  # masks of random weights are pale
        for mlp in network.mask_decoder.output_hypernetworks_mlps:
            mlp.layers[-1].weight.mul_(100)
    save_sam(network, folder / "mobile.safetensors", speck.DEFAULTS)
    return folder / "mobile.safetensors"


def save_sam2(path):
    torch.manual_seed(4)
    network = Sam2(replace(SMALL, image_size=64, stage_blocks=(1, 1, 1, 1), global_blocks=(2,)))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1 and parameter.abs().max() == 0:
                parameter.normal_(std=0.2)
            if name.startswith("mask_decoder") and parameter.ndim > 1:
                parameter.mul_(2.5)
    save_sam(
        network,
        path,
        replace(speck.DEFAULTS, points_per_side=4, pred_iou_thresh=0.05, max_area=0.9),
    )
    return path


@pytest.mark.parametrize("layout", ["huggingface", "mobile_sam", "sam2"])
def test_a_run_is_stopped_and_resumed(archive, tmp_path, layout, request, stopped_after):
    speck_file = request.getfixturevalue("speck")
    model = save_model(layout, tmp_path, speck_file)
    options = RunOptions(str(model), "cpu", 1.0)
    whole, out = tmp_path / "whole", tmp_path / "stopped"
    summary = label_archive(archive, whole, SETTINGS, options)
    assert summary.segments > 5 and summary.tiles.get("failed", 0) == 0
    stops, allowed = 0, 4
    while stops < 40:
        try:
            with stopped_after(allowed):
                label_archive(archive, out, SETTINGS, options)
            break
        except KeyboardInterrupt:
            stops += 1
            allowed += 5
    assert stops > 2 and results(out) == results(whole)

    # The same weights in another file are another model: bytes are what tells them apart.
    other = RunOptions(str(speck_file), "cpu", 1.0)
    one_pass = OnePass(whole / "clusters.npz")
    with pytest.raises(SettingsError, match="--model"):
        label_archive(archive, tmp_path / "one", None, other, one_pass)
    with pytest.raises(RunFolderError):
        label_archive(archive, whole, SETTINGS, other)
    assert label_archive(archive, tmp_path / "one", None, options, one_pass).segments > 5
