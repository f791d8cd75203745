"""A bfloat16 graph with float32 in its place, for machines where nothing computes bfloat16.

Weights keep the values that bfloat16 left of them; intermediate values are not rounded. So it shows
that graph and weights are right, and how far rounding of weights alone takes the result.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from alps.engine.base.digests import file_sha256
from alps.engine.runtimes.artefact import Artefact, StoredFile

if TYPE_CHECKING:
    import onnx


def float32_stand_in(artefact: Artefact, folder: Path) -> Artefact:
    """Write an artefact's graphs into ``folder``, every bfloat16 a float32."""
    import onnx
    from onnx import TensorProto, numpy_helper

    graphs, files = {}, []
    for part, stored in artefact.manifest.graphs.items():
        model = onnx.load(str(artefact.path(part)))
        for tensor in _tensors(model):
            if tensor.data_type == TensorProto.BFLOAT16:
                values = numpy_helper.to_array(tensor).astype("float32")
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        for node in model.graph.node:
            for attribute in node.attribute:
                if node.op_type == "Cast" and attribute.name == "to":
                    attribute.i = TensorProto.FLOAT
        for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
            if value.type.tensor_type.elem_type == TensorProto.BFLOAT16:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
        path = folder / stored.file
        onnx.save(
            model,
            str(path),
            save_as_external_data=True,
            location=f"{path.name}.data",
            size_threshold=1 << 20,
        )
        for written in (path, path.with_name(f"{path.name}.data")):
            if written.exists():
                files.append(StoredFile(written.name, written.stat().st_size, file_sha256(written)))
        graphs[part] = replace(
            stored,
            inputs=tuple(replace(port, dtype="float32") for port in stored.inputs),
            outputs=tuple(replace(port, dtype="float32") for port in stored.outputs),
        )
    manifest = replace(artefact.manifest, graphs=graphs, files=tuple(files))
    return Artefact(folder, manifest)


def _tensors(model: "onnx.ModelProto") -> "list[onnx.TensorProto]":
    """Weights and constants."""
    constants = [
        attribute.t
        for node in model.graph.node
        for attribute in node.attribute
        if attribute.HasField("t")
    ]
    return [*model.graph.initializer, *constants]
