"""Wrong changes of engine/polygons: where polygons lie, what they say, and how they are written."""

from alps.bench.proofs.mutants import changes_of

TESTS = ("tests/engine/polygons/test_polygons.py",)

MUTANTS = [
    *changes_of(
        "engine/polygons/ground.py",
        TESTS,
        (
            "            return np.stack([x, -y], axis=1)\n",
            "            return np.stack([x, y], axis=1)\n",
            "polygons of images that lie nowhere are upside down",
        ),
        (
            "[t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f]",
            "[t.a * x + t.c, t.e * y + t.f]",
            "turned images are taken for upright ones",
        ),
        (
            "        if self._goes_round:  # or",
            "        if False:  # or",
            "a polygon goes around the Earth at 180 degrees",
        ),
    ),
    *changes_of(
        "engine/polygons/scene.py",
        TESTS,
        (
            "    order = np.lexsort((kinds, -pixels, own))\n",
            "    order = np.lexsort((kinds, pixels, own))\n",
            "an object has the class of fewest of its pixels",
        ),
        (
            "_runs_of(shown, rows)",
            "_runs_of(objects, rows)",
            "what has no class counts as a class of an object",
        ),
    ),
    *changes_of(
        "engine/polygons/export.py",
        TESTS,
        (
            "            tolerance /= area**0.5\n",
            "            tolerance /= area\n",
            "metres are taken for square metres",
        ),
        (
            "simplify_boundary=False",
            "simplify_boundary=True",
            "corners of scenes are cut off",
        ),
        (
            'patches[np.argsort(scene.of_patch[patches], kind="stable")]',
            "patches",
            "pieces of objects are mixed up",
        ),
    ),
    *changes_of(
        "engine/polygons/formats.py",
        TESTS,
        (
            "        if not _is_whole(path, layer, kind, stream.rows):\n",
            "        if False:\n",
            "a file that a full disk cut short gets its name",
        ),
        (
            "        except GeneratorExit:  # whoever writes wants no more\n            raise\n",
            "",
            "a full disk is a traceback",
        ),
    ),
    *changes_of(
        "engine/polygons/style.py",
        TESTS,
        (
            "    text = printable(name)\n",
            "    text = name\n",
            "a name breaks the legend, or the style that holds it",
        ),
    ),
]
