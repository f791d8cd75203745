"""Label maps in, segmentation models out; and the making of the shipped `tiny`."""
