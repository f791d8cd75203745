"""Of the PyTorch runtime on a GPU: images sent as bytes, kernels of ours, CUDA graphs."""
