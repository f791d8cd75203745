"""SAM 2 against Hugging Face's Sam2Model with the same weights: encoder, decoder, everything."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from pycocotools import mask as coco
from small_sam2 import SMALL, transformers_sam2
from stock_sam import original_generator, picture
from torch.nn import functional as F

from alps.engine.base.errors import ModelError, SettingsError
from alps.engine.cli.models import models
from alps.engine.masks.generator import MaskGenerator
from alps.engine.models.checkpoints import load_network, load_sam, save_sam
from alps.engine.models.convert import convert_model
from alps.engine.models.layouts import sam2 as official_layout
from alps.engine.runtimes.pytorch import TorchRuntime
from alps.engine.sam.model import PIXEL_MEAN, PIXEL_STD
from alps.engine.sam2 import OFFICIAL, SAM2_DEFAULTS, Sam2, Sam2Config, config_of
from alps.engine.sam2.decoder import from_cells, to_cells
from alps.engine.sam2.empty import empty_sam2
from alps.engine.settings import ModelDefaults

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

# Random weights are sure of nothing.
LENIENT = {
    "points_per_side": 5,
    "points_per_batch": 10,
    "pred_iou_thresh": 0.0,
    "stability_score_thresh": 0.5,
    "stability_score_offset": 0.02,
    "box_nms_thresh": 1.0,
}


@pytest.fixture(scope="module")
def theirs():
    return transformers_sam2()


@pytest.fixture(scope="module")
def saved(theirs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "sam2-small"
    theirs.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def ours(saved):
    return load_network(saved)[0]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative(found, expected):
    assert found.shape == expected.shape
    return ((found - expected).abs().max() / expected.abs().max()).item()


def asked(theirs, embeddings, xy, **also):
    """What Hugging Face's network answers to one point a prompt, (N, 2)."""
    with torch.inference_mode():
        return theirs(
            image_embeddings=embeddings,
            input_points=xy[None, :, None],
            input_labels=torch.ones(1, len(xy), 1, dtype=torch.int64),
            multimask_output=True,
            **also,
        )


# --- the network


def test_the_encoder(theirs, ours):
    pixels = random(2, 3, 128, 128)
    finest, finer, embedding = theirs.get_image_embeddings(pixels)
    with torch.inference_mode():
        found = ours.encode(pixels)
        levels = ours.image_encoder(pixels)  # as it was trained, the finer levels are wider
        skip = ours.mask_decoder.conv_s0(levels[0])
    assert found.shape == (2, ours.config.encoded_channels, 8, 8)
    assert embedding.std() > 0.1
    assert relative(found[:, :32], embedding) < 1e-5
    assert relative(from_cells(found[:, 32:64], 1), finer) < 1e-5
    assert relative(from_cells(found[:, 64:], 2), finest) < 1e-5
    assert [level.shape[1:] for level in levels] == [(32, 32, 32), (32, 16, 16), (32, 8, 8)]
    assert relative(skip, finest) < 1e-5


def test_cells_hold_the_places_of_the_transposed_convolutions():
    weight = random(3, 2, 2, 2)
    patch = F.conv_transpose2d(random(1, 3, 4, 5), weight, stride=2)
    assert torch.equal(from_cells(to_cells(patch, 1), 1), patch)
    place = to_cells(patch, 1).unflatten(1, (4, 2))
    assert torch.equal(place[:, 1], patch[:, :, 0::2, 1::2])  # row 0, column 1
    twice = random(1, 2, 8, 12)
    assert torch.equal(from_cells(to_cells(twice, 2), 2), twice)
    # Of 4 x 4 places the coarser halving counts first.
    assert torch.equal(to_cells(twice, 2).unflatten(1, (16, 2))[:, 6], twice[:, :, 1::4, 2::4])


@pytest.mark.parametrize("form", ["plain", "absorbed", "compiled"])
def test_every_form_of_the_decoder(theirs, ours, form):
    embeddings = theirs.get_image_embeddings(random(1, 3, 128, 128))
    xy = torch.rand(7, 2, generator=torch.Generator().manual_seed(1)) * 128
    expected = asked(theirs, embeddings, xy)
    runtime = TorchRuntime(ours, decoder=form)
    (found,) = runtime.decode(runtime.encode(random(1, 3, 128, 128))[0], xy, 0.0, 64)
    assert relative(found.predicted_iou.unflatten(0, (7, 3)), expected.iou_scores[0]) < 1e-5
    assert relative(found.logits.unflatten(0, (7, 3)), expected.pred_masks[0]) < 1e-5
    # Of those alone that pass, whose points are then not all there.
    middle = float(found.predicted_iou.median())
    (some,) = runtime.decode(runtime.encode(random(1, 3, 128, 128))[0], xy, middle, 64)
    passed = found.predicted_iou > middle
    assert 0 < passed.sum() < 21
    assert torch.equal(some.point_index, found.point_index[passed])
    assert relative(some.logits, found.logits[passed]) < 1e-5


def test_the_object_score(theirs, ours):
    embeddings = theirs.get_image_embeddings(random(1, 3, 128, 128))
    xy = torch.rand(7, 2, generator=torch.Generator().manual_seed(1)) * 128
    expected = asked(theirs, embeddings, xy)
    with torch.inference_mode():
        found = ours.decode_points(ours.encode(random(1, 3, 128, 128)), xy[None])
    assert relative(found.object_score, expected.object_score_logits[..., 0]) < 1e-5


# --- everything mode


class TheirPredictor:
    """Hugging Face's network with the face that the original generator asks.

    Images are prepared as SAM 2's own transforms do it: stretched to the square in float32.
    """

    def __init__(self, network):
        self.network, self.device = network, torch.device("cpu")
        self.model = SimpleNamespace(mask_threshold=0.0)
        self.transform = self

    def set_image(self, image):
        self.size = image.shape[:2]
        pixels = torch.from_numpy(image).permute(2, 0, 1).float().div(255)[None]
        pixels = F.interpolate(pixels, (128, 128), mode="bilinear", antialias=True)
        mean, std = (torch.tensor(v).view(3, 1, 1) / 255 for v in (PIXEL_MEAN, PIXEL_STD))
        self.embeddings = self.network.get_image_embeddings((pixels - mean) / std)

    def apply_coords(self, points, size):
        return points / np.array([size[1], size[0]]) * 128

    def predict_torch(self, points, labels, multimask_output, return_logits):
        assert multimask_output and return_logits and labels.all()
        found = asked(self.network, self.embeddings, points[:, 0].float())
        logits = found.pred_masks[0]
        full = F.interpolate(logits, self.size, mode="bilinear", align_corners=False)
        return full, found.iou_scores[0], logits

    def reset_image(self):
        pass


def their_records(network, image, **settings):
    nothing = SimpleNamespace(image_encoder=SimpleNamespace(img_size=128), device="cpu")
    generator = original_generator()(nothing, **settings)
    generator.predictor = TheirPredictor(network)
    return generator.generate(image)


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ((128, 128), {}),
        ((50, 170), {}),
        ((300, 140), {"output_mode": "coco_rle"}),
        ((90, 120), {"crop_n_layers": 1, "crop_nms_thresh": 1.0}),
        ((3, 9), {}),
    ],
)
def test_the_records_of_the_original_generator(theirs, ours, size, settings):
    image, settings = picture(*size), LENIENT | settings
    expected = in_order(their_records(theirs, image, **settings))
    found = in_order(MaskGenerator(ours, **settings).generate(image))
    assert len(found) == len(expected) > 20
    for mine, other in zip(found, expected, strict=True):
        for name in ("bbox", "crop_box", "point_coords"):
            assert mine[name] == other[name], name
        assert mine["predicted_iou"] == pytest.approx(other["predicted_iou"], abs=1e-5)
        assert mine["stability_score"] == pytest.approx(other["stability_score"], abs=5e-3)
        one, another = mask_of(mine), mask_of(other)
        assert (one & another).sum() >= 0.999 * (one | another).sum()
        assert mine["area"] == one.sum()


def in_order(records):
    """By what cannot flip where two masks are as good as each other."""
    return sorted(records, key=lambda r: (r["crop_box"], r["point_coords"], r["predicted_iou"]))


def mask_of(record):
    mask = record["segmentation"]
    return coco.decode(mask).astype(bool) if isinstance(mask, dict) else mask


def test_the_defaults_of_its_own_generator(ours):
    assert MaskGenerator(ours).settings.pred_iou_thresh == 0.8
    assert MaskGenerator(ours, 16, 32, 0.7, 0.9, 0.5).settings.stability_score_offset == 0.5
    with pytest.raises(SettingsError, match="from the 6th on; give those by name"):
        MaskGenerator(ours, 16, 32, 0.7, 0.9, 0.5, 0.0)
    with pytest.raises(SettingsError, match="mask_threshold is nan"):
        MaskGenerator(ours, mask_threshold=float("nan"))


def test_the_mask_threshold_is_that_of_logits(ours):
    image = picture(90, 120)
    usual = MaskGenerator(ours, **LENIENT).generate(image)
    wider = MaskGenerator(ours, **LENIENT, mask_threshold=-0.05).generate(image)
    largest = [max(record["area"] for record in records) for records in (usual, wider)]
    assert largest[1] > largest[0]


def test_small_regions_go_from_the_logits(ours, monkeypatch):
    """Up to so many pixels of the logits: as connected components tell, holes and islands."""
    runtime = TorchRuntime(ours)
    logits = torch.full((1, 32, 32), -1.0)
    logits[0, 4:20, 4:20] = 1.0
    logits[0, 8:10, 8:10] = -1.0  # a hole of 4
    logits[0, 26, 26] = 1.0  # an island of 1
    logits[0, 28:31, 1:4] = 1.0  # one of 9

    def decode(embedding, points, threshold, per_batch):
        (first, *_) = real(embedding, points, threshold, per_batch)
        yield dataclasses.replace(
            first, logits=logits, predicted_iou=torch.ones(1), point_index=torch.zeros(1, dtype=int)
        )

    real = runtime.decode
    monkeypatch.setattr(runtime, "decode", decode)
    settings = LENIENT | {"points_per_side": 1, "stability_score_thresh": 0.0}
    image = picture(32, 32)
    for least, area in ((0, 256 - 4 + 1 + 9), (3, 256 - 4 + 9), (4, 256 + 9), (9, 256)):
        (record,) = MaskGenerator(runtime, **settings, min_mask_region_area=least).generate(image)
        assert record["area"] == area


def test_embeddings_of_masks_are_of_the_image_alone(ours):
    image = picture(64, 128)  # twice as wide as high, and stretched
    segments = MaskGenerator(ours, **LENIENT).segment(image)
    assert segments.embeddings.shape == (len(segments), 32)
    embedding = MaskGenerator(ours, **LENIENT).embed([image])[0][0][:32]
    # Cells are twice as wide as high in image pixels.
    shares = [F.avg_pool2d(torch.from_numpy(mask_of(record))[None].float(), (8, 16))[0]
              for record in MaskGenerator(ours, **LENIENT).generate(image)]  # fmt: skip
    for share, pooled in zip(shares, segments.embeddings, strict=True):
        expected = (embedding * share).sum((1, 2)) / share.sum()
        np.testing.assert_allclose(pooled, expected.numpy(), atol=1e-5)


# --- checkpoints


def test_there_and_back(theirs, ours, saved, tmp_path):
    network, info = load_network(saved)
    assert (info.name, info.config, info.defaults) == ("sam2-small", SMALL, SAM2_DEFAULTS)
    given = ModelDefaults(points_per_side=8, pred_iou_thresh=0.5)
    save_sam(network, tmp_path / "a.safetensors", given, dtype=torch.float32)
    assert load_network(tmp_path / "a.safetensors")[1].config == SMALL
    done = convert_model(tmp_path / "a.safetensors", tmp_path / "back")
    assert done.lost == ()
    from transformers import Sam2Model

    again = Sam2Model.from_pretrained(tmp_path / "back").state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in theirs.state_dict().items())
    again, info = load_network(tmp_path / "back")
    assert info.defaults == given
    with pytest.raises(ModelError, match="no layout of that kind"):
        convert_model(saved, tmp_path / "a.pt")
    with pytest.raises(ModelError, match="a Sam2; here a SAM with a ViT"):
        load_sam(saved)


def test_a_model_of_videos_is_taken_for_its_images(ours, tmp_path):
    video = transformers_sam2("Sam2VideoModel")
    video.save_pretrained(tmp_path / "video")
    network, info = load_network(tmp_path / "video")
    assert info.config == SMALL
    pixels = random(1, 3, 128, 128)
    (*_, embedding) = video.get_image_features(pixels, return_dict=True).fpn_hidden_states
    found = network.encode(pixels)[:, :32] - network.no_mem_embed[0, 0, :, None, None]
    assert relative(found[0].flatten(1).T, embedding[:, 0]) < 1e-5


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("mask_decoder_config", "hidden_act", "relu"),
        ("vision_config", "num_feature_levels", 2),
        ("vision_config", "fpn_top_down_levels", [0, 1, 2, 3]),
        ("prompt_encoder_config", "layer_norm_eps", 1e-5),
    ],
)
def test_what_would_compute_something_else_is_refused(saved, tmp_path, part, name, value):
    import json
    import shutil

    shutil.copytree(saved, tmp_path / "other")
    path = tmp_path / "other" / "config.json"
    said = json.loads(path.read_text())
    said[part][name] = value
    path.write_text(json.dumps(said))
    with pytest.raises(ModelError, match=rf"has {part}\.{name} .* which cannot be run"):
        load_network(tmp_path / "other")
    path.unlink()
    with pytest.raises(ModelError, match=r"without its dimensions; put the config\.json"):
        load_network(tmp_path / "other")


def official_file(network, path, video=True):
    """A file as facebookresearch/sam2 saves it."""
    tensors = {}
    for name, tensor in network.state_dict().items():
        if name.startswith(("prompt_encoder.", "mask_decoder.")):
            name = f"sam_{name}"
        name = name.replace(".mlp.lin1.", ".mlp.layers.0.").replace(".mlp.lin2.", ".mlp.layers.1.")
        tensors[name] = tensor
    if video:
        tensors |= {
            "maskmem_tpos_enc": torch.zeros(7, 1, 1, 64),
            "no_obj_embed_spatial": torch.zeros(1, 64),
            "memory_encoder.out_proj.weight": torch.zeros(4, 4),
        }
    torch.save({"model": tensors}, path)


def test_the_official_layout(ours, tmp_path, monkeypatch):
    monkeypatch.setitem(official_layout.OFFICIAL, "sam2.1_hiera_speck", SMALL)
    official_file(ours, tmp_path / "a.pt")
    network, info = load_network(tmp_path / "a.pt")
    assert (info.name, info.config, info.defaults) == ("sam2.1_hiera_speck", SMALL, SAM2_DEFAULTS)
    for name, tensor in ours.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor)
    official_file(ours, tmp_path / "older.pt", video=False)
    assert load_network(tmp_path / "older.pt")[1].name == "sam2_hiera_speck"
    monkeypatch.delitem(official_layout.OFFICIAL, "sam2.1_hiera_speck")
    with pytest.raises(ModelError, match="a SAM 2 of none of the published sizes"):
        load_network(tmp_path / "a.pt")


def test_published_sizes():
    """Parameters of the image part, as the networks of facebookresearch/sam2 count them."""
    counted = {
        name: sum(parameter.numel() for parameter in empty_sam2(config).parameters())
        for name, config in OFFICIAL.items()
    }
    assert counted == {
        "sam2.1_hiera_tiny": 31_440_721,
        "sam2.1_hiera_small": 38_538_577,
        "sam2.1_hiera_base_plus": 73_328_401,
        "sam2.1_hiera_large": 216_924_865,
    }
    for config in OFFICIAL.values():
        assert config_of(config.to_dict()) == config


@pytest.mark.parametrize(
    "wrong",
    [
        {"stage_blocks": (1, 2, 3)},
        {"stage_blocks": (1, 2, 900, 1)},
        {"window_sizes": (8, 3, 6, 2)},
        {"window_sizes": (6, 4, 6, 2)},
        {"image_size": 144},
        {"encoder_heads": 3},
        {"position_size": 0},
    ],
)
def test_dimensions_that_do_not_go_together(ours, tmp_path, wrong):
    damaged = Sam2(SMALL)
    damaged.config = dataclasses.replace(SMALL, **wrong)
    save_sam(damaged, tmp_path / "a.safetensors", SAM2_DEFAULTS)
    with pytest.raises(ModelError, match="do not go together"):
        load_network(tmp_path / "a.safetensors")


def test_fetched_without_a_published_sum(ours, tmp_path, monkeypatch):
    from misbehaving_server import serving

    monkeypatch.setenv("ALPS_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(official_layout.OFFICIAL, "sam2.1_hiera_tiny", SMALL)
    official_file(ours, tmp_path / "served.pt")
    target = tmp_path / "home" / "models" / "sam2.1_hiera_tiny.pt"
    with serving((tmp_path / "served.pt").read_bytes()) as server:
        arguments = ["fetch", "sam2.1_hiera_tiny", "--url", server.url]
        result = CliRunner().invoke(models, arguments, catch_exceptions=False)
        assert "verified by the shapes of its tensors, no SHA-256 is published" in result.output
        assert target.read_bytes() == (tmp_path / "served.pt").read_bytes()
        result = CliRunner().invoke(models, arguments, catch_exceptions=False)
        assert "is there already; verified by the shapes" in result.output
        assert len(server.requests) == 1
    target.unlink()
    with serving(b"<html>log in</html>") as server:
        result = CliRunner().invoke(models, ["fetch", "sam2.1_hiera_tiny", "--url", server.url])
        assert isinstance(result.exception, ModelError)
        assert "not a PyTorch checkpoint" in str(result.exception)
    assert [path.name for path in target.parent.iterdir()] in ([], [f"{target.name}.lock"])


def test_config_is_a_record_of_its_own():
    assert isinstance(config_of({"network": "sam2"}), Sam2Config)
    with pytest.raises(ModelError, match="unknown dimensions: window_size"):
        config_of({"network": "sam2", "window_size": 7})
