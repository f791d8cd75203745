"""The decoder laid out as in Segment Anything's ONNX example, held against that example."""

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from stock_sam import SMALL, ours_like, picture, stock_sam

from alps.engine.base.errors import ArtefactError, ModelError, SettingsError
from alps.engine.sam.model import Network
from alps.export import sam_layout
from alps.export.commands import export
from alps.export.sam_layout import INPUTS, PromptDecoder, export_decoder, verify
from alps.export.settings import ExportSettings

SAM = ExportSettings(layout="sam")


@pytest.fixture(scope="module")
def stock():
    return stock_sam()


@pytest.fixture(scope="module")
def checkpoint(stock, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "sam.pth"
    torch.save(stock.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "decoder.onnx"
    done = CliRunner().invoke(
        export, [str(checkpoint), str(path), "--layout", "sam"], catch_exceptions=False
    )
    assert done.exit_code == 0 and "low_res_masks: off by" in done.output
    assert [path.name for path in path.parent.iterdir()] == ["decoder.onnx"]
    return path


def original(stock, **options):
    """The example's own module."""
    from segment_anything.utils.onnx import SamOnnxModel

    return SamOnnxModel(stock, **{"return_single_mask": False} | options)


def prompts(count=6):
    """Prompts of every kind, and sizes of images."""
    rng = np.random.default_rng(3)
    for index in range(count):
        points = 1 + index
        labels = rng.integers(0, 2, (1, points + 1)).astype(np.float32)
        labels[0, -1] = -1
        if index % 3 == 2:
            labels[0, -2:] = 2, 3
        yield {
            "image_embeddings": rng.normal(size=(1, 32, 8, 8)).astype(np.float32),
            "point_coords": (rng.random((1, points + 1, 2)) * 64).astype(np.float32),
            "point_labels": labels,
            "mask_input": rng.normal(size=(1, 1, 32, 32)).astype(np.float32),
            "has_mask_input": np.array([index % 2], np.float32),
            "orig_im_size": rng.integers(20, 90, 2).astype(np.float32),
        }


def relative(found, expected):
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.slow  # traces a graph
def test_names_and_shapes_are_the_examples(exported):
    graph = onnx.load(str(exported)).graph

    def shapes(values):
        axes = {value.name: value.type.tensor_type.shape.dim for value in values}
        return {name: [axis.dim_value or axis.dim_param for axis in a] for name, a in axes.items()}

    assert shapes(graph.input) == {
        "image_embeddings": [1, 32, 8, 8],
        "point_coords": [1, "num_points", 2],
        "point_labels": [1, "num_points"],
        "mask_input": [1, 1, 32, 32],
        "has_mask_input": [1],
        "orig_im_size": [2],
    }
    assert list(shapes(graph.output)) == ["masks", "iou_predictions", "low_res_masks"]
    assert shapes(graph.output)["low_res_masks"] == [1, 4, 32, 32]


@pytest.mark.slow  # traces a graph
def test_it_computes_what_the_example_computes(exported, stock):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    for prompt in prompts():
        found = session.run(["masks", "iou_predictions", "low_res_masks"], prompt)
        tensors = {name: torch.from_numpy(value) for name, value in prompt.items()}
        expected = original(stock)(**tensors)
        for ours, theirs in zip(found, expected, strict=True):
            assert relative(ours, theirs.numpy()) < 1e-5


@pytest.mark.slow  # traces a graph
def test_it_gives_what_the_predictor_gives(exported, stock):
    """Set up as the example's notebook does it: coordinates in the network's input, a padding."""
    import onnxruntime
    from segment_anything import SamPredictor

    image = picture(48, 80)
    predictor = SamPredictor(stock)
    predictor.set_image(image)
    points, labels = np.array([[30.0, 20.0], [60.0, 40.0]]), np.array([1, 0])
    masks, iou, low = predictor.predict(points, labels, multimask_output=True, return_logits=True)
    placed = predictor.transform.apply_coords(points, image.shape[:2])
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    found = session.run(
        ["masks", "iou_predictions", "low_res_masks"],
        {
            "image_embeddings": predictor.get_image_embedding().numpy(),
            "point_coords": np.concatenate([placed, np.zeros((1, 2))])[None].astype(np.float32),
            "point_labels": np.concatenate([labels, [-1]])[None].astype(np.float32),
            "mask_input": np.zeros((1, 1, 32, 32), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
            "orig_im_size": np.array(image.shape[:2], np.float32),
        },
    )
    for ours, theirs in zip(found, (masks, iou, low), strict=True):
        assert relative(ours[0, 1:], theirs) < 1e-5


@pytest.mark.parametrize("single", [False, True])
def test_what_is_traced_computes_what_the_example_computes(stock, single):
    ours = PromptDecoder(ours_like(stock), single_mask=single)
    theirs = original(stock, return_single_mask=single)
    with torch.inference_mode():
        for prompt in prompts():
            tensors = {name: torch.from_numpy(value) for name, value in prompt.items()}
            masks, iou, low = theirs(**tensors)
            found_iou, found_low = ours(*(tensors[name] for name in INPUTS))
            assert relative(found_iou.numpy(), iou.numpy()) < 1e-5
            assert relative(found_low.numpy(), low.numpy()) < 1e-5
            size = tuple(int(value) for value in prompt["orig_im_size"])
            assert relative(ours.in_image(found_low, size).numpy(), masks.numpy()) < 1e-5


@pytest.mark.slow  # traces a graph
def test_what_computes_something_else_is_not_written(
    exported, stock, checkpoint, tmp_path, monkeypatch
):
    other = PromptDecoder(ours_like(stock_sam(seed=6)), single_mask=False).eval()
    with pytest.raises(ArtefactError, match="off by"):
        verify(other, exported, 0)
    single = PromptDecoder(ours_like(stock), single_mask=True).eval()
    with pytest.raises(ArtefactError, match=r"\(1, 4.* should be \(1, 1"):
        verify(single, exported, 0)
    monkeypatch.setattr(
        sam_layout, "write_decoder", lambda _, path, __: path.write_bytes(exported.read_bytes())
    )
    out = tmp_path / "a.onnx"
    with pytest.raises(ArtefactError):
        export_decoder(checkpoint, out, ExportSettings(layout="sam", single_mask=True))
    assert not list(tmp_path.iterdir())
    export_decoder(checkpoint, out, SAM)
    assert out.exists()


def test_settings_that_cannot_work(tmp_path):
    for settings in ({"format": "tensorrt"}, {"precision": "fp16"}):
        with pytest.raises(SettingsError, match="fp32 alone"):
            ExportSettings(layout="sam", **settings)
    with pytest.raises(SettingsError, match="--layout onnx"):
        ExportSettings(layout="onnx")
    with pytest.raises(SettingsError, match="for --layout sam"):
        ExportSettings(single_mask=True)
    for out in (None, tmp_path / "folder"):
        with pytest.raises(SettingsError, match=r"ends in \.onnx"):
            export_decoder("tiny", out, SAM)


def test_networks_with_another_decoder_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sam_layout, "load_network", lambda *_, **__: (Network(), None))
    with pytest.raises(ModelError, match="decoder of a Network takes other inputs"):
        export_decoder("tiny", tmp_path / "a.onnx", SAM)


assert SMALL.embedding_size == 8  # what shapes above are of
