"""Object stores: what is asked of them, what is believed of them, and who may write there."""

from alps.bench.proofs.mutants import Mutant

TESTS = "tests/engine/stores"
MIRROR, OUT = (f"{TESTS}/test_mirror.py",), (f"{TESTS}/test_out_in_stores.py",)
READING, LISTING = (f"{TESTS}/test_reading.py",), (f"{TESTS}/test_listing.py",)

MUTANTS = [
    Mutant(
        "engine/images/gdal.py",
        '        options["CPL_VSIL_CURL_ALLOWED_FILENAME"] = path',
        "        pass",
        READING,
        "a dozen files are looked for beside each image of a store",
    ),
    Mutant(
        "engine/images/gdal.py",
        '    "CPL_VSIL_CURL_NON_CACHED": ":".join((*HANDLERS.values(), HANDLER_OF_WEB)),\n',
        "",
        READING,
        "half a body is taken for the file as long as the process lives",
    ),
    Mutant(
        "engine/images/gdal.py",
        'READ_WHOLE = ("WEBP", ',
        "READ_WHOLE = (",
        READING,
        "of a WebP that was cut short on the way pixels are made up",
    ),
    Mutant(
        "engine/images/gdal.py",
        "            _check_object(str(path), verb)\n",
        "            pass\n",
        READING,
        "a store that is away makes images that are damaged",
    ),
    Mutant(
        "engine/stores/listing.py",
        "        if run is not None and entry.key.startswith(run):\n            continue\n",
        "",
        LISTING,
        "label maps of a run are images",
    ),
    Mutant(
        "engine/stores/listing.py",
        '    if is_hidden and not pattern[0].startswith("."):\n        return False\n',
        "",
        LISTING,
        "a wildcard finds hidden names",
    ),
    Mutant(
        "engine/stores/mirror.py",
        "            with self._order:\n                self.settle()\n                self.index",
        "            with self._order:\n                self.index",
        MIRROR,
        "a journal is in the store before what it speaks of",
    ),
    Mutant(
        "engine/stores/mirror.py",
        "            except StoreError:\n                put.job()\n",
        "            except StoreError:\n                pass\n",
        MIRROR,
        "what could not be put is forgotten",
    ),
    Mutant(
        "engine/stores/lease.py",
        "        if lease.place == self._place or late > LONG_AGO:",
        "        if late > LONG_AGO or late > timedelta(0):",
        MIRROR,
        "a lease is taken from somebody whose clock is wrong",
    ),
    Mutant(
        "engine/stores/lease.py",
        "        if self._lost or clock() > self._end - MARGIN:\n",
        "        if False:\n",
        MIRROR,
        "a run that lost its lease writes on",
    ),
    Mutant(
        "engine/stores/out.py",
        "            if index.etag(name, path) == entry.etag and entry.etag:",
        "            if path.exists():",
        MIRROR,
        "what changed in the store is not fetched",
    ),
    Mutant(
        "engine/stores/out.py",
        "        if not found.is_dir() and not index.has(name):\n            found.unlink()\n",
        "        pass\n",
        MIRROR,
        "what a killed run did not put is taken for done",
    ),
    Mutant(
        "engine/images/tiff.py",
        'overview_resampling="mode"',
        'overview_resampling="average"',
        ("tests/engine/labels/test_label_writer.py",),
        "overviews show classes that are the mean of others",
    ),
]
