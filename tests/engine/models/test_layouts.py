"""Layouts of other programs: read as those programs compute, and written so that they open it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from stock_sam import SMALL, picture, stock_sam

from alps.bench.everything.matching import best_ious
from alps.bench.proofs.mask_generation import Theirs, our_records
from alps.engine.base.errors import ModelError
from alps.engine.cli.models import models
from alps.engine.models.checkpoints import load_sam, save_sam
from alps.engine.models.convert import convert_model
from alps.engine.models.registry import find_model
from alps.engine.sam import ModelDefaults, Sam

pytestmark = pytest.mark.usefixtures("one_thread")

DEFAULTS = ModelDefaults(points_per_side=8, pred_iou_thresh=0.5, tile=64, overlap=8)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """The folder that transformers writes of a small SAM, and the network itself."""
    from transformers import SamConfig, SamModel

    torch.manual_seed(3)
    config = SamConfig(
        vision_config={
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 64, "patch_size": 8, "window_size": 3, "global_attn_indexes": [1],
            "output_channels": 32, "num_pos_feats": 16,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": 64, "patch_size": 8},
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 48, "iou_head_hidden_dim": 24},
    )  # fmt: skip
    model = SamModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    folder = tmp_path_factory.mktemp("hub") / "sam-small"
    model.save_pretrained(folder)
    return folder, model


def relative(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def assert_same_network(ours, theirs):
    """Embedding, predicted IoU and logits of transformers' network are ours."""
    generator = torch.Generator().manual_seed(0)
    side = ours.config.image_size
    pixels = torch.randn(1, 3, side, side, generator=generator)
    xy = torch.rand(1, 6, 2, generator=generator) * side
    with torch.inference_mode():
        embedding = theirs.get_image_embeddings(pixels)
        expected = theirs(
            image_embeddings=embedding,
            input_points=xy[:, :, None],
            input_labels=torch.ones(1, 6, 1, dtype=torch.int64),
            multimask_output=True,
        )
        found = ours.decode_points(embedding, xy)
        logits = ours.mask_decoder.masks(found.mask_tokens[0], found.image_tokens[0])[:, 1:]
        assert relative(ours.encode(pixels), embedding) < 1e-6
    assert relative(found.predicted_iou[0, :, 1:], expected.iou_scores[0]) < 1e-5
    assert relative(logits, expected.pred_masks[0]) < 1e-5


def test_what_transformers_saved_computes_what_it_computes(pretrained):
    folder, theirs = pretrained
    ours, info = load_sam(find_model(folder))
    assert (info.name, info.config.decoder_epsilon) == ("sam-small", 1e-6)
    assert_same_network(ours, theirs)
    of_file, same = load_sam(folder / "model.safetensors")
    assert (same.sha256, same.name, same.config) == (info.sha256, info.name, info.config)
    assert torch.equal(of_file.image_encoder.pos_embed, ours.image_encoder.pos_embed)


def test_masks_are_those_of_the_pipeline_of_transformers(tmp_path):
    torch.save(stock_sam().state_dict(), tmp_path / "sam.pth")
    folder = convert_model(tmp_path / "sam.pth", tmp_path / "there").path
    sam, _ = load_sam(folder)
    image = picture(61, 90)  # brought to another size on the way in, and back
    settings = {
        "points_per_side": 8,
        "points_per_batch": 20,
        "stability_score_thresh": 0.2,
        "stability_score_offset": 0.02,
        "box_nms_thresh": 0.9,
    }
    pipeline = Theirs(folder)
    found = {}
    for least in (0.0, 1.0):
        ours = our_records(sam, image, settings | {"pred_iou_thresh": least})
        theirs = pipeline.records(image, settings | {"pred_iou_thresh": least})
        found[least] = len(theirs.counts)
        assert len(ours.counts) == found[least]
        assert (best_ious(theirs.counts, ours.counts, image.shape[:2]) > 0.99).all()
        np.testing.assert_array_equal(ours.boxes, theirs.boxes)
        np.testing.assert_allclose(ours.scores, theirs.scores, rtol=1e-4)
    assert found[0.0] > found[1.0] > 0, found


def test_shards_and_older_files(pretrained, tmp_path):
    folder, theirs = pretrained
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 1
    ours, info = load_sam(folder)
    sharded, of_shards = load_sam(tmp_path / "shards")
    state = sharded.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in ours.state_dict().items())
    assert of_shards.sha256 != info.sha256

    older = tmp_path / "older"
    older.mkdir()
    tensors = theirs.state_dict()
    assert "prompt_encoder.shared_embedding.positional_embedding" in tensors
    torch.save(tensors, older / "pytorch_model.bin")
    (older / "config.json").write_text((folder / "config.json").read_text())
    state = load_sam(older)[0].state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in ours.state_dict().items())

    index = tmp_path / "shards" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../../model-00001-of-00002.safetensors"}}))
    with pytest.raises(ModelError, match="does not list a model's files"):
        load_sam(tmp_path / "shards")


def test_what_is_written_opens_there_and_comes_back_with_its_thresholds(tmp_path):
    from transformers import SamModel, SamProcessor

    torch.manual_seed(1)
    # Heads and missing relative positions leave no trace in the tensors' shapes.
    model = Sam(replace(SMALL, relative_positions=False, decoder_heads=4))
    save_sam(model, tmp_path / "a.safetensors", DEFAULTS, dtype=torch.float32)
    done = convert_model(tmp_path / "a.safetensors", tmp_path / "there")
    assert done.lost == ()
    theirs = SamModel.from_pretrained(tmp_path / "there").eval()
    assert_same_network(model.eval(), theirs)
    processor = SamProcessor.from_pretrained(tmp_path / "there")
    assert processor.image_processor.size["longest_edge"] == 64

    theirs.save_pretrained(tmp_path / "back")
    ours, info = load_sam(tmp_path / "back")
    assert (info.defaults, info.config) == (DEFAULTS, model.config)
    for name, tensor in model.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor)


def test_official_weights_go_there_and_back(tmp_path):
    stock = stock_sam()
    torch.save(stock.state_dict(), tmp_path / "sam.pth")
    for source, out in (("sam.pth", "hf"), ("hf", "a.safetensors"), ("a.safetensors", "b.pth")):
        result = CliRunner().invoke(
            models, ["convert", str(tmp_path / source), str(tmp_path / out)], catch_exceptions=False
        )
        assert result.exit_code == 0 and "read back and equal" in result.output
    back = torch.load(tmp_path / "b.pth", weights_only=True)
    assert back.keys() == stock.state_dict().keys()
    assert all(torch.equal(tensor, back[name]) for name, tensor in stock.state_dict().items())
    stock.load_state_dict(back)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["a.safetensors", "b.pth", "hf", "sam.pth"]


def test_what_a_layout_has_no_place_for_is_said(pretrained, tmp_path):
    with pytest.raises(ModelError, match=r"no layout of that kind .* \.safetensors"):
        convert_model("tiny", tmp_path / "tiny.pth")
    assert not list(tmp_path.iterdir())
    done = convert_model(pretrained[0], tmp_path / "a.pth")
    assert done.lost == ("decoder_epsilon 1e-06",)
    with pytest.raises(ModelError, match="is there already"):
        convert_model(pretrained[0], tmp_path / "a.pth")


def test_what_reads_back_otherwise_is_not_written(tmp_path, monkeypatch):
    from alps.engine.models import convert

    torch.save(stock_sam().state_dict(), tmp_path / "sam.pth")

    def flip(tensors, path, metadata):
        tensors = {name: -tensor for name, tensor in tensors.items()}
        save_file(tensors, path, metadata=metadata)

    save_file = convert.save_file
    monkeypatch.setattr(convert, "save_file", flip)
    with pytest.raises(ModelError, match="reads back as another model"):
        convert_model(tmp_path / "sam.pth", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["sam.pth"]


def changed(folder, tmp_path, name, change):
    """The folder with another text in one of its files."""
    target = tmp_path / "changed"
    target.mkdir(exist_ok=True)
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    values = json.loads((target / name).read_text()) if (target / name).exists() else {}
    change(values)
    (target / name).write_text(json.dumps(values))
    return target


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("config.json", lambda v: v.update(model_type="vit"), "of type 'vit'"),
        ("config.json", lambda v: v["vision_config"].update(hidden_act="relu"), "'relu'"),
        ("config.json", lambda v: v["vision_config"].update(layer_norm_eps=1e-5), "1e-05"),
        ("config.json", lambda v: v["vision_config"].update(image_size=[64, 64]), "image_size"),
        ("config.json", lambda v: v["vision_config"].update(hidden_size=0), "do not go together"),
        ("config.json", lambda v: v["vision_config"].update(hidden_size=64), "another shape"),
        ("config.json", lambda v: v["mask_decoder_config"].update(iou_head_depth=1), "iou_head"),
        ("config.json", lambda v: v.update(alps_defaults={"moons": 1}), "moons"),
        ("preprocessor_config.json", lambda v: v.update(image_mean=[0.5] * 3), "image_mean"),
        (
            "processor_config.json",
            lambda v: v.update(image_processor={"image_std": [1, 1, 1]}),
            "image_std",
        ),
    ],
)
def test_models_that_would_compute_something_else_are_refused(
    pretrained, tmp_path, name, change, says
):
    with pytest.raises(ModelError, match=says) as caught:
        load_sam(changed(pretrained[0], tmp_path, name, change))
    assert "changed" in str(caught.value) and "\n" not in str(caught.value)


def test_folders_that_are_none_and_weights_without_their_config(pretrained, tmp_path):
    (tmp_path / "model.safetensors").write_bytes((pretrained[0] / "model.safetensors").read_bytes())
    with pytest.raises(ModelError, match=r"config\.json"):
        load_sam(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json: cannot be read"):
        load_sam(tmp_path)
