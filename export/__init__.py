"""Models as engines: ONNX and TensorRT artefacts, each held against PyTorch as it is written."""
