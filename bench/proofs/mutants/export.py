"""Wrong changes of export/ and of what loads its work: engine/models and engine/runtimes."""

from alps.bench.proofs.mutants import Mutant

EXPORT = "tests/export/test_export.py"
RUNTIMES = "tests/engine/runtimes/test_runtimes.py"
CHECKPOINTS = ("tests/engine/models/test_checkpoints.py",)
DOWNLOAD = ("tests/engine/models/test_download.py",)

MUTANTS = [
    Mutant(
        "export/quantise.py",
        "            norm.bias.div_(scale)\n",
        "",
        (f"{EXPORT}::test_int8_is_close_and_smoothing_changes_nothing",),
        "smoothing forgets biases",
    ),
    Mutant(
        "export/quantise.py",
        "            linear.weight.mul_(scale)\n",
        "",
        (f"{EXPORT}::test_int8_is_close_and_smoothing_changes_nothing",),
        "smoothing changes the function",
    ),
    Mutant(
        "export/verify.py",
        "        if not off.isfinite().all():\n"
        '            return cls(float("inf"), float("inf"))\n',
        "        off = off.nan_to_num(0)\n",
        (f"{EXPORT}::test_errors_are_held_against_the_naive_run",),
        "NaN counts as no error",
    ),
    Mutant(
        "export/verify.py",
        "max(TIMES_NAIVE * self.naive.rms, self.allowed)",
        "max(100 * self.naive.rms, self.allowed)",
        (f"{EXPORT}::test_errors_are_held_against_the_naive_run",),
        "an export may be far worse than the naive run",
    ),
    Mutant(
        "export/verify.py",
        "failed = [check for check in checks if not check.passed]",
        "failed = [check for check in checks[:1] if not check.passed]",
        (f"{EXPORT}::test_errors_are_held_against_the_naive_run",),
        "only the first check counts",
    ),
    Mutant(
        "export/agreement.py",
        "if lost > bound.allows(masks):",
        "if lost > 2 * bound.allows(masks):",
        (f"{EXPORT}::test_lost_masks_are_refused_past_the_bound",),
        "twice as many masks may be lost",
    ),
    Mutant(
        "export/folder.py",
        "    if old.exists() and not out.exists():  # stopped between the two renames\n"
        "        os.replace(old, out)\n",
        "",
        (f"{EXPORT}::test_killed_at_any_point_nothing_half_written_is_taken",),
        "an export that was about to be replaced is lost",
    ),
    Mutant(
        "export/folder.py",
        "                publish_folder(part, out)\n",
        "                os.replace(part, out)\n",
        (
            f"{EXPORT}::test_killed_at_any_point_nothing_half_written_is_taken",
            f"{EXPORT}::test_a_folder_appears_when_all_went_well",
        ),
        "an export is not synced, and cannot replace another",
    ),
    Mutant(
        "export/tiles.py",
        "    for rank in range(depth):  # the first window of each image, then the second, …\n"
        "        for windows in by_source:",
        "    for windows in by_source:\n        for rank in range(depth):",
        (f"{EXPORT}::test_tiles_come_from_different_images_first",),
        "all tiles are of one image",
    ),
    Mutant(
        "engine/base/atomic.py",
        '    with open(part, "rb+") as file:\n        os.fsync(file.fileno())\n    if mirror',
        "    if mirror",
        (*CHECKPOINTS, *DOWNLOAD),
        "files have their name before they are on the disk",
    ),
    Mutant(
        "engine/base/atomic.py",
        '            with open(found, "rb+") as file:\n                os.fsync(file.fileno())\n',
        "            pass\n",
        (f"{EXPORT}::test_a_folder_is_on_the_disk_before_it_has_its_name",),
        "files of a folder are not synced",
    ),
    Mutant(
        "engine/models/checkpoints.py",
        "        order_metadata(part)\n",
        "",
        CHECKPOINTS,
        "the same weights give other bytes",
    ),
    Mutant(
        "engine/models/checkpoints.py",
        "kept = torch.float32 if key == KEPT_IN_FLOAT32 else dtype",
        "kept = dtype",
        CHECKPOINTS,
        "position frequencies are rounded",
    ),
    Mutant(
        "engine/models/files.py",
        'path, map_location="cpu", weights_only=True, mmap',
        'path, map_location="cpu", weights_only=False, mmap',
        CHECKPOINTS,
        "a pickle's code is run",
    ),
    Mutant(
        "engine/models/checkpoints.py",
        "if key in found and found[key].shape != tensor.shape",
        "if key in found and found[key].dim() != tensor.dim()",
        CHECKPOINTS,
        "tensors of other shapes are not named",
    ),
    Mutant(
        "engine/models/part_file.py",
        "return self.ended if wanted is None else self.digest() == wanted",
        "return True",
        DOWNLOAD,
        "a damaged download is taken",
    ),
    Mutant(
        "engine/models/part_file.py",
        "            self.restart()  # the part is on its way to another file, or may be\n"
        "            return\n",
        "            pass\n",
        DOWNLOAD,
        "bytes of another file are gone on with",
    ),
    Mutant(
        "engine/runtimes/choose.py",
        "if not off <= _FORGIVEN[self.precision]:",
        "if off > _FORGIVEN[self.precision]:",
        (f"{RUNTIMES}::test_a_runtime_that_gives_nan_fails_its_self_check",),
        "NaN passes the self-check",
    ),
    Mutant(
        "engine/runtimes/choose.py",
        "< _WORTH_IT * seconds",
        "< seconds",
        (f"{RUNTIMES}::test_the_faster_of_each_half_is_taken",),
        "noise decides",
    ),
    Mutant(
        "engine/runtimes/choose.py",
        "        and artefact.manifest.precision == model.precision\n",
        "",
        (f"{RUNTIMES}::test_exports_of_another_precision_are_not_taken",),
        "an export of another precision is run",
    ),
    Mutant(
        "engine/runtimes/artefact.py",
        "path.stat().st_size == stored.bytes and file_sha256(path) == stored.sha256",
        "path.stat().st_size == stored.bytes",
        (f"{RUNTIMES}::test_files_that_changed_are_refused",),
        "a changed file of the same size is run",
    ),
    Mutant(
        "engine/runtimes/artefact.py",
        "if self.manifest.sha256 != info.sha256:",
        "if self.manifest.model != info.name:",
        (f"{RUNTIMES}::test_another_model_version_or_kind_is_refused",),
        "an export of other weights is run",
    ),
]
