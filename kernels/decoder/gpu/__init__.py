"""The mask decoder's pixel side on GPUs, in Triton; imported only where it runs or is compiled."""
