"""Wrong changes of engine/run_folder and engine/base: what must last on a disk."""

from alps.bench.proofs.mutants import Mutant, changes_of

PIPELINE = "tests/engine/stages/test_pipeline.py"
LOCKS = ("tests/engine/run_folder/test_locks.py",)
PLAN = ("tests/engine/run_folder/test_plan.py",)
ATOMIC = ("tests/engine/base/test_atomic.py",)
STORE = ("tests/engine/run_folder/test_segment_store.py",)

MUTANTS = [
    Mutant(
        "engine/run_folder/locks.py",
        old='    with _hold(folder, "lock", wait=PLANNING_SECONDS):\n        yield\n',
        new="    yield\n",
        tests=LOCKS,
        why="alone() holds nothing",
    ),
    Mutant(
        "engine/run_folder/locks.py",
        old='name = "lock" if machines == 1 else',
        new='name = "lock" if machines <= 2 else',
        tests=(*LOCKS, f"{PIPELINE}::test_machines_work_side_by_side_but_not_on_one_share"),
        why="two machines keep each other out",
    ),
    Mutant(
        "engine/run_folder/locks.py",
        old='sorted(folder.journal.glob("lock-*-of-*"))',
        new="[]",
        tests=LOCKS,
        why="the whole folder is held beside a machine's share",
    ),
    Mutant(
        "engine/run_folder/locks.py",
        old="_shares_at_work(folder, but=machines):",
        new="_shares_at_work(folder, but=4):",
        tests=LOCKS,
        why="shares of two numbers write the same shards",
    ),
    Mutant(
        "engine/run_folder/plan.py",
        old="return -(-self.tiles // self.shard_tiles)",
        new="return self.tiles // self.shard_tiles + 1",
        tests=PLAN,
        why="an empty shard where the last one is full",
    ),
    Mutant(
        "engine/run_folder/plan.py",
        old="range(first // self.shard_tiles, (end - 1) // self.shard_tiles + 1)",
        new="range(first // self.shard_tiles, end // self.shard_tiles + 1)",
        tests=PLAN,
        why="a source waits for a shard it has no tile in",
    ),
    Mutant(
        "engine/planning/make.py",
        old="RasterReader(source.path, survey.reading) as reader,",
        new="RasterReader(source.path) as reader,",
        tests=PLAN,
        why="bands that a source has not are found out while segmenting",
    ),
    Mutant(
        "engine/run_folder/plan.py",
        old="(reader.width, reader.height) != (planned.source_width, planned.source_height)",
        new="reader.width * reader.height != planned.source_width * planned.source_height",
        tests=PLAN,
        why="an image that was turned is taken for the planned one",
    ),
    Mutant(
        "engine/run_folder/folder.py",
        old='if done.get("paint") != done.get("cluster"):',
        new='if "paint" not in done:',
        tests=(f"{PIPELINE}::test_an_archive_that_is_away_can_still_be_painted",),
        why="label maps of older clusters pass for new",
    ),
    Mutant(
        "engine/run_folder/tables.py",
        old="    with whole(path) as part:\n        pq.write_table(table, part",
        new="    if True:\n        pq.write_table(table, path",
        tests=("tests/engine/run_folder/test_tables.py",),
        why="a table is under its name before it is whole",
    ),
    Mutant(
        "engine/base/atomic.py",
        old="        os.fsync(file.fileno())\n    if mirror := mirror_of(path):\n",
        new="        pass\n    if mirror := mirror_of(path):\n",
        tests=ATOMIC,
        why="a file gets its name before its bytes are on the disk",
    ),
    Mutant(
        "engine/base/atomic.py",
        old="    sync_folder(path.parent)\n\n\ndef move(",
        new="\n\ndef move(",
        tests=ATOMIC,
        why="a rename may be lost",
    ),
    Mutant(
        "engine/base/atomic.py",
        old="                os.fsync(file.fileno())\n    place_folder(part, path)\n",
        new="                pass\n    place_folder(part, path)\n",
        tests=ATOMIC,
        why="a folder gets its name before its files are on the disk",
    ),
    Mutant(
        "engine/base/atomic.py",
        old="        os.replace(path, spare)\n",
        new="        shutil.rmtree(path)\n",
        tests=ATOMIC,
        why="the older folder is gone before the newer one has its name",
    ),
    Mutant(
        "engine/base/atomic.py",
        old="    except BaseException:\n        part.unlink(missing_ok=True)\n        raise\n",
        new="    except BaseException:\n        raise\n",
        tests=ATOMIC,
        why="a part stays beside the file when the program is interrupted",
    ),
    Mutant(
        "engine/base/digests.py",
        old="sort_keys=True, ",
        new="",
        tests=("tests/engine/base/test_digests.py",),
        why="the order of keys decides a fingerprint",
    ),
    *changes_of(
        "engine/run_folder/segment_store.py",
        STORE,
        (
            "start, end = np.searchsorted(ids, [tile_id, tile_id + 1])",
            "start, end = np.searchsorted(ids, [tile_id, tile_id + 1]) - (0, 1)",
            "a tile's last segment is left out",
        ),
        (
            "        self._tables.move_to_end(shard)\n",
            "",
            "the shard in use is the first to be forgotten",
        ),
        (
            "self._tables.popitem(last=False)",
            "self._tables.popitem()",
            "a shard that was just read is forgotten",
        ),
        (
            "            if len(self._tables) >= self._kept:\n",
            "            if len(self._tables) > self._kept:\n",
            "a shard more than was said stays in memory",
        ),
    ),
    *changes_of(
        "engine/run_folder/plan.py",
        PLAN,
        (
            "own = index[index != before]",
            "own = index[index >= before]",
            "a group has the source that goes on from an earlier one too",
        ),
        (
            "return self.shard_of(tiles[0].tile_id)",
            "return self.shard_of(tiles[-1].tile_id)",
            "a source is of the group in which it ends",
        ),
        (
            "self._first_at_least(source_index + step) for step in (0, 1)",
            "self._first_at_least(source_index + step) for step in (0, 2)",
            "two sources are taken for one",
        ),
    ),
    Mutant(
        "engine/run_folder/tables.py",
        old="        if kind != wanted:\n",
        new="        if False:\n",
        tests=("tests/engine/run_folder/test_tables.py",),
        why="a column of text is read as one of numbers",
    ),
    Mutant(
        "engine/run_folder/tables.py",
        old="values[first] + values[length] > values[most]",
        new="values[first] > values[most]",
        tests=("tests/engine/run_folder/test_tables.py",),
        why="a tile may reach over the edge of its source",
    ),
]
