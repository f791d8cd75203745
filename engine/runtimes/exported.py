"""A runtime made of four exported graphs, whoever runs them.

What the graphs take and give stands in ``alps.export.graphs`` and in every manifest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from alps.engine.base.errors import ArtefactError
from alps.engine.runtimes.artefact import PARTS, Artefact, StoredGraph
from alps.engine.runtimes.batching import (
    InPasses,
    capacity_of,
    decode_pass,
    in_batches,
)
from alps.engine.runtimes.protocol import DecodedMasks
from alps.engine.sam.absorbed import DecodedPoints


class RunningGraph(Protocol):
    """One graph, ready to run."""

    limit: int | None  # images, points or prompts in one call

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Outputs, in the manifest's order, on the inputs' device."""


def empty_outputs(
    graph: StoredGraph, inputs: Sequence[Tensor], device: torch.device
) -> list[Tensor]:
    """Tensors for the outputs of a graph; its dynamic axes are as long as in these inputs."""
    length = {
        axis: size
        for port, tensor in zip(graph.inputs, inputs, strict=True)
        for axis, size in zip(port.shape, tensor.shape, strict=True)
    }
    return [
        torch.empty(
            [axis if isinstance(axis, int) else length[axis] for axis in port.shape],
            dtype=getattr(torch, port.dtype),
            device=device,
        )
        for port in graph.outputs
    ]


@dataclass
class GraphPoints(DecodedPoints):
    """What the graphs leave of N points, and what their masks take of the image besides."""

    skips: list[Tensor]


class GraphRuntime(InPasses):
    """A ``Runtime`` of exported graphs.

    Args:
        artefact: where they come from.
        graphs: by part; a runtime that only encodes, or only decodes, needs only its own.
        device: where their inputs and outputs lie.
    """

    def __init__(
        self, artefact: Artefact, graphs: Mapping[str, RunningGraph], device: torch.device
    ) -> None:
        self.artefact, self.graphs, self.device = artefact, graphs, device
        self.config = artefact.config
        self.precision = artefact.manifest.precision
        self.capacity = capacity_of(device, self.config)
        if (encoder := graphs.get("encoder")) and encoder.limit:
            images = min(self.capacity.images, encoder.limit)
            self.capacity = replace(self.capacity, images=images)
        if (transform := graphs.get("transform")) and transform.limit:
            points = min(self.capacity.points, transform.limit)
            self.capacity = replace(self.capacity, points=points)
        self.on_callers_cores = False  # ONNX Runtime has threads of its own

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, S, S), normalised -> embeddings (B, C, h, w); see ``Runtime``."""
        self._needed("encoder")
        return in_batches(self._encode, pixels, self.capacity.images)

    def share(self, embedding: Tensor) -> list[Tensor]:
        """What all points of an image (C, h, w) share."""
        return self.graphs["share"](embedding.to(self.device))

    def transform(self, image: list[Tensor], xy: Tensor) -> "GraphPoints":
        """Points (N, 2) in input pixels, up to their predicted IoU."""
        # Its inputs are the first that ``share`` gives, then the points; the rest is for masks.
        taken = len(self.artefact.manifest.graphs["transform"].inputs) - 1
        mask_tokens, image_tokens, predicted_iou = self.graphs["transform"](*image[:taken], xy)
        return GraphPoints(mask_tokens, image_tokens, predicted_iou, image[taken:])

    def masks(self, decoded: DecodedPoints, point: Tensor, output: Tensor) -> Tensor:
        """Logits (S, 4h, 4w) of masks, ``point`` (S,) ascending and ``output`` (S,) int64."""
        assert isinstance(decoded, GraphPoints)
        graph = self.graphs["masks"]
        prompts, row = point.unique(return_inverse=True)
        at_once = graph.limit or len(prompts)
        logits = [
            graph(decoded.image_tokens[some], decoded.mask_tokens[some], *decoded.skips)[0]
            for some in prompts.split(at_once)
        ]
        return torch.cat(logits)[row, output]

    def _encode(self, batch: Tensor) -> Tensor:
        return self.graphs["encoder"](batch.to(self.device, torch.float32))[0]

    def _share(self, embedding: Tensor) -> list[Tensor]:
        self._needed("share")
        return self.share(embedding)

    def _run(
        self, image: list[Tensor], passes: Sequence[Tensor], threshold: float
    ) -> list[DecodedMasks]:
        side = self.config.low_resolution_size
        return [decode_pass(self, image, points, threshold, side) for points in passes]

    def _needed(self, part: str) -> None:
        if part not in self.graphs:
            raise ArtefactError(
                f"{self.artefact.folder}: its {part} was not loaded; load it with parts={PARTS}"
            )
