"""Wrong changes of engine/regions and the stage that cuts: what is joined, numbered and kept."""

from alps.bench.proofs.mutants import changes_of

CUT = "tests/engine/regions/test_cut_and_build.py"
BLOCKS = (f"{CUT}::test_block_by_block_is_whole",)
EDGES = (f"{CUT}::test_a_block_knows_what_superpixels_and_joining_hang_on",)
SLIVERS = (f"{CUT}::test_slivers_are_joined_but_for_islands_and_a_few_among_themselves",)
SEGMENTS = (f"{CUT}::test_the_segment_of_a_region_is_one_that_lies_there",)
BOXES = (f"{CUT}::test_each_valid_pixel_lies_in_one_region_that_hangs_together",)
BORDERS = (f"{CUT}::test_borders_by_brute_force",)
SHARES = (f"{CUT}::test_shares_are_what_windows_saw_by_their_weights",)
DAMAGED = (f"{CUT}::test_of_a_damaged_scene_the_windows_that_can_be_read_are_cut",)
OBJECTS = ("tests/engine/regions/test_objects.py",)
RASTER = ("tests/engine/regions/test_region_raster.py",)
TABLES = ("tests/engine/regions/test_group_tables.py",)
WINDOWS = ("tests/engine/regions/test_source_windows.py",)
SCENES = ("tests/engine/regions/test_scenes.py",)
STAGE = ("tests/engine/stages/test_cutting.py",)

MUTANTS = [
    *changes_of(
        "engine/regions/windows.py",
        WINDOWS,
        (
            'row = np.searchsorted(self._tops, y, side="right") - 1',
            'row = np.searchsorted(self._tops, y, side="left") - 1',
            "the first row of a core belongs to the window above",
        ),
        (
            "return row * self.columns + column",
            "return column * len(self._tops) + row",
            "windows are counted down the columns",
        ),
        (
            "Window(tile.x - left, tile.y - top, tile.width, tile.height)",
            "Window(tile.x, tile.y, tile.width, tile.height)",
            "a sample's window lies beside its scene",
        ),
        (
            "            paint_order(area, iou),\n",
            "            paint_order(area, iou)[::-1],\n",
            "the largest mask lies on top",
        ),
        (
            'column("mask").to_numpy() >= 0)\n',
            'column("mask").to_numpy() >= -1)\n',
            "what lies under no mask joins neighbours too",
        ),
        (
            "            and window.x + window.width > box.x\n",
            "            and window.x >= box.x\n",
            "a window that begins left of a block is not near it",
        ),
    ),
    *changes_of(
        "engine/regions/cut.py",
        EDGES,
        (
            "step, far = BLOCK_CELLS * side, reach(side) + JOIN_CELLS * side",
            "step, far = BLOCK_CELLS * side, JOIN_CELLS * side",
            "a block knows too little of what surrounds it",
        ),
    ),
    *changes_of(
        "engine/regions/cut.py",
        SLIVERS,
        (
            "least = round(SLIVER * side_of(per_megapixel) ** 2)",
            "least = round(SLIVER * side_of(per_megapixel))",
            "slivers stay",
        ),
    ),
    *changes_of(
        "engine/regions/cut.py",
        BLOCKS,
        (
            "y = (row + padded.y // seeds.side) * seeds.side + middle",
            "y = row * seeds.side + middle",
            "windows own the cells of a block as if it began the scene",
        ),
    ),
    *changes_of(
        "engine/regions/cut.py",
        SEGMENTS,
        (
            "keys.ravel()[first[kept]] % number - 1,",
            "keys.ravel()[first[kept]] % number,",
            "regions name the segment after theirs",
        ),
    ),
    *changes_of(
        "engine/regions/build.py",
        BLOCKS,
        (
            "self._keys = np.concatenate([old_keys, self._own])",
            "self._keys = np.concatenate([old_keys[:0], self._own])",
            "regions that begin in the row of blocks above have no number",
        ),
        (
            "mine = (y >= core.y) & (y < core.y + core.height)",
            "mine = (y >= core.y) & (y <= core.y + core.height)",
            "regions on the edge of two blocks are there twice",
        ),
        (
            "mine[touching.pairs[np.arange(len(low)), keys[touching.pairs].argmin(axis=1)]]",
            "mine[touching.pairs].any(axis=1)",
            "borders between blocks are noted twice",
        ),
    ),
    *changes_of(
        "engine/regions/build.py",
        BOXES,
        (
            '"width": box[:, 2] - box[:, 0] + 1,',
            '"width": box[:, 2] - box[:, 0],',
            "boxes are a pixel too narrow",
        ),
        (
            "    rgb, valid = _read(reader, block.padded, source)\n",
            "    rgb = _read(reader, block.padded, source)[0]\n"
            "    valid = np.ones(rgb.shape[:2], bool)\n",
            "pixels without data join regions",
        ),
    ),
    *changes_of(
        "engine/regions/build.py",
        SHARES,
        (
            "(window_weights(window.height)[inside[0]],",
            "(np.ones(bottom - top, np.int64),",
            "rows at a window's edge count as much as its middle",
        ),
        (
            "parts.append((regions, segments + source.first[index], weights))",
            "parts.append((regions, segments, weights))",
            "shares are of the first window's segments",
        ),
        (
            "order = np.lexsort((segments, regions))\n",
            "order = np.argsort(regions)\n",
            "segments of a region are in no order",
        ),
    ),
    *changes_of(
        "engine/regions/build.py",
        BORDERS,
        (
            "mean = contrast[order] / (length[order] * CONTRAST_UNITS)",
            "mean = contrast[order] / CONTRAST_UNITS",
            "contrast is a sum along the border, not a mean",
        ),
    ),
    *changes_of(
        "engine/regions/build.py",
        DAMAGED,
        (
            "        rgb[view], valid[view] = tile.rgb, tile.valid\n",
            "        rgb[view], valid[view] = tile.rgb, True\n",
            "pixels without data are valid where an image is damaged elsewhere",
        ),
        (
            "        except SourceError:  # its tile's row says so\n            continue\n",
            "        except SourceError:  # its tile's row says so\n            break\n",
            "windows after one that cannot be read are lost",
        ),
    ),
    *changes_of(
        "engine/regions/scenes.py",
        SCENES,
        (
            'Line(items, [Stage("cut", work, count)])',
            'Line(items, [Stage("cut", work, 1)])',
            "one thread cuts, whatever is asked for",
        ),
        (
            "            for _ in mine:\n                pass\n",
            "",
            "what a failed scene left is taken for the next one's",
        ),
        (
            "            stack.callback(scene.close)\n",
            "",
            "files stay open where cutting is given up",
        ),
    ),
    *changes_of(
        "engine/regions/scenes.py",
        STAGE,
        (
            "return Georeference.of(reader) if self._is_whole(reader) else Georeference()",
            "return Georeference()",
            "rasters of regions lie nowhere on Earth",
        ),
        (
            "                    check_size(reader, self.tiles[0])\n",
            "                    pass\n",
            "an image of another size than was segmented is cut",
        ),
        (
            "        self._box = Window(x, y, right - x, bottom - y)\n",
            "        self._box = Window(0, 0, right, bottom)\n",
            "a sample of one window is cut with all that lies above and left of it",
        ),
    ),
    *changes_of(
        "engine/regions/objects.py",
        OBJECTS,
        (
            " and iou[a, b] > AGREEMENT\n",
            "\n",
            "masks of neighbours that hardly meet are one object",
        ),
        (
            "if best_left[b] == a and",
            "if",
            "two masks of a window are one because a third is nearest to both",
        ),
        (
            "    for other in (column - 1, column, column + 1):\n",
            "    for other in (column, column + 1):\n",
            "windows below and to the left are not asked",
        ),
        (
            "enough = area >= LEAST_PIXELS",
            "enough = area > LEAST_PIXELS",
            "a mask of just enough pixels says nothing",
        ),
        (
            "(left_area[:, None] + right_area[None] - both)",
            "(left_area[:, None] + right_area[None])",
            "common pixels count twice in the union",
        ),
        (
            "parent[high] = low",
            "parent[b] = a",
            "an object that is joined from two sides falls apart",
        ),
        (
            "runs, shared.x - window.x, shared.y - window.y, shared.width, shared.height",
            "runs, 0, 0, shared.width, shared.height",
            "masks are compared at their windows' corners",
        ),
        (
            "np.flatnonzero(source.is_mask(index))",
            "np.flatnonzero(source.is_mask(index) | True)",
            "what lies under no mask is an object",
        ),
    ),
    *changes_of(
        "engine/regions/raster.py",
        RASTER,
        (
            "return Georeference.of(self._dataset)",
            "return Georeference()",
            "a scene's place is lost",
        ),
        (
            ">= len(of_region)).any():",
            "> len(of_region)).any():",
            "a region that the tables do not know shows nothing",
        ),
        (
            "        except RasterioError as error:\n"
            "            raise _unreadable(self._path, error) from error\n",
            "        except RasterioError:\n            raise\n",
            "a damaged raster does not say what to do",
        ),
        (
            "for y in range(0, height, TILE):",
            "for y in range(0, height - TILE + 1, TILE):",
            "the last rows of a scene are not read",
        ),
    ),
    *changes_of(
        "engine/regions/tables.py",
        TABLES,
        (
            "table.slice(rows.start, len(rows))",
            "table.slice(rows.start)",
            "regions of the sources that follow are a source's too",
        ),
        (
            "tuple(columns)).slice(start, stop - start)",
            "tuple(columns)).slice(start)",
            "borders of the sources that follow are a source's too",
        ),
        (
            "        if rows != sum(",
            "        if rows < sum(",
            "classes of other regions are taken",
        ),
        (
            "[rows.start, rows.stop - 1], side",
            "[rows.start, rows.stop - 2], side",
            "what lies alone in its row group is lost",
        ),
        (
            "        key = number, columns\n",
            "        key = 0, columns\n",
            "what is kept of one row group is taken for another",
        ),
    ),
    *changes_of(
        "engine/stages/regions.py",
        STAGE,
        (
            '("regions", "vectors", "clusters")',
            '("regions", "vectors")',
            "classes outlive the regions that they are of",
        ),
        (
            "paths = [folder.regions(group), folder.borders(group), folder.objects(group)]",
            "paths = [folder.borders(group), folder.objects(group)]",
            "a group counts as cut before its regions are there",
        ),
        (
            "            total += file.metadata.num_rows\n",
            "            total = file.metadata.num_rows\n",
            "the regions of one group count for all",
        ),
        (
            "        return cls(reading_of(folder, run),",
            "        return cls(None,",
            "regions are cut on other bands than were segmented",
        ),
        (
            "            except SourceError as error:  # it was readable when it was segmented\n"
            "                failure = error\n",
            "            except SourceError as error:  # it was readable when it was segmented\n"
            "                raise\n",
            "a source that went away stops all others from being cut",
        ),
        (
            '"segment_id": local.astype(np.int32),',
            '"segment_id": np.arange(len(objects), dtype=np.int32),',
            "objects name segments by their number in the source",
        ),
    ),
]
