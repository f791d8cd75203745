"""Wrong changes of kernels/: CPU versions, references, and those of a GPU in the simulator."""

from alps.bench.proofs.mutants import Mutant, changes_of


def _of(path: str, test: str, *changes: tuple[str, str, str]) -> list[Mutant]:
    """Mutants of one file, noticed by one file of tests: old text, new text, what is wrong."""
    return changes_of(f"kernels/{path}.py", (f"tests/kernels/test_{test}.py",), *changes)


MUTANTS = [
    *_of(
        "superpixels/cpu",
        "superpixels",
        (
            "is_nearer = distance < best[k]",
            "is_nearer = distance <= best[k]",
            "of seeds equally near the last is taken",
        ),
        (
            "min(row_cell[row] + 2, grid[0])",
            "min(row_cell[row] + 1, grid[0])",
            "the seeds below are not asked",
        ),
        (
            "            if region >= 0:\n",
            "            if region > 0:\n",
            "the first seed never moves",
        ),
    ),
    *_of(
        "superpixels/gpu",
        "superpixels",
        (
            "cuda.atomic.add(own, place + 3, np.int32(y))",
            "cuda.atomic.add(own, place + 3, np.int32(x))",
            "seeds move to a wrong row",
        ),
        (
            "    if count > 0:\n            total = sums[seed, i]",
            "    if True:\n            total = sums[seed, i]",
            "a seed without pixels is divided by nothing",
        ),
    ),
    *_of(
        "superpixels/rules",
        "superpixels",
        (
            "return np.where(count > 0, mean, before)",
            "return mean",
            "a seed without pixels goes to the corner, everywhere",
        ),
        (
            "    if valid.shape != size or valid.dtype != bool:\n",
            "    if valid.shape != size:\n",
            "validity of another dtype is taken",
        ),
    ),
    *_of(
        "nms/cpu",
        "nms",
        (
            "dropped[i] = 1 if iou > threshold else dropped[i]",
            "dropped[i] = 1 if iou >= threshold else dropped[i]",
            "an IoU that only reaches the threshold drops a box",
        ),
        (
            "(width if width > zero else zero) * (height if height > zero else zero)",
            "width * height",
            "boxes beside each other overlap",
        ),
        (
            "return order[_greedy(",
            "return np.sort(order)[_greedy(",
            "indices are those of another order",
        ),
    ),
    *_of(
        "nms/rules",
        "nms",
        ("    if unknown.any():\n", "    if unknown.all():\n", "a NaN among scores passes"),
        (
            'if scores.dtype.kind != "f":',
            'if scores.dtype.kind == "i":',
            "unsigned scores are sorted the wrong way",
        ),
    ),
    *_of(
        "nms/gpu",
        "nms",
        (
            "bits = dropped[tile, word]\n",
            "bits = np.int64(0)\n",
            "what an earlier word has dropped drops others",
        ),
        (
            "for bit in range(max(0, mine + 1 - word * WORD)",
            "for bit in range(max(0, mine - word * WORD)",
            "a box drops itself",
        ),
        (
            "kept[tile, place], seat[tile, box] = box, place",
            "kept[tile, place], seat[tile, box] = box, box",
            "a mask's seat is not where it is listed",
        ),
    ),
    *_of(
        "nms/reference",
        "nms",
        (
            "overlap = np.maximum(width, 0) * np.maximum(height, 0)",
            "overlap = width * height",
            "the reference takes two negative sides for an overlap",
        ),
    ),
    *_of(
        "paint/cpu",
        "paint",
        (
            "zeros = number + zeros if pair > 1 else number",
            "zeros = number + zeros if pair > 0 else number",
            "the third run is taken for a difference",
        ),
        (
            "if at < 0 or ones < 0 or ones > labels.size - pixel:",
            "if at < 0 or ones > labels.size - pixel:",
            "a negative run is painted",
        ),
        (
            "        if pixel != labels.size:\n            return mask\n",
            "",
            "a mask that ends early is no fault",
        ),
    ),
    *_of(
        "paint/rules",
        "paint",
        (
            "np.lexsort((-ids, predicted_iou, -area.astype(np.int64)))",
            "np.lexsort((ids, predicted_iou, -area.astype(np.int64)))",
            "of equal masks the higher id lies on top",
        ),
        (
            "np.lexsort((-ids, predicted_iou,",
            "np.lexsort((-ids, -predicted_iou,",
            "of equal areas the lower predicted IoU lies on top",
        ),
        ("-area.astype(np.int64)", "-area", "unsigned areas turn the order"),
        (
            "not 0 <= order.min() <= order.max() < masks",
            "not 0 <= order.max() < masks",
            "a negative place in the order passes",
        ),
    ),
    *_of(
        "pool/cpu",
        "pool",
        ("if column != width and height > 0:", "if False:", "runs that end early pass"),
        (
            "if left < 0 or left > (width - column) * height - row:",
            "if left > (width - column) * height - row:",
            "negative runs pass",
        ),
        (
            "gain[top + 1, cell] -= below * part",
            "gain[top + 1, cell] += below * part",
            "the part of a pixel in the next cell stays",
        ),
        (
            "sums = np.zeros((masks, channels), np.float64)",
            "sums = np.zeros((masks, channels), np.float32)",
            "long sums lose digits",
        ),
    ),
    *_of(
        "pool/rules",
        "pool",
        (
            "(np.arange(n + 1) - o) / s, 0, c)",
            "(np.arange(n + 1) + o) / s, 0, c)",
            "a crop's origin moves the other way",
        ),
        (
            "    if not (total > 0).all():\n",
            "    if not (total > 0).any():\n",
            "one empty mask among others passes",
        ),
    ),
    *_of(
        "pool/gpu",
        "pool",
        (
            "cuda.atomic.add(gain, (tile, mask, top + 1, cell), below * part)",
            "cuda.atomic.add(gain, (tile, mask, top, cell), below * part)",
            "a part leaves the wrong cell",
        ),
        (
            "    if sign < 0:  # the mask reaches",
            "    if False:  # the mask reaches",
            "a mask that fills its last word never ends",
        ),
    ),
    *_of(
        "pool/reference",
        "pool",
        (
            "np.clip(np.minimum(left + 1, end) - np.maximum(left, start), 0, None)",
            "np.minimum(left + 1, end) - np.maximum(left, start)",
            "the reference counts overlaps below nothing",
        ),
    ),
    *_of(
        "colour/cpu",
        "colour",
        (
            "            if lengths[run] < 0 or end > pixels:\n",
            "            if end > pixels:\n",
            "negative runs pass",
        ),
        (
            "sums[mask, 1, channel] += squares",
            "sums[mask, 1, channel] = squares",
            "only the last run's squares count",
        ),
    ),
    *_of(
        "colour/rules",
        "colour",
        (
            "    empty = np.flatnonzero(area == 0)\n",
            "    empty = np.flatnonzero(area < 0)\n",
            "a mask without a pixel has NaN for a colour",
        ),
        ("cv2.COLOR_RGB2LAB", "cv2.COLOR_BGR2LAB", "red and blue swapped"),
    ),
    *_of(
        "colour/gpu",
        "colour",
        (
            "                lights += value * value",
            "                lights = value * value",
            "only the last pixel's square counts",
        ),
    ),
    *_of(
        "kmeans/cpu",
        "kmeans",
        (
            "if far < near or (far == near and next_ < first):",
            "if far < near:",
            "of centroids equally near one is taken that has not the lowest id",
        ),
        (
            "inertia += np.float64(weight) * near",
            "inertia += near",
            "weights do not count in inertia",
        ),
        (
            "other, second)\n    inertia",
            "other, second)\n    labels[0] = 0\n    inertia",
            "the first vector of a block belongs to the first centroid",
        ),
        (
            "total = np.zeros((clusters, channels))\n    for piece in sums:",
            "total = np.zeros((clusters, channels), np.float32)\n    for piece in sums:",
            "sums of pieces in float32",
        ),
    ),
    *_of(
        "kmeans/rules",
        "kmeans",
        (
            "    if not np.isfinite(centroids).all():\n",
            "    if np.isnan(centroids).any():\n",
            "infinite centroids pass the first check",
        ),
        (
            "if weights is not None and tuple(weights.shape)",
            "if False and tuple(weights.shape)",
            "weights of another number pass",
        ),
    ),
    *_of(
        "kmeans/gpu",
        "kmeans",
        (
            "elif far < near or (far == near and other < label):",
            "elif far < near:",
            "of centroids equally near one is taken that has not the lowest id",
        ),
        (
            "value = np.float64(nearest[first + row])",
            "value = np.float64(1)",
            "inertia is a count of vectors",
        ),
        ("if c < channels:\n", "if c <= channels:\n", "weights are summed from beyond the vector"),
        (
            "scaled - high.astype(np.float64)",
            "0 * high.astype(np.float64)",
            "centroids are rounded to float16",
        ),
        (
            "np.float16 and not is_far(centroids)",
            "np.float16",
            "products of float16 lose what lies far from the origin",
        ),
    ),
    *_of(
        "kmeans/fused",
        "kmeans_fused",
        (
            "(far < near) | ((far == near) & (other < one))",
            "far < near",
            "of centroids equally near one is taken that has not the lowest id",
        ),
        (
            "total = tl.dot(tl.where(mine, low[None, :], zero), x, total)",
            "pass",
            "weights are rounded to float16",
        ),
        (
            "tl.load(own_sums) + total.to(tl.float64)",
            "total.to(tl.float64)",
            "of several rounds only the last is summed",
        ),
        (
            "(k[:, None] == one[None, :]) & valid[None, :]",
            "k[:, None] == one[None, :]",
            "what is beyond the last vector is counted",
        ),
    ),
    *_of(
        "kmeans/reference",
        "kmeans",
        ("labels = distance.argmin(1)", "labels = distance.argmax(1)", "the farthest is the label"),
    ),
    *_of(
        "upscale/cpu",
        "upscale",
        (
            "above_high += value > cuts[2]",
            "above_high += value >= cuts[2]",
            "pixels that reach the high threshold count as above it",
        ),
        (
            "stop = height if done else max(row, enter[k])",
            "stop = height if done else enter[k]",
            "pixels between two changes are counted twice",
        ),
        (
            "min(bottom + row_taps, a - 1)",
            "min(bottom + 1, a - 1)",
            "rows at the lower edge are lost",
        ),
        (
            "if min_stability > 0 and (above_low == 0 or stability < min_stability):",
            "if min_stability > 0 and stability <= min_stability:",
            "a mask as stable as the rule is dropped",
        ),
    ),
    *_of(
        "upscale/rules",
        "upscale",
        ("stability >= rule", "stability > rule", "a mask as stable as the rule is not kept"),
        ("    if not offset >= 0:\n", "    if offset < 0:\n", "NaN is an offset"),
    ),
    *_of(
        "upscale/taps",
        "upscale",
        ("(1 - part2) * part[near2],", "(1 - part2) * part[far2],", "weights of a wrong neighbour"),
        (
            "return near, np.minimum(near + 1, old - 1)",
            "return near, np.minimum(near, old - 1)",
            "nothing is interpolated",
        ),
    ),
    *_of(
        "upscale/rules",
        "upscale",
        (
            "(threshold - offset, threshold, threshold + offset)",
            "(threshold + offset, threshold, threshold - offset)",
            "stability upside down",
        ),
    ),
    *_of(
        "upscale/gpu",
        "upscale",
        (
            "packed |= np.int64(state >= 2) << bit",
            "packed |= np.int64(state >= 2) << (bit ^ 1)",
            "neighbouring rows swapped",
        ),
        (
            "        which = kept[begin : begin + some]",
            "        which = kept[:some]",
            "masks of a later batch are the first's",
        ),
    ),
    *_of(
        "upscale/__init__",
        "upscale",
        (
            "    if valid is not None:\n        runs = algebra.intersect",
            "    if valid is not None and len(kept) > 1:\n        runs = algebra.intersect",
            "one mask alone keeps pixels that are not valid",
        ),
    ),
    *_of(
        "masks/coco",
        "coco",
        ("if pixels > total:  #", "if pixels >= total:  #", "a mask that is done is refused"),
        (
            "        if value < 0:\n            return _NEGATIVE, value",
            "        if value < -1:\n            return _NEGATIVE, value",
            "a run of -1 passes",
        ),
        ("while magnitude > 0x0F:", "while magnitude > 0x1F:", "room for a group less"),
        ("at == end or bits == _MOST_BITS", "at == end", "codes of any length are read"),
    ),
    *_of(
        "masks/pixels",
        "coco",
        (
            "if last_row + 1 < height:",
            "if last_row + 2 < height:",
            "a run that ends a row above the last goes on",
        ),
        (
            "while at + BLOCK <= line.size:",
            "while at + BLOCK < line.size + 2:",
            "a byte beyond the row is compared",
        ),
        (
            "        if pixels > 0 and masks[m, 0]:\n",
            "        if pixels > 1 and masks[m, 0]:\n",
            "a mask of one pixel begins with ones",
        ),
    ),
    *_of(
        "masks/algebra",
        "coco",
        (
            "if (i - starts[m]) % 2 == 1 and j % 2 == 1:",
            "if (i - starts[m]) % 2 == 1 or j % 2 == 1:",
            "a union for an intersection",
        ),
        (
            "if x0 < 0 or y0 < 0 or bottom > height or right > width:",
            "if x0 < 0 or bottom > height or right > width:",
            "masks may be put above the image",
        ),
        (
            "last_row = max(last_row, end - 1 - column * height)",
            "last_row = max(last_row, end - column * height)",
            "boxes a row too low",
        ),
    ),
    *_of(
        "masks/algebra",
        "runs",
        (
            "order = order[label[order] >= 0]",
            "order = order[label[order] > 0]",
            "the first label has no mask",
        ),
    ),
    *_of(
        "masks/gpu",
        "coco",
        (
            "    if column == width - 1:\n        places[tile, at]",
            "    if column == 0:\n        places[tile, at]",
            "a mask's end is written in its first column",
        ),
        (
            "totals[tile, mask] = before[_STRIPS] + 1",
            "totals[tile, mask] = before[_STRIPS]",
            "no place for a mask's end",
        ),
        (
            "value -= places[tile, run - 2] - places[tile, run - 3]",
            "value -= places[tile, run - 2]",
            "codes are differences to places, not to lengths",
        ),
    ),
    *_of(
        "masks/runs",
        "runs",
        (
            "made = [pieces[first] for first in sorted(pieces)]",
            "made = list(pieces.values())",
            "masks lie in the order in which threads were done",
        ),
        (
            "if height * width >= PIXEL_LIMIT:",
            "if height * width > PIXEL_LIMIT:",
            "a mask of 2^31 pixels passes",
        ),
    ),
    *_of(
        "masks/iou",
        "iou",
        (
            "(extents[m, 0] + other_extents[n, 0] - both)",
            "(extents[m, 0] + other_extents[n, 0])",
            "common pixels count twice in the union",
        ),
        (
            "extents[m, 1] >= other_extents[n, 2]",
            "extents[m, 1] >= other_extents[n, 2] - 1",
            "masks that share their last pixel only have nothing in common",
        ),
    ),
    *_of(
        "stretch",
        "stretch",
        (
            "values = values[np.isfinite(values)]",
            "values = values[~np.isnan(values)]",
            "infinite pixels count in the limits",
        ),
        ("values += working(0.5)", "values += working(0)", "values are cut, not rounded"),
        (
            "if pixels.dtype.itemsize <= 2 else np.float64",
            "if pixels.dtype.itemsize <= 4 else np.float64",
            "large integers lose their differences",
        ),
        (
            "            if low[band] < high[band]:\n",
            "            if low[band] <= high[band]:\n",
            "a few bright things on a flat ground vanish",
        ),
    ),
    *_of(
        "base/math",
        "two_way",
        (
            "x = max(x, np.float32(-75.0))",
            "x = max(x, np.float32(-187.0))",
            "exponentials far below nothing wrap around",
        ),
        (
            "total[r] *= shrink",
            "total[r] *= np.float32(1.0)",
            "a softmax over blocks forgets what the first ones weigh",
        ),
    ),
    *_of(
        "base/threads",
        "threads",
        (
            "            failed.set()\n            raise\n",
            "            raise\n",
            "pieces are begun after an exception",
        ),
        (
            "min(count, (piece + 1) * grain)",
            "(piece + 1) * grain",
            "the last piece goes beyond the end",
        ),
        (
            "    if workers <= 1:\n        if count:\n",
            "    if workers <= 1:\n        if count > 1:\n",
            "a single item is left undone",
        ),
    ),
    *_of(
        "base/blas",
        "blas",
        (
            "            _inside -= 1\n            if _inside == 0:",
            "            _inside -= 1\n            if True:",
            "the first to leave takes the limit away from the others",
        ),
    ),
    *_of(
        "base/intrinsics",
        "coco",
        (
            "builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))",
            "builder.ctlz(args[0], ir.Constant(ir.IntType(1), 1))",
            "the highest bit for the lowest",
        ),
    ),
    *_of(
        "base/cache",
        "kernel_cache",
        (
            "    if numba_config is not None:",
            "    if False:",
            "Numba that came first keeps stale code",
        ),
        (
            'for path in sorted(folder.rglob("*.py")):',
            'for path in sorted(folder.glob("*.py")):',
            "edits of files in packages are not seen",
        ),
    ),
    *_of(
        "decoder/two_way",
        "two_way",
        ("value = row[i] + b\n", "value = row[i]\n", "logits without their bias"),
        (
            "        first = r // others * width\n",
            "        first = r // others\n",
            "queries of another head",
        ),
        (
            "for c in range(width // 4 * 4, width):",
            "for c in range(width // 4 * 4 + 1, width):",
            "a channel left out where the width is no multiple of four",
        ),
        (
            "            total[i] = exp(-top[i])\n",
            "            total[i] = np.float32(0.0)\n",
            "a head's first token weighs nothing",
        ),
        (
            "return others, first.sum((1, 2), dtype=np.float32)",
            "return others, first[:, 0].sum(1, dtype=np.float32)",
            "what is told against is one head's alone",
        ),
    ),
    *_of(
        "encoder/attention",
        "attention",
        (
            "of_rows[row], of_columns[column])",
            "of_rows[row - above], of_columns[column])",
            "blocks after the first take the first rows' offsets",
        ),
        (
            "scale = np.float32(1.0) / np.sqrt(np.float32(channels))",
            "scale = np.float32(1.0)",
            "logits are not scaled",
        ),
        (
            "key[token], value[token] = bias[1, head], bias[2, head]",
            "key[token], value[token] = bias[1, head], bias[1, head]",
            "values take the keys' bias",
        ),
        (
            "if y < height and x < width:",
            "if y < height:",
            "a window's tokens beyond the grid are those of the next row",
        ),
    ),
    *_of(
        "decoder/mask_logits",
        "two_way",
        (
            "dy = 2 * (place // 8) + (place % 4) // 2",
            "dy = 2 * (place // 8) + place % 2",
            "rows and columns of the finest places swapped",
        ),
        (
            "variance / np.float32(channels) + epsilon",
            "variance / np.float32(channels - 1) + epsilon",
            "the variance of a sample",
        ),
        (
            "first_bias = (by_place - by_place.mean(2, keepdims=True)).reshape(first_bias.shape)",
            "pass",
            "the mean of the convolution's bias passes the norm",
        ),
        (
            "of_mean[i] = scale[i] * mean[i]",
            "of_mean[i] = own[i] * mean[i]",
            "a norm's mean goes without the scales of later ones",
        ),
    ),
    *_of(
        "superpixels/rules",
        "superpixels",
        (
            "return (2 * PASSES + 1) * side",
            "return PASSES * side",
            "a block does not know all that its pixels hang on",
        ),
        (
            "rows = (top + np.arange(height)) // seeds.side - top // seeds.side",
            "rows = np.arange(height) // seeds.side",
            "a block's cells begin at its own first row",
        ),
    ),
    *_of(
        "regions/cpu",
        "regions",
        (
            "                elif label != above:\n",
            "                elif label < above:\n",
            "two arms of a piece that meet stay apart",
        ),
        (
            "                    if low > high:\n                        low, high = high, low\n",
            "",
            "pieces are not numbered by their first pixels",
        ),
        (
            "if there < 0 or there == here:",
            "if there == here:",
            "pixels in none border on regions",
        ),
        (
            "np.sqrt(np.float64(squared)) * CONTRAST_UNITS",
            "np.float64(squared) * CONTRAST_UNITS",
            "contrast is the square of a distance",
        ),
        (
            "squares += value * value\n                    sums[region, 1 + k]",
            "squares += value\n                    sums[region, 1 + k]",
            "colours do not vary within a region",
        ),
        (
            "                mine[3] = max(mine[3], y)\n",
            "                mine[3] = max(mine[3], x)\n",
            "boxes are as high as they are wide",
        ),
    ),
    *_of(
        "regions/join",
        "regions",
        (
            "(area[b] == area[a] and b < a)",
            "(area[b] == area[a] and b < 0)",
            "of small pieces of one size none joins another",
        ),
        (
            "if not (is_larger if last else area[b] >= least):",
            "if not is_larger:",
            "small pieces join small ones while a large one is beside them",
        ),
        (
            "if is_other != was_other:",
            "if is_other != is_other:",
            "a piece leaves what it was cut from",
        ),
        (
            "                    sums[goes, k] += sums[piece, k]\n",
            "                    pass\n",
            "a piece keeps the colour of before others joined it",
        ),
        (
            "sums[piece, k] / max(area[piece], 1)",
            "sums[piece, k]",
            "pieces are alike that are of one size",
        ),
    ),
    *_of(
        "regions/overlaps",
        "regions",
        (
            "+= down[y] * across[x]",
            "+= down[y]",
            "columns at a window's edge count as much as its middle",
        ),
        (
            "return np.maximum(np.rint(WEIGHT_UNITS * np.sin(np.pi * middle) ** 2), 1)",
            "return np.rint(WEIGHT_UNITS * np.sin(np.pi * middle) ** 2)",
            "what one window saw at its edge does not count",
        ),
    ),
    *_of(
        "regions/blend",
        "regions",
        (
            "found[row, k] += share[at] * vectors[entry[at], k]",
            "found[row, k] += vectors[entry[at], k]",
            "shares have no say",
        ),
    ),
    *_of(
        "regions/unite",
        "regions",
        (
            "            if low > high:\n                low, high = high, low\n",
            "",
            "a patch is not named by its lowest region",
        ),
        (
            "        if classes[a[i]] >= 0 and classes[a[i]] == classes[b[i]]:\n",
            "        if classes[a[i]] == classes[b[i]]:\n",
            "regions in no class hang together",
        ),
        (
            "min(area[i], most - found[root])",
            "area[i]",
            "areas of large patches leave 32 bits",
        ),
    ),
    *_of(
        "masks/shared",
        "regions",
        (
            "min(stop, y0 + height)):",
            "min(stop, height)):",
            "a rectangle ends at its height",
        ),
        (
            "                    at += stop - row\n",
            "                    at += image_height\n",
            "a run that begins within a column skips the next",
        ),
    ),
    *_of(
        "outlines/cpu",
        "outlines",
        (
            "    for turn in (1, 0):\n",
            "    for turn in (0, 1):\n",
            "outlines cross at corners where two patches touch",
        ),
        (
            "        if a >= 0 and roots[a] == roots[d]:\n",
            "        if False:\n",
            "a patch that touches itself at a corner has a ring that does so too",
        ),
        (
            "                vertices += 1\n                saddles += a != b",
            "                vertices += a != d\n                saddles += a != b",
            "corners of a patch are left out",
        ),
        (
            "                            parent[max(one, other)] = min(one, other)\n",
            "                            parent[min(one, other)] = max(one, other)\n",
            "patches are numbered by where they end",
        ),
    ),
    *_of(
        "resize/rules",
        "resize",
        ("lost > 2 * (old[1] - width)", "lost > old[1] - width", "rows come first too often"),
        (
            "weights / total * (1 << BITS) + 0.5",
            "weights / total * (1 << BITS)",
            "weights are cut off, not rounded",
        ),
    ),
    *_of(
        "resize/cpu",
        "resize",
        (
            "np.repeat(taps.weights.T, channels, axis=1)",
            "np.tile(taps.weights.T, channels)",
            "a channel has the weights of another pixel",
        ),
        (
            "down.first[start:stop] - top",
            "down.first[start:stop]",
            "a strip is made of rows below it",
        ),
    ),
    *_of(
        "resize/gpu",
        "encoder",
        (
            "(written // inner // new * old) * inner",
            "(written // inner // old * new) * inner",
            "rows after the first begin elsewhere",
        ),
    ),
    *_of(
        "encoder/gpu/attention",
        "encoder",
        (
            'offsets = tl.where(real[None, :], offsets, -float("inf"))',
            "offsets = tl.where(real[None, :], offsets, 0.0)",
            "columns that fill up a row of keys have weight",
        ),
        ("of_row + row * P", "of_row", "all rows are offset as the first is"),
        ("(line - place + ROWS - 1)", "(place - line + ROWS - 1)", "distances are turned round"),
    ),
    *_of(
        "encoder/gpu/norms",
        "encoder",
        (
            "row = window // ACROSS % DOWN * WINDOW",
            "row = window // ACROSS * WINDOW",
            "windows of a second image lie below the first",
        ),
        (
            "x - mean[:, None], 0.0)",
            "x, 0.0)",
            "a norm scales by the mean square",
        ),
    ),
    *_of(
        "encoder/gpu/patches",
        "encoder",
        (
            "filled = inside & (row < height) & (column < width)",
            "filled = inside & (row < height)",
            "what lies to the right of an image is its next row",
        ),
    ),
]
