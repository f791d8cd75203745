"""Graphs as ONNX files, through PyTorch's exporter."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from alps.engine.base.errors import ArtefactError
from alps.engine.runtimes.artefact import FloatType, Port, StoredGraph
from alps.export.graphs import Graph

# 20 has GELU as one operator. In bfloat16 convolutions are defined from 22 on.
OPSETS: Mapping[str, int] = {"fp32": 20, "fp16": 20, "bf16": 22, "int8": 20}

# A file of ONNX, a protocol buffer, ends at 2 GB; what is near lies beside it.
EXTERNAL_BYTES = 1_800_000_000


def write_graph(
    graph: Graph, folder: Path, opset: int, metadata: Mapping[str, str], external_bytes: int
) -> StoredGraph:
    """Trace a graph into ``folder``, weights of ``external_bytes`` and more in a file beside it.

    Raises:
        ArtefactError: a package is missing.
    """
    traced = _trace(graph, opset)
    model = traced.model
    # Where in which file of this machine a node comes from is nobody's business.
    for value in [*model.graph.inputs, *model.graph.outputs]:
        value.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in model.graph.initializers.values():
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.graph.name = graph.name
    model.metadata_props.clear()
    model.metadata_props.update(metadata)
    constants = [value.const_value for value in model.graph.initializers.values()]
    weights = sum(constant.nbytes for constant in constants if constant is not None)
    name = f"{graph.name}.onnx"
    traced.save(folder / name, external_data=weights >= external_bytes)
    return StoredGraph(name, _ports(model.graph.inputs), _ports(model.graph.outputs))


def require_packages() -> None:
    """Raise the error that names the extra, before any work is done."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(name)
        except ImportError as error:
            raise ArtefactError(
                f"exporting needs {name}, which is not installed ({error}): pip install "
                "'alps-engine[onnx]'"
            ) from error


def _trace(graph: Graph, opset: int) -> torch.onnx.ONNXProgram:
    axes: dict[str, Any] = {}
    dynamic = []
    for name in graph.example:
        axis = graph.dynamic.get(name)
        if axis is not None and axis not in axes:
            axes[axis] = torch.export.Dim(axis, min=1, max=1 << 16)
        dynamic.append({graph.axis: axes[axis]} if axis is not None else None)
    with _quiet():
        program = torch.onnx.export(
            graph.module.eval().requires_grad_(False),
            tuple(graph.example.values()),
            dynamo=True,
            opset_version=opset,
            input_names=list(graph.example),
            output_names=list(graph.outputs),
            dynamic_shapes=tuple(dynamic),
            verbose=False,
        )
    assert program is not None  # that is for the exporter of before, which writes files itself
    return program


def _ports(values: Any) -> tuple[Port, ...]:
    types: dict[str, FloatType] = {
        "FLOAT": "float32", "FLOAT16": "float16", "BFLOAT16": "bfloat16",
    }  # fmt: skip
    return tuple(
        Port(
            value.name,
            types[value.dtype.name],
            tuple(axis if isinstance(axis, int) else axis.value for axis in value.shape),
        )
        for value in values
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of operators nobody uses here, and of its own deprecations."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
