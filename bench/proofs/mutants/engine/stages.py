"""Wrong changes of engine/stages and the settings that reach them."""

from alps.bench.proofs.mutants import Mutant, changes_of

PIPELINE = "tests/engine/stages/test_pipeline.py"
ONE_PASS = "tests/engine/stages/test_one_pass.py"
SEGMENTING = ("tests/engine/stages/test_segmenting.py",)
RESUME = ("tests/engine/stages/test_resume.py",)
SUMMARY = ("tests/engine/stages/test_summary.py",)
OPTION = "tests/engine/cli/test_option_effects.py::test_an_option_has_its_effect"

MUTANTS = [
    Mutant(
        "engine/stages/tiles/masks.py",
        old='            "covered_pixels": segments.covered,\n',
        new='            "covered_pixels": int(segments.area.sum()),\n',
        tests=SEGMENTING,
        why="coverage counts overlapping masks twice",
    ),
    Mutant(
        "engine/stages/tiles/masks.py",
        old='"embedding": _lists(segments.embeddings),',
        new='"embedding": _lists(segments.embeddings[::-1]),',
        tests=SEGMENTING,
        why="embeddings are shuffled between segments of a tile",
    ),
    Mutant(
        "engine/stages/tiles/masks.py",
        old='"colour": _lists(segments.colours),',
        new='"colour": _lists(segments.colours[::-1]),',
        tests=SEGMENTING,
        why="colours are shuffled between segments of a tile",
    ),
    Mutant(
        "engine/stages/tiles/masks.py",
        old="[embeddings[number] for embeddings in own]",
        new="[embeddings[-1 - number] for embeddings in own]",
        tests=(f"{PIPELINE}::test_tiles_encoded_together_give_the_same_segments",),
        why="tiles that are encoded together swap embeddings",
    ),
    Mutant(
        "engine/stages/tiles/masks.py",
        old="                    max_area=settings.max_area,\n",
        new="                    max_area=1.0,\n",
        tests=(f"{OPTION}[label-max_area]",),
        why="--max-area does nothing",
    ),
    Mutant(
        "engine/stages/tiles/masks.py",
        old="                    min_area=settings.min_area,\n",
        new="                    min_area=0,\n",
        tests=(f"{OPTION}[label-min_area]",),
        why="--min-area does nothing",
    ),
    Mutant(
        "engine/masks/generator.py",
        old="fields(EverythingSettings)} & vars(settings).keys()",
        new='fields(EverythingSettings)} & vars(settings).keys() - {"box_nms_thresh"}',
        tests=(f"{OPTION}[label-box_nms_thresh]",),
        why="--box-nms-thresh does nothing",
    ),
    Mutant(
        "engine/masks/generator.py",
        old="return cls(runtime, coarse_to_fine=settings.coarse_to_fine, **named)",
        new="return cls(runtime, **named)",
        tests=(f"{OPTION}[label-coarse_to_fine]",),
        why="--coarse-to-fine does nothing",
    ),
    Mutant(
        "engine/settings.py",
        old="        if value is None:\n            value = getattr(model, item.name, None)",
        new="        if not value:\n            value = getattr(model, item.name, None)",
        tests=("tests/engine/test_settings.py",),
        why="a setting of 0 is taken for one that was not given",
    ),
    Mutant(
        "engine/settings.py",
        old='values[item.name] = item.metadata["stock"] if value is None else value',
        new='values[item.name] = item.metadata["stock"] or value',
        tests=("tests/engine/test_settings.py",),
        why="the stock value wins over the model's and the user's",
    ),
    Mutant(
        "engine/settings.py",
        old="not low <= value <= high:",
        new="not low <= value < high:",
        tests=("tests/engine/test_settings.py",),
        why="the largest value of a range is refused",
    ),
    Mutant(
        "engine/settings.py",
        old="    check_ranges(settings.cluster, ClusterSettings)\n",
        new="",
        tests=("tests/engine/test_settings.py",),
        why="ranges of clusters are not checked",
    ),
    Mutant(
        "engine/stages/tiles/masks.py",
        old="MadeTile(row | NO_PIXEL,",
        new="MadeTile(row,",
        tests=(f"{PIPELINE}::test_a_source_without_valid_pixels_is_skipped_with_a_reason",),
        why="a tile without data is not skipped",
    ),
    Mutant(
        "engine/stages/segment.py",
        old="mine = range(share[0], plan.shards, share[1])",
        new="mine = range(plan.shards)",
        tests=SEGMENTING,
        why="every machine segments everything",
    ),
    Mutant(
        "engine/stages/segment.py",
        old="return sum(not keeper.is_done(shard) for shard in range(Plan.of(folder).shards))",
        new="return int(not all(keeper.is_done(s) for s in range(Plan.of(folder).shards)))",
        tests=SEGMENTING,
        why="the number of shards left is 0 or 1",
    ),
    Mutant(
        "engine/stages/label.py",
        old="    if failed > max_failed * total:\n",
        new="    if failed >= max_failed * total:\n",
        tests=SUMMARY,
        why="--max-failed is off by one",
    ),
    Mutant(
        "engine/stages/label.py",
        old="len(unpainted) > max_failed * summary.sources:",
        new="len(unpainted) >= max_failed * summary.sources:",
        tests=SUMMARY,
        why="--max-failed is off by one for label maps",
    ),
    Mutant(
        "engine/stages/label.py",
        old='ran = np.isin(own, ["ok", "empty"])',
        new='ran = np.isin(own, ["ok", "empty", "failed"])',
        tests=SUMMARY,
        why="seconds a tile count tiles that were never segmented",
    ),
    Mutant(
        "engine/stages/label.py",
        old='sums["covered_pixels"] / max(sums["valid_pixels"], 1)',
        new='sums["covered_pixels"] / max(sums["segments"], 1)',
        tests=SUMMARY,
        why="coverage is no share",
    ),
    Mutant(
        "engine/stages/label.py",
        old='        reason.replace(shown_path(path), "a file")\n',
        new="        reason\n",
        tests=SUMMARY,
        why="one kind of failure is as many reasons as files",
    ),
    Mutant(
        "engine/stages/one_pass.py",
        old='        "clusters": clusters.sha256,\n',
        new="",
        tests=(f"{ONE_PASS}::test_another_run_is_refused_and_named",),
        why="a run goes on with other clusters",
    ),
    Mutant(
        "engine/stages/one_pass.py",
        old="refuse_others(clusters, one_pass.clusters_from, model, loaded.settings.to_dict())",
        new="del model",
        tests=(f"{ONE_PASS}::test_clusters_of_another_model_are_refused",),
        why="clusters of another model are taken",
    ),
    Mutant(
        "engine/stages/fit_clusters.py",
        old="    rng = np.random.default_rng(seed)\n    rows = np.sort(",
        new="    rng = np.random.default_rng(0)\n    rows = np.sort(",
        tests=(f"{ONE_PASS}::test_a_drawn_plan_keeps_order_and_leaves_out_what_cannot_be_read",),
        why="the seed draws no other tiles",
    ),
    Mutant(
        "engine/stages/fit_clusters.py",
        old="    if work is None:\n        shutil",
        new="    if True:\n        shutil",
        tests=(f"{ONE_PASS}::test_a_sample_is_drawn_over_the_archive",),
        why="a run folder that was to be kept is deleted",
    ),
    Mutant(
        "engine/stages/fit_clusters.py",
        old="summary.failed_reasons, options.max_failed)",
        new="summary.failed_reasons, 1.0)",
        tests=(f"{OPTION}[fit-clusters-max_failed]",),
        why="fit-clusters knows no --max-failed",
    ),
    Mutant(
        "engine/stages/opening.py",
        old='decides = {"model": info.sha256, **values["segment"], **also}',
        new='decides = {**values["segment"], **also}',
        tests=RESUME,
        why="a run goes on with another model",
    ),
    Mutant(
        "engine/stages/opening.py",
        old="        **deciding(json.loads(json.dumps(asdict(settings)))),\n",
        new="",
        tests=RESUME,
        why="a run goes on with other bands",
    ),
    Mutant(
        "engine/stages/label.py",
        old="            forget_regions(folder)  # of segments",
        new="            pass  # of segments",
        tests=(f"{PIPELINE}::test_regions_of_segments_that_were_deleted_are_cut_anew",),
        why="regions of segments that were deleted are kept",
    ),
    *changes_of(
        "engine/stages/one_pass.py",
        (f"{ONE_PASS}::test_the_labels_are_those_of_two_passes",),
        (
            "if needed is None or shard < needed:",
            "if needed is None or shard <= needed:",
            "segments that the next group needs are dropped",
        ),
        (
            "                remove(self._folder.region_raster(tiles[0].label))\n",
            "                pass\n",
            "rasters of regions stay when all is painted",
        ),
        (
            "                self._folder.borders(group.number),\n",
            "",
            "tables of borders stay when all is painted",
        ),
        (
            "if not all(self._is_there(shard) for shard in self._shards_of(group)):",
            "if not any(self._is_there(shard) for shard in self._shards_of(group)):",
            "a group is painted when its first shard is there",
        ),
    ),
    *changes_of(
        "engine/stages/tiles/masks.py",
        ("tests/engine/stages/test_overlap.py",),
        (
            'return stages, [Slots("encode", "find", AT_DEVICE)]',
            "return stages, []",
            "any number of batches is on a device",
        ),
    ),
]
