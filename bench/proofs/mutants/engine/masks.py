"""Wrong changes of engine/masks: crops, the gate and everything mode."""

from alps.bench.proofs.mutants import Mutant

EVERYTHING = ("tests/engine/masks/test_everything.py",)
GATE = ("tests/engine/masks/test_gate.py",)
FOLLOWING = ("tests/engine/masks/test_postprocess.py",)
OPTION = "tests/engine/cli/test_option_effects.py::test_an_option_has_its_effect"

MUTANTS = [
    Mutant(
        "engine/masks/postprocess/steps.py",
        old="descending=True",
        new="descending=False",
        tests=FOLLOWING,
        why="of duplicates on a GPU the worst stays",
    ),
    Mutant(
        "engine/masks/postprocess/device.py",
        old="if not self.tile.is_whole or not",
        new="if not",
        tests=FOLLOWING,
        why="masks for which there was no room are lost",
    ),
    Mutant(
        "engine/masks/crops.py",
        old="overlap = int(overlap_ratio * min(height, width) * 2 / count)",
        new="overlap = int(overlap_ratio * max(height, width) * 2 / count)",
        tests=EVERYTHING,
        why="crops overlap by a share of the long side",
    ),
    Mutant(
        "engine/masks/crops.py",
        old="margin = 1 / (2 * per_side)",
        new="margin = 1 / (2 * per_side + 1)",
        tests=EVERYTHING,
        why="points are not the centres of their cells",
    ),
    Mutant(
        "engine/masks/crops.py",
        old="int(side * scale + 0.5)",
        new="int(side * scale)",
        tests=EVERYTHING,
        why="the network's input is a pixel short",
    ),
    Mutant(
        "engine/masks/gate.py",
        old="return (area >= self.min_area) & (area <= self.max_area)",
        new="return (area > self.min_area) & (area <= self.max_area)",
        tests=GATE,
        why="a mask of just the least area is dropped",
    ),
    Mutant(
        "engine/masks/gate.py",
        old="at_crop = np.abs(boxes - crop_edges) <= EDGE_PIXELS",
        new="at_crop = np.abs(boxes - crop_edges) < EDGE_PIXELS",
        tests=GATE,
        why="a box twenty pixels from a crop's edge counts as whole",
    ),
    Mutant(
        "engine/masks/gate.py",
        old="    small = sizes < min_area\n    if small.any():\n        mask = mask |",
        new="    small = sizes <= min_area\n    if small.any():\n        mask = mask |",
        tests=EVERYTHING + GATE,
        why="holes of just the least area are filled",
    ),
    Mutant(
        "engine/masks/gate.py",
        old="            small[np.argmax(sizes)] = False\n",
        new="            small[np.argmin(sizes)] = False\n",
        tests=EVERYTHING + GATE,
        why="of islands that are all too small the smallest stays",
    ),
    Mutant(
        "engine/masks/gate.py",
        old="connectivity=8",
        new="connectivity=4",
        tests=EVERYTHING + GATE,
        why="regions that touch at a corner come apart",
    ),
    Mutant(
        "engine/masks/gate.py",
        old="points=points[decoded.point_index.cpu().numpy()[kept]],",
        new="points=points[decoded.point_index.cpu().numpy()[: len(kept)]],",
        tests=EVERYTHING,
        why="masks carry the points of others",
    ),
    Mutant(
        "engine/masks/generator.py",
        old="                    after &= gate.valid  # a filled hole may have been nodata\n",
        new="                    pass\n",
        tests=GATE,
        why="filled holes take in nodata",
    ),
    Mutant(
        "engine/masks/generator.py",
        old="masks = masks.take(box_nms(masks.boxes, 1 / crop_area, s.crop_nms_thresh))",
        new="masks = masks.take(box_nms(masks.boxes, crop_area, s.crop_nms_thresh))",
        tests=EVERYTHING,
        why="of duplicates the one from the larger crop stays",
    ),
    Mutant(
        "engine/masks/generator.py",
        old="return Gate(valid, max(1, min_area), max_area * height * width)",
        new="return Gate(valid, max(1, min_area))",
        tests=(f"{OPTION}[label-max_area]",),
        why="no mask is too large",
    ),
    Mutant(
        "engine/masks/generator.py",
        old='order = np.argsort(-found.candidates.predicted_iou, kind="stable")',
        new='order = np.argsort(found.candidates.predicted_iou, kind="stable")',
        tests=EVERYTHING,
        why="the worst mask comes first",
    ),
    Mutant(
        "engine/masks/generator.py",
        old="            pooled[own] =",
        new="            pooled[own[::-1]] =",
        tests=EVERYTHING,
        why="embeddings are shuffled between masks",
    ),
    Mutant(
        "engine/masks/generator.py",
        old="covered = union(masks.runs.take(masks.area <= WELL_COVERED_CELLS * cell))",
        new="covered = union(masks.runs)",
        tests=EVERYTHING,
        why="coarse to fine asks nothing under large masks",
    ),
    Mutant(
        "engine/masks/generator.py",
        old="np.ones(len(points), bool) if gate.valid is None else _on(points, gate.valid)",
        new="np.ones(len(points), bool)",
        tests=EVERYTHING,
        why="points are asked on nodata",
    ),
    Mutant(
        "engine/masks/settings.py",
        old="    crop_overlap_ratio: float = 512 / 1500",
        new="    crop_overlap_ratio: float = 512 / 1024",
        tests=EVERYTHING,
        why="another default than stock SAM's",
    ),
]
