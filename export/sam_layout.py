"""The point decoder as Segment Anything's own ONNX example has it, for web demos and other tools.

    image_embeddings (1, C, h, w)   point_coords (1, N, 2)   point_labels (1, N)
    mask_input (1, 1, 4h, 4w)       has_mask_input (1,)      orig_im_size (2,)
    -> masks (1, M, H, W) logits    iou_predictions (1, M)   low_res_masks (1, M, 4h, 4w)

Points are x, y in pixels of the network's input, the image's longer side being ``image_size``;
labels 1 foreground, 0 background, 2 and 3 the corners of a box, -1 none: one of these is expected
where there is no box. orig_im_size is height, width. M is 4, the mask for unambiguous prompts
first; with a single mask 1: that one for several points, else the best of the others. All are
float32 (segment_anything/utils/onnx.py).
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alps.engine.base.atomic import whole
from alps.engine.base.errors import ArtefactError, ModelError, SettingsError
from alps.engine.models.checkpoints import load_network
from alps.engine.models.registry import find_model, given_name
from alps.engine.sam.model import SamLike
from alps.export import onnx as onnx_files
from alps.export.graphs import Graph
from alps.export.settings import ExportSettings
from alps.export.verify import Deviation

OPSET = 18  # older tools know it; GELU is written out then
INPUTS = ("image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input")
SIZE = "orig_im_size"
MASKS, IOU, LOW = "masks", "iou_predictions", "low_res_masks"
# From how many points on the mask for unambiguous prompts is taken, and by how much.
FEW_POINTS, PREFERENCE = 2.5, 1000.0
ALLOWED = 1e-5  # rms, over the output's own: float32 in another order
SIZES = ((480, 640), (640, 427), (77, 31))  # height, width of images that it is verified with


def export_decoder(
    model: str | Path, out: Path | None, settings: ExportSettings
) -> dict[str, Deviation]:
    """Write the decoder to an ``.onnx`` file, verified in ONNX Runtime before it has its name.

    Returns:
        By output the largest deviation from PyTorch over all prompts that were tried.

    Raises:
        ModelError: no such model, or its decoder takes other inputs.
        SettingsError: OUT or a setting cannot work.
        ArtefactError: a package is missing, or the file does not compute what PyTorch does.
    """
    if out is None or out.suffix != ".onnx":
        raise SettingsError("--layout sam writes one file; give OUT, a name that ends in .onnx")
    onnx_files.require_packages()
    sam, info = load_network(find_model(model), name=given_name(model))
    if not isinstance(sam, SamLike):
        raise ModelError(
            f"{model}: the decoder of a {type(sam).__name__} takes other inputs; leave out "
            "--layout, or take a SAM or MobileSAM"
        )
    decoder = PromptDecoder(sam.requires_grad_(False), single_mask=settings.single_mask).eval()
    out.parent.mkdir(parents=True, exist_ok=True)
    notes = {"alps.model": info.name, "alps.sha256": info.sha256}
    with whole(out) as part:
        write_decoder(decoder, part, notes)
        found = verify(decoder, part, settings.seed)
    return found


class PromptDecoder(nn.Module):
    """All but the masks in the image's size; those ``_with_masks`` adds to the traced graph."""

    positions: Tensor  # (C, h, w)

    def __init__(self, sam: SamLike, *, single_mask: bool) -> None:
        super().__init__()
        self.prompts, self.decoder = sam.prompt_encoder, sam.mask_decoder
        self.single_mask = single_mask
        self.config = sam.config
        self.register_buffer("positions", sam.prompt_encoder.dense_positions())

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Predicted IoU (1, M) and logits (1, M, 4h, 4w)."""
        given = has_mask_input * self.prompts.masks(mask_input)
        dense = given + (1 - has_mask_input) * self.prompts.no_mask()
        tokens = self._tokens(point_coords, point_labels)
        found = self.decoder.transform(image_embeddings + dense, self.positions, tokens[:, None])
        logits = self.decoder.masks(found.mask_tokens[:, 0], found.image_tokens[:, 0])
        iou = found.predicted_iou[:, 0]
        if self.single_mask:
            logits, iou = self._one_of(logits, iou, point_coords.shape[1])
        return iou, logits

    def _tokens(self, xy: Tensor, labels: Tensor) -> Tensor:
        kinds = labels[..., None]
        placed = self.prompts.pe_layer((xy + 0.5) / self.config.image_size)
        tokens = torch.where(kinds == -1, self.prompts.not_a_point_embed.weight[0], placed)
        for kind, own in enumerate(self.prompts.point_embeddings):
            tokens = tokens + own.weight[0] * (kinds == kind)
        return tokens

    def _one_of(self, logits: Tensor, iou: Tensor, points: int) -> tuple[Tensor, Tensor]:
        preferred = torch.zeros(iou.shape[1])
        preferred[0] = PREFERENCE
        best = (iou + (points - FEW_POINTS) * preferred).argmax(1, keepdim=True)
        chosen = best[:, :, None, None].expand(-1, -1, *logits.shape[2:])
        return logits.gather(1, chosen), iou.gather(1, best)

    def in_image(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits (1, M, 4h, 4w) in an image's size (height, width): what the graph must give."""
        side = self.config.image_size
        scale = torch.tensor(float(side)) / max(size)
        height, width = torch.floor(scale * torch.tensor(size) + 0.5).int().tolist()
        whole_input = F.interpolate(logits, (side, side), mode="bilinear", align_corners=False)
        shown = whole_input[..., :height, :width]
        return F.interpolate(shown, size, mode="bilinear", align_corners=False)


def write_decoder(decoder: PromptDecoder, path: Path, notes: dict[str, str]) -> None:
    """Trace the decoder to a file, with masks in the size of the image."""
    import onnx

    example = dict(zip(INPUTS, _prompt(decoder, 2, 0, torch.Generator()), strict=True))
    points = dict.fromkeys(("point_coords", "point_labels"), "num_points")
    graph = Graph("decoder", decoder, example, (IOU, LOW), points, axis=1)
    with tempfile.TemporaryDirectory(prefix="alps-export-") as name:
        stored = onnx_files.write_graph(graph, Path(name), OPSET, notes, onnx_files.EXTERNAL_BYTES)
        model = onnx.load(str(Path(name) / stored.file))
    _with_masks(model, decoder.config.image_size)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def _with_masks(model: Any, side: int) -> None:
    """Add the input orig_im_size and the output masks to a traced graph, in place.

    Written node by node: sizes are values of an input, which no tracing follows.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    batch_and_masks = _leading(graph, LOW)
    constants: dict[str, tuple[int, list[Any]]] = {
        "side": (TensorProto.FLOAT, [float(side)]),
        "half": (TensorProto.FLOAT, [0.5]),
        "input_size": (TensorProto.INT64, [*batch_and_masks, side, side]),
        "leading": (TensorProto.INT64, batch_and_masks),
        "from_zero": (TensorProto.INT64, [0, 0]),
        "image_axes": (TensorProto.INT64, [2, 3]),
    }
    for name, (kind, values) in constants.items():
        graph.initializer.append(helper.make_tensor(name, kind, [len(values)], values))
    resize = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    graph.node.extend(
        [
            helper.make_node("Resize", [LOW, "", "", "input_size"], ["whole_input"], **resize),
            helper.make_node("ReduceMax", [SIZE], ["longer"], keepdims=1),
            helper.make_node("Div", ["side", "longer"], ["scale"]),
            helper.make_node("Mul", ["scale", SIZE], ["scaled"]),
            helper.make_node("Add", ["scaled", "half"], ["scaled_and_half"]),
            helper.make_node("Floor", ["scaled_and_half"], ["rounded"]),
            helper.make_node("Cast", ["rounded"], ["shown_size"], to=TensorProto.INT64),
            helper.make_node(
                "Slice", ["whole_input", "from_zero", "shown_size", "image_axes"], ["shown"]
            ),
            helper.make_node("Cast", [SIZE], ["image_size"], to=TensorProto.INT64),
            helper.make_node("Concat", ["leading", "image_size"], ["masks_size"], axis=0),
            helper.make_node("Resize", ["shown", "", "", "masks_size"], [MASKS], **resize),
        ]
    )
    graph.input.append(helper.make_tensor_value_info(SIZE, TensorProto.FLOAT, [2]))
    shape: list[int | str | None] = [*batch_and_masks, "height", "width"]
    graph.output.insert(0, helper.make_tensor_value_info(MASKS, TensorProto.FLOAT, shape))


def _leading(graph: Any, name: str) -> list[int]:
    """The first two axes of an output."""
    shape = next(value for value in graph.output if value.name == name).type.tensor_type.shape
    return [axis.dim_value for axis in shape.dim][:2]


def verify(decoder: PromptDecoder, path: Path, seed: int) -> dict[str, Deviation]:
    """Hold a file in ONNX Runtime against PyTorch, on the CPU, prompt by prompt.

    Returns:
        By output the largest deviation.

    Raises:
        ArtefactError: one is more than rounding.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(seed)
    worst: dict[str, Deviation] = {}
    for prompt, size in _prompts(decoder, generator):
        with torch.inference_mode():
            iou, logits = decoder(*prompt)
            expected = {MASKS: decoder.in_image(logits, size), IOU: iou, LOW: logits}
        feeds = {name: value.numpy() for name, value in zip(INPUTS, prompt, strict=True)}
        feeds[SIZE] = torch.tensor(size, dtype=torch.float32).numpy()
        for name, array in zip(expected, session.run(list(expected), feeds), strict=True):
            exact, found = expected[name], torch.from_numpy(array)
            if found.shape != exact.shape:
                raise ArtefactError(
                    f"the export does not compute what PyTorch does: {name} is "
                    f"{tuple(found.shape)} and should be {tuple(exact.shape)}; nothing was "
                    "written. Try another version of onnx and onnxruntime"
                )
            off = Deviation.of(found, exact.double())
            if name not in worst or off.rms > worst[name].rms:
                worst[name] = off
    for name, off in worst.items():
        if off.rms > ALLOWED:
            raise ArtefactError(
                f"the export does not compute what PyTorch does: {name} is off by {off.rms:.1e} "
                f"of its own, {ALLOWED:.0e} is allowed; nothing was written. Try another version "
                "of onnx and onnxruntime"
            )
    return worst


def _prompts(
    decoder: PromptDecoder, generator: torch.Generator
) -> Iterator[tuple[tuple[Tensor, ...], tuple[int, int]]]:
    """Prompts of every kind, with and without a mask, and the sizes of their images."""
    for index, size in enumerate(SIZES):
        for points in (1, 2, 4):
            yield _prompt(decoder, points, index, generator), size


def _prompt(
    decoder: PromptDecoder, points: int, kind: int, generator: torch.Generator
) -> tuple[Tensor, ...]:
    """Inputs in the order of ``INPUTS``: points and what stands for no box, or points and a box."""
    config = decoder.config
    side, low, channels = (
        config.embedding_size,
        config.low_resolution_size,
        config.embedding_channels,
    )
    count = points + (2 if kind == 1 else 1)
    labels = torch.randint(0, 2, (1, count), generator=generator).float()
    labels[0, points:] = torch.tensor([2.0, 3.0]) if kind == 1 else -1.0
    return (
        torch.randn(1, channels, side, side, generator=generator),
        torch.rand(1, count, 2, generator=generator) * config.image_size,
        labels,
        torch.randn(1, 1, low, low, generator=generator),
        torch.tensor([float(kind == 2)]),
    )
