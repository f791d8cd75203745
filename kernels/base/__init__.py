"""What kernels are made of: compiled code's cache, intrinsics, math, threads, BLAS, GPU arrays."""
