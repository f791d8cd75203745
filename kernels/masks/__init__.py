"""Masks as run lengths: from and to pixels, COCO's code, areas, boxes and unions."""
