"""Where SAM's network runs: PyTorch, ONNX Runtime, TensorRT, behind one protocol."""
