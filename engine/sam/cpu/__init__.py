"""What a CPU runs of SAM in float32 beside the network itself."""
