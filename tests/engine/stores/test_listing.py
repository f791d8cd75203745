"""Prefixes, globs and lists of objects: found in order, each listed once."""

import sys

import pytest
from s3_server import REFUSED_KEY, Rule

from alps.engine.base.errors import SettingsError, SourceError
from alps.engine.images.sources import find_sources, label_names
from alps.engine.stores.address import Address
from alps.engine.stores.listing import objects_at

KEYS = [
    "b.PNG", "a/x_1.tif", "a/x_2.tif", "a/deep/x_3.tif", "a.tif", "ab/x_4.tif", ".cache/t.png",
    "a/.hidden.tif", "a/read.me", "a/x_1.tif.aux.xml", "old/journal/plan.parquet",
    "old/labels/x.tif", "old/run.json", "out/labels/y.tif",
]  # fmt: skip


@pytest.fixture
def archive(s3, prefix):
    for key in KEYS:
        s3.put(f"{prefix}/{key}", b"x")
    s3.take_log()
    return prefix


def names(src, **options):
    return [source.name for source in find_sources(src, **options)]


def listings(s3):
    return [request for request in s3.take_log() if "list-type" in request.path]


def test_a_prefix_is_listed_once_and_in_order(s3, archive, capsys):
    sources = find_sources(f"s3://bucket/{archive}/", exclude=f"s3://bucket/{archive}/out")
    expected = ["a.tif", "a/deep/x_3.tif", "a/x_1.tif", "a/x_2.tif", "ab/x_4.tif", "b.PNG"]
    assert [source.name for source in sources] == expected == sorted(expected)
    assert sources[0].path == f"/vsis3/bucket/{archive}/a.tif"
    assert [source.label_name for source in sources] == label_names(expected)
    assert len(s3.take_log()) == 1
    warning = capsys.readouterr().err
    assert "1 files beside images" in warning and "x_1.tif.aux.xml" in warning
    assert names(f"s3://bucket/{archive}") == [*expected, "out/labels/y.tif"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a/*.tif", ["x_1.tif", "x_2.tif"]),
        ("a*/**/x_*.tif", ["a/deep/x_3.tif", "a/x_1.tif", "a/x_2.tif", "ab/x_4.tif"]),
        ("**/x_[34].tif", ["a/deep/x_3.tif", "ab/x_4.tif"]),
        ("a?/*", ["ab/x_4.tif"]),
        ("*.*", ["a.tif", "b.PNG"]),
        ("a/**", ["deep/x_3.tif", "x_1.tif", "x_2.tif"]),
        (".cache/*", ["t.png"]),
        ("*/.hidden.tif", ["a/.hidden.tif"]),
    ],
)
def test_globs(s3, archive, pattern, expected):
    assert names(f"s3://bucket/{archive}/{pattern}") == expected
    assert len(listings(s3)) == 1


@pytest.mark.slow
def test_pages_are_taken_as_they_are_needed(s3, prefix):
    for number in range(1100):
        s3.put(f"{prefix}/{number:04d}.tif", b"")
    s3.take_log()
    address = Address.parse(f"s3://bucket/{prefix}")
    found = objects_at(address, lambda name: True)
    assert next(found)[0] == "0000.tif" and len(s3.take_log()) == 1
    assert len(list(found)) == 1099 and len(s3.take_log()) == 1


def test_lists_mix_places(s3, archive, tmp_path):
    (tmp_path / "mixed.txt").write_text(
        f"s3://bucket/{archive}/a/*.tif\nlocal.png\ns3://bucket/{archive}/a/x_1.tif\n"
        "gs://other/scenes/one.tif\nhttps://host:8080/x/two.tif?version=3\n"
        f"s3://bucket/{archive}/a/*.tif\n"
    )
    assert names(tmp_path / "mixed.txt") == [
        "gs/other/scenes/one.tif",
        "https/host_8080/x/two.tif",
        "local.png",
        f"s3/bucket/{archive}/a/x_1.tif",
        f"s3/bucket/{archive}/a/x_2.tif",
    ]
    assert len(listings(s3)) == 1


def test_one_object_is_not_listed(s3, archive):
    (source,) = find_sources(f"s3://bucket/{archive}/a/x_1.tif")
    assert (source.name, source.path) == ("x_1.tif", f"/vsis3/bucket/{archive}/a/x_1.tif")
    assert not s3.take_log()


@pytest.mark.parametrize(
    ("src", "text"),
    [
        ("s3://bucket/empty/", "No image matches s3://bucket/empty, or lies below it"),
        ("s3://bucket/empty/*.tif", "No image matches"),
        ("s3://nowhere/a/", "there is no bucket nowhere"),
        ("https://host/folder/", "cannot be listed"),
        ("https://host", "cannot be listed"),
    ],
)
def test_nothing_found_says_what_and_how_to_mend(s3, src, text):
    with pytest.raises(SourceError, match=text) as caught:
        find_sources(src)
    assert "\n" not in str(caught.value)


def test_refused_and_failing(s3, archive, monkeypatch):
    monkeypatch.setattr("alps.engine.stores.client.RETRIES", 1)
    s3.misbehave(Rule("list-type", status=500, times=1))
    assert len(names(f"s3://bucket/{archive}/")) == 7
    s3.misbehave(Rule("list-type", bytes_sent=300, times=1))
    assert len(names(f"s3://bucket/{archive}/")) == 7
    s3.misbehave(Rule("list-type", bytes_sent=300))
    with pytest.raises(SourceError, match="response body error; check the endpoint"):
        find_sources(f"s3://bucket/{archive}/")
    s3.misbehave(Rule("list-type", status=500))
    with pytest.raises(SourceError, match="the store answers 500 OnOrder, tried 2 times"):
        find_sources(f"s3://bucket/{archive}/")
    s3.misbehave()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", REFUSED_KEY)
    with pytest.raises(SourceError, match=r"refuses it \(403 InvalidAccessKeyId\); check AWS"):
        find_sources(f"s3://bucket/{archive}/")


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(SettingsError, match=r"alps-engine\[stores\]"):
        find_sources("s3://bucket/a/")
    assert len(find_sources("s3://bucket/a.tif")) == 1
