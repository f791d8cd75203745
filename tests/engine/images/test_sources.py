"""What SRC names, and what label maps are called."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alps.engine.base.errors import SourceError
from alps.engine.images.sources import find_sources, label_names


@pytest.fixture
def archive(tmp_path):
    """A small folder; its files are empty, for finding opens none."""
    root = tmp_path / "archive"
    for name in (
        "b.PNG", "a/x.tif", "a/y.jpeg", "a/deep/z.webp", "notes.md", "list.csv",
        ".hidden.png", ".cache/t.png", "[1]/odd.jpg",
    ):  # fmt: skip
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def names(sources):
    return [source.name for source in sources]


def test_a_folder_is_searched_in_a_fixed_order(archive):
    sources = find_sources(archive)
    assert names(sources) == ["[1]/odd.jpg", "a/deep/z.webp", "a/x.tif", "a/y.jpeg", "b.PNG"]
    assert [source.label_name for source in sources] == [
        "[1]/odd.png", "a/deep/z.png", "a/x.tif", "a/y.png", "b.png",
    ]  # fmt: skip
    assert all(source.path.samefile(archive / source.name) for source in sources)
    assert find_sources(str(archive) + "/") == sources


def test_the_out_folder_inside_src_is_not_searched(archive):
    out = archive / "a" / "deep"
    assert "a/deep/z.webp" not in names(find_sources(archive, exclude=out))
    pattern = archive / "**" / "*.*"
    assert "a/deep/z.webp" in names(find_sources(pattern))
    assert "a/deep/z.webp" not in names(find_sources(pattern, exclude=out))


def test_one_image(archive):
    (source,) = find_sources(archive / "a" / "x.tif")
    assert (source.name, source.label_name) == ("x.tif", "x.tif")


def test_globs(archive):
    assert names(find_sources(archive / "a" / "*.tif")) == ["x.tif"]
    assert names(find_sources(archive / "**" / "*.tif")) == ["a/x.tif"]
    assert names(find_sources(archive / "*" / "*.*")) == ["[1]/odd.jpg", "a/x.tif", "a/y.jpeg"]
    assert ".cache/t.png" not in names(find_sources(archive / "**"))


def test_a_glob_relative_to_the_working_folder(archive, monkeypatch):
    monkeypatch.chdir(archive)
    assert names(find_sources("*.PNG")) == ["b.PNG"]
    assert names(find_sources("a/*.tif")) == ["x.tif"]


def test_a_file_whose_name_looks_like_a_glob(archive):
    assert names(find_sources(archive / "[1]")) == ["odd.jpg"]


def test_a_list(archive, tmp_path):
    (archive / "list.txt").write_text(
        "# tiles\n\n a/x.tif \nb.PNG\nmissing.png\nb.PNG\n./a/../b.PNG\n", "utf-8-sig"
    )
    sources = find_sources(archive / "list.txt")
    assert names(sources) == ["a/x.tif", "b.PNG", "missing.png"]
    assert not sources[2].path.exists()
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "far.txt").write_text(f"../archive/a/x.tif\n{archive / 'b.PNG'}\n")
    assert names(find_sources(lists / "far.txt")) == ["a/x.tif", "b.PNG"]


def test_links_are_followed_but_not_in_a_circle(archive, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "far.png").touch()
    (archive / "linked").symlink_to(elsewhere)
    (archive / "a" / "up").symlink_to(archive)
    (archive / "dangling.png").symlink_to(tmp_path / "gone.png")
    found = names(find_sources(archive))
    assert "linked/far.png" in found and "dangling.png" in found
    assert found.count("b.PNG") == 1 and "a/up/b.PNG" not in found


def test_a_folder_that_may_not_be_read_is_a_source(archive, monkeypatch):
    closed = archive / "a" / "deep"
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path) == str(closed):
            raise PermissionError(13, "Permission denied", str(closed))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert "a/deep" in names(find_sources(archive))
    with pytest.raises(SourceError, match="Permission denied"):
        find_sources(closed)


def test_a_name_that_is_no_utf8_can_be_written_down(archive):
    path = os.fsencode(archive) + b"/\xff.png"
    try:
        open(path, "wb").close()
    except OSError:
        pytest.skip("this file system holds UTF-8 names only")
    assert "\\xff.png" in names(find_sources(archive))
    assert all(source.name.encode() and source.path.exists() for source in find_sources(archive))


@pytest.mark.parametrize(
    ("src", "text"),
    [
        ("", "SRC is empty"),
        ("nowhere", "nowhere does not exist"),
        ("nowhere/*.png", "No image matches"),
        ("empty", "No images in the folder"),
        ("none.txt", "names no image"),
        ("binary.txt", "UTF-8"),
        ("gone.txt", "does not exist"),
        ("x" * 5000, "Cannot look into"),
    ],
)
def test_nothing_found_says_what_and_how_to_mend(tmp_path, monkeypatch, src, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.md").touch()
    (tmp_path / "none.txt").write_text("# nothing\n\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(SourceError, match=text) as caught:
        find_sources(src)
    assert "\n" not in str(caught.value)


def test_single_s3_objects(tmp_path):
    (source,) = find_sources("s3://bucket/scenes/one.tif")
    assert (source.path, source.name) == ("/vsis3/bucket/scenes/one.tif", "one.tif")
    (tmp_path / "mixed.txt").write_text("s3://bucket/scenes/one.tif\nlocal.png\n")
    assert names(find_sources(tmp_path / "mixed.txt")) == [
        "local.png",
        "s3/bucket/scenes/one.tif",
    ]


@pytest.mark.parametrize(
    ("given_names", "expected"),
    [
        (["a.jpg", "a.png", "b.png"], ["a.jpg.png", "a.png.png", "b.png"]),
        (["a.jpg", "a.tif"], ["a.png", "a.tif"]),
        (["a.tif", "a.tiff", "x/a.tif"], ["a.tif.tif", "a.tiff.tif", "x/a.tif"]),
        (["A.jpg", "a.png"], ["A.jpg.png", "a.png.png"]),
        (["a.jpg", "a.png", "a.jpg.bmp"], ["a.jpg.png", "a.png.png", "a.jpg_.png"]),
        (["a.jpg", "a.png/b.jpg"], ["a.jpg.png", "a.png/b.png"]),
        (["noext"], ["noext.png"]),
    ],
)
def test_label_names(given_names, expected):
    assert label_names(given_names) == expected


parts = st.sampled_from(["a", "A", "a.png", "a.jpg", "a.tif", "a.png.png", "a.jpg.png", "a_.png"])


@given(st.sets(st.lists(parts, min_size=1, max_size=3).map("/".join), max_size=12))
def test_label_names_never_meet(given_names):
    labels = label_names(sorted(given_names))
    folded = {label.casefold() for label in labels}
    assert len(folded) == len(labels)
    folders = {os.path.dirname(label).casefold() for label in labels}
    assert not folded & folders
    assert labels == label_names(sorted(given_names))
