"""A segmentation model over an archive without labels: windows blended, a label map a source."""
