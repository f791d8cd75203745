"""What the page's server lets in, what it changes, and what it never gives."""

import gzip
import io
import json
import shutil

import numpy as np
import pytest
from named_page import CLUSTERS, TOKEN
from PIL import Image

from alps.engine.browser.pictures import NO_CLUSTER, parts_of
from alps.engine.labels.classes import read_classes
from alps.engine.naming import edit
from alps.engine.naming.names import cleaned, read_names
from alps.engine.run_folder.locks import locked
from alps.engine.run_folder.tables import read_table
from alps.engine.stages.naming import Suggestion, change_names

pytestmark = pytest.mark.usefixtures("one_thread")

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "w" * 10_000,
    "two\nlines\r\n\tand a tab",
    "=HYPERLINK(A1)",
    "\u202egnp.exe",
    "مياه",
    "🌲 \u0000 \u2028 ${7*7} {{7*7}}",
)


@pytest.fixture
def page(run, serve_page):
    return serve_page(run)


def picture_of(exemplar):
    return f"exemplar/{exemplar['since']}/{exemplar['cluster']}/{exemplar['place']}"


def untouched(folder):
    return not folder.names.exists()


def test_only_who_has_the_token_is_let_in(page, run):
    assert page.get("state").status == 200
    for path in (
        "/",
        "/state",
        f"/{TOKEN}x/state",
        f"/{TOKEN[:-1]}/state",
        "//state",
        "/%C3%A9/state",
    ):
        answer = page.raw("GET", path)
        assert (answer.status, b"its token is missing" in answer.body) == (403, True), path
    body = json.dumps({"session": page.session, "do": "name", "clusters": [1], "text": "a"})
    origin = {"Origin": f"http://127.0.0.1:{page.port}"}
    assert page.raw("POST", "/other/change", origin, body).status == 403 and untouched(run)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "", "[::1]"])
def test_another_host_is_refused(page, host):
    """As of a name that was pointed at this machine once a page of it was open."""
    answer = page.raw("GET", f"/{TOKEN}/state", {"Host": host})
    assert answer.status in (400, 403) and b"classes" not in answer.body
    assert page.raw("GET", f"/{TOKEN}/state", {"Host": f"localhost:{page.port}"}).status == 200


def test_only_the_page_itself_changes_anything(page, run):
    body = json.dumps({"session": page.session, "do": "name", "clusters": [1], "text": "a"})
    own = f"http://127.0.0.1:{page.port}"
    for headers in (
        {},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": f"http://127.0.0.1:{page.port + 1}"},
        {"Origin": own, "Sec-Fetch-Site": "cross-site"},
    ):
        assert page.raw("POST", f"/{TOKEN}/change", headers, body).status == 403, headers
    for method in ("GET", "PUT", "DELETE", "OPTIONS"):
        assert page.raw(method, f"/{TOKEN}/change", {"Origin": own}, body).status == 405
    assert untouched(run)
    assert page.raw("POST", f"/{TOKEN}/change", {"Origin": own}, body).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "../run.json", "..%2f..%2frun.json", "run.json", "/etc/passwd", "%2fetc%2fpasswd",
        "page/page.js", "page.js/../app.py", "app.py", "report.css%00", "exemplar/1/..%2f/0",
        "scene/-1/0/image", "scene/0/99/image", "scene/99/0/image",
        "exemplar/1/0/99", "scene/0/0/image?x=1", "scene/" + "9" * 250 + "/0/image",
        "scene/" + "9" * 5000 + "/0/image", "scene/0.5/0/image",
    ],
)  # fmt: skip
def test_no_address_names_a_file(page, path):
    answer = page.get(path)
    assert answer.status == 404 and len(answer.body) < 200


def test_every_answer_tells_browsers_to_trust_nothing_else(page):
    for path in ("", "page.js", "state", "nothing", "exemplar/1/0/0", "../x"):
        headers = {name.lower(): value for name, value in page.get(path).headers.items()}
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy
        assert "unsafe" not in policy and "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert (
            headers["cache-control"] == "no-store" and headers["referrer-policy"] == "no-referrer"
        )
        assert not {"set-cookie", "access-control-allow-origin", "server"} & headers.keys()


def test_the_page_has_no_way_to_make_markup_of_a_name_and_no_address_outside(page):
    names = (
        "",
        "page.css",
        "report.css",
        "page.js",
        "server.js",
        "cards.js",
        "map.js",
        "dialogs.js",
    )
    for name in names:
        text = page.get(name).body.decode()
        for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "://"):
            assert word not in text, name


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"session": 1}',
        b'{"session": 1, "do": "name", "clusters": [1], "text": "a", "path": "/etc"}',
        b'{"session": 1, "do": "rm", "clusters": [1]}',
        b'{"session": 1, "do": "name", "clusters": [], "text": "a"}',
        b'{"session": 1, "do": "name", "clusters": ["1"], "text": "a"}',
        b'{"session": 1, "do": "name", "clusters": [-1], "text": "a"}',
        b'{"session": 1, "do": "name", "clusters": [1e400], "text": "a"}',
        b'{"session": 1, "do": "name", "clusters": [NaN], "text": "a"}',
        b'{"session": 1, "do": "name", "clusters": [99999999999999999999], "text": "a"}',
    ],
)  # fmt: skip
def test_what_is_no_request_is_said_and_changes_nothing(page, run, body):
    answer = page.post("change", body)
    assert answer.status == 400 and "cannot be read" in answer.json["error"]
    assert "\n" not in answer.json["error"] and untouched(run)


@pytest.mark.parametrize(
    ("do", "clusters", "values", "why"),
    [
        ("name", [99], {"text": "a"}, "no cluster 99"),
        ("merge", [1], {}, "two clusters or more"),
        ("colour", [1], {"text": "red"}, "#rrggbb"),
        ("colour", [1], {"text": "#12345g"}, "#rrggbb"),
        ("split", [1], {"parts": 1}, "2 to 64 parts"),
        ("split", [1], {"parts": 65}, "2 to 64 parts"),
        ("unsplit", [1], {}, "not split"),
        ("name", [1], {}, "so already"),
    ],
)
def test_what_cannot_be_is_said_and_changes_nothing(page, run, do, clusters, values, why):
    answer = page.change(do, *clusters, **values)
    assert answer.status == 400 and why in answer.json["error"] and untouched(run)
    assert not page.get("state").json["undo"]


def test_a_body_without_end_is_not_read(page, run):
    assert page.post("change", b" " * (2 << 20)).status == 413
    assert page.change("name", 1, text="w" * 30_000).status == 400
    assert untouched(run) and page.get("state").status == 200


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_changes_nothing_but_what_is_shown(page, run, name):
    before = page.get("state").json
    answer = page.post("change", _hostile(page.session, name))
    assert answer.status == 200
    now = answer.json
    assert next(one for one in now["classes"] if one["value"] == 2)["name"] == cleaned(name)
    for state in (before, now):
        for one in state["classes"]:
            one["name"] = ""
        state["classes"].sort(key=lambda one: one["value"])
    assert now["classes"] == before["classes"]
    assert read_names(run).of_cluster(2).name == cleaned(name) and "\n" not in cleaned(name)
    assert len(run.names.read_text().splitlines()) <= 6


def test_a_name_of_half_a_letter_is_refused_or_cleaned(page, run):
    body = b'{"session": %d, "do": "name", "clusters": [2], "text": "a\\ud800b"}' % page.session
    answer = page.post("change", body)
    assert answer.status in (200, 400) and page.get("state").status == 200
    assert read_names(run).of_cluster(2).name in ("", "a b")


def _hostile(session, name):
    values = {"session": session, "do": "name", "clusters": [2], "text": name}
    return json.dumps(values).encode()


def test_what_is_acknowledged_is_on_the_disk(page, run):
    state = page.change("name", 1, text="water").json
    assert read_names(run).of_cluster(1).name == "water"
    assert state["undo"] == "cluster 1 is called water" and not state["painted"]
    page.change("name", 4, text="water")  # classes of one name are one
    assert read_names(run).of_cluster(4).clusters == (1, 4)
    page.change("merge", 0, 3)
    page.change("ignore", 5)
    page.change("colour", 1, text="#0a0B0c")
    names = read_names(run)
    assert names.of_cluster(3).clusters == (0, 3) and names.of_cluster(5).ignore
    assert names.of_cluster(4).colour == "#0a0b0c"
    shown = {one["value"]: one for one in page.get("state").json["classes"]}
    assert sorted(shown) == [0, 1, 2, 5] and shown[1]["colour"] == "#0a0b0c"
    assert abs(sum(one["share"] for one in shown.values()) - 1) < 1e-9
    page.change("separate", 4)
    page.change("ignore", 5, on=False)
    assert read_names(run).of_cluster(4).name == "" and not read_names(run).of_cluster(5).ignore


def test_undo_and_redo_go_through_all_kinds_of_changes(page, run):
    def classes_of_regions():
        return read_table(run.region_classes(0), ["cluster"]).column(0).to_pylist()

    states = [(read_names(run).classes, read_names(run).splits, classes_of_regions())]
    for do, clusters, values in (
        ("name", [1], {"text": "water"}),
        ("split", [2], {"parts": 2}),
        ("name", [CLUSTERS], {"text": "reed"}),
        ("merge", [0, 1], {}),
        ("ignore", [3], {}),
    ):
        assert page.change(do, *clusters, **values).status == 200
        names = read_names(run)
        states.append((names.classes, names.splits, classes_of_regions()))
    assert CLUSTERS in states[2][2]
    asked = {"session": page.session}
    for way, order in (("undo", states[-2::-1]), ("redo", states[1:])):
        for expected in order:
            assert page.post(way, asked).status == 200
            names = read_names(run)
            assert (names.classes, names.splits, classes_of_regions()) == expected
        assert f"nothing to {way}" in page.post(way, asked).json["error"]
    page.post("undo", asked)
    page.change("name", 5, text="sand")
    assert "nothing to redo" in page.post("redo", asked).json["error"]


def test_one_browser_names_at_a_time(page, run):
    other = page.post("open", {}).json
    assert not other["owner"] and not page.get(f"news/{other['session']}").json["owner"]
    body = {"session": other["session"], "do": "name", "clusters": [1], "text": "mine"}
    answer = page.post("change", body)
    assert answer.status == 409 and answer.json["taken"] and untouched(run)
    for path in ("undo", "redo", "paint"):
        assert page.post(path, {"session": other["session"]}).status == 409
    assert page.post("take", {"session": other["session"]}).json["owner"]
    assert page.post("change", body).status == 200
    assert page.change("name", 2, text="late").status == 409
    assert not page.get(f"news/{page.session}").json["owner"]
    page.post("leave", {"session": other["session"]})
    assert page.get(f"news/{page.session}").json["owner"]


def test_a_browser_that_fell_silent_is_no_other(run):
    from alps.engine.browser.sessions import SILENT_SECONDS, Sessions

    now = [0.0]
    sessions = Sessions(lambda: now[0])
    first, second = sessions.open(), sessions.open()
    assert sessions.is_owner(first) and not sessions.is_owner(second)
    now[0] += SILENT_SECONDS + 1
    assert sessions.is_owner(second) and not sessions.is_owner(first)


def test_what_others_change_is_seen_and_is_not_undone_here(page, run):
    page.change("name", 1, text="water")
    change_names(run, [lambda names: edit.name(names, [2], "sand")])
    version = page.get(f"news/{page.session}").json["version"]
    page.desk.submit(lambda: None).result(10)
    assert page.get(f"news/{page.session}").json["version"] > version
    assert page.names()[2] == "sand" and not page.get("state").json["undo"]
    run.names.write_text("{")
    answer = page.change("name", 3, text="lost")
    assert answer.status == 400 and "names.json" in answer.json["error"]
    assert run.names.read_text() == "{"


def test_a_run_that_is_written_to_is_left_alone(page, run):
    with locked(run):
        answer = page.change("name", 1, text="water")
    assert answer.status == 400 and "another run is writing" in answer.json["error"]
    assert untouched(run) and not page.get("state").json["undo"]
    assert page.change("name", 1, text="water").status == 200


def test_painting_brings_the_names_to_label_maps(page, run):
    page.change("merge", 0, 1)
    page.change("name", 0, text="water")
    assert page.post("paint", {"session": page.session}).status == 200
    page.desk.submit(lambda: None).result(60)
    news = page.get(f"news/{page.session}").json
    assert news["busy"] is None and news["said"].startswith("label maps")
    assert page.get("state").json["painted"]
    run.refuse_unpainted()
    classes = {one.id: one for one in read_classes(run.classes).classes}
    assert classes[0].name == "water" and classes[1].part_of == 0 and not classes[1].pixels


def test_nothing_is_changed_while_label_maps_are_painted(page, run, monkeypatch):
    import threading

    from alps.engine.stages import single

    started, go_on = threading.Event(), threading.Event()

    def paint(*args):
        started.set()
        go_on.wait(10)
        raise ValueError("no space left")

    monkeypatch.setattr(single, "paint", paint)
    page.post("paint", {"session": page.session})
    assert started.wait(10)
    assert page.get(f"news/{page.session}").json["busy"]["what"] == "painting"
    answer = page.change("name", 1, text="water")
    assert answer.status == 409 and "when that is done" in answer.json["error"] and untouched(run)
    assert page.post("paint", {"session": page.session}).status == 409
    go_on.set()
    page.desk.submit(lambda: None).result(10)
    assert page.get(f"news/{page.session}").json["said"] == "painting failed: no space left"
    assert page.change("name", 1, text="water").status == 200


def test_classes_say_where_they_are_and_what_is_like_them(page):
    classes = page.get("state").json["classes"]
    assert sorted(one["value"] for one in classes) == list(range(CLUSTERS))
    shares = [one["share"] for one in classes]
    assert shares == sorted(shares, reverse=True) and abs(sum(shares) - 1) < 1e-9
    for one in classes:
        years = [int(name[6:10]) for name in one["mainly"]]
        assert 1 <= one["sources"] <= 4 and len(years) == min(one["sources"], 3)
        first, last = (int(one["dates"][end]) for end in (0, -1))
        assert first <= min(years) and max(years) <= last and len(one["dates"]) <= 2
        assert len(one["near"]) == 4 and one["value"] not in one["near"]
        assert one["exemplars"] and len(one["exemplars"]) <= 8


def test_the_order_has_doubtful_ones_first(run, serve_page):
    run.names.write_text(
        '{"classes": [{"clusters": [0], "name": "a", "carried": 0.5},'
        '{"clusters": [1], "name": "b", "carried": 0.4}, {"clusters": [2], "ignore": true},'
        '{"clusters": [3], "name": "c", "carried": 0.99}]}'
    )
    page = serve_page(run, lambda: {4: Suggestion("reed", 0.75)})
    classes = page.get("state").json["classes"]
    values = [one["value"] for one in classes]
    assert values[:2] == [1, 0] and set(values[2:4]) == {4, 5} and values[4:] == [3, 2]
    suggestions = {one["value"]: one["suggestion"] for one in classes}
    assert suggestions[4] == {"name": "reed", "share": 0.75} and not suggestions[5]
    page.change("name", 1, text="b, looked at")
    assert [one["value"] for one in page.get("state").json["classes"] if one["doubtful"]] == [0]


def test_pictures_show_what_the_run_has(page, run, labelled):
    classes = page.get("state").json["classes"]
    one = next(one for one in classes if any(e["scene"] == 1 for e in one["exemplars"]))
    for exemplar in one["exemplars"]:
        answer = page.get(picture_of(exemplar))
        assert answer.headers["content-type"] == "image/webp"
        assert max(Image.open(io.BytesIO(answer.body)).size) == 224
    scenes = page.get("scenes/0").json
    assert [scene["name"] for scene in scenes["scenes"]] == [
        f"field-{y}.png" for y in range(2018, 2022)
    ]
    assert scenes["next"] is None
    image = Image.open(io.BytesIO(page.get("scene/1/0/image").body)).convert("RGB")
    truth = np.asarray(Image.open(labelled / "images" / "field-2019.png").convert("RGB"), int)
    assert image.size == (96, 96) and np.abs(np.asarray(image, int) - truth).mean() < 12
    answer = page.get("scene/1/0/clusters/1")
    assert answer.headers["content-encoding"] == "gzip"
    width, height, *ids = np.frombuffer(gzip.decompress(answer.body), "<u2").tolist()
    assert (width, height, len(ids)) == (96, 96, 96 * 96)
    assert set(ids) <= {*range(CLUSTERS), NO_CLUSTER} and len(set(ids)) > 1
    # Where the class's own exemplar lies there is its cluster.
    here = next(e for e in one["exemplars"] if e["scene"] == 1)
    near = np.reshape(ids, (96, 96))[max(here["y"] - 20, 0) :, max(here["x"] - 20, 0) :]
    assert here["cluster"] in near[:40, :40]


def test_after_a_split_only_its_parts_have_other_pictures(page):
    def pictures():
        classes = page.get("state").json["classes"]
        return {one["value"]: [picture_of(e) for e in one["exemplars"]] for one in classes}

    before = pictures()
    page.change("split", 3, parts=2)
    split = pictures()
    others = set(before) - {3}
    assert {n: before[n] for n in others} == {n: split[n] for n in others}
    assert not set(before[3]) & set(split[3]) and split[CLUSTERS]
    page.post("undo", {"session": page.session})
    gone = page.get(split[CLUSTERS][0])  # as a browser may ask that has not heard of it yet
    assert (gone.status, gone.body) == (204, b"")
    assert all(page.get(path).status == 200 for path in [pictures()[3][0], before[0][0]])


def test_a_source_that_is_gone_is_grey(run, serve_page, labelled, tmp_path):
    kept = tmp_path / "away"
    shutil.move(labelled / "images" / "field-2018.png", kept)
    try:
        page = serve_page(run)
        image = Image.open(io.BytesIO(page.get("scene/0/0/image").body)).convert("RGB")
        assert np.ptp(np.asarray(image)) < 4
        exemplar = next(
            e
            for one in page.get("state").json["classes"]
            for e in one["exemplars"]
            if not e["scene"]
        )
        answer = page.get(picture_of(exemplar))
        assert answer.status == 200
    finally:
        shutil.move(kept, labelled / "images" / "field-2018.png")


def test_large_scenes_come_in_parts_that_cover_them():
    assert [(p.width, p.height) for p in parts_of(6000, 200)] == [(6000, 200)]
    parts = parts_of(13_001, 6_001)
    seen = np.zeros((6_001, 13_001), np.uint8)
    for part in parts:
        assert max(part.width, part.height) <= 6000
        seen[part.y : part.y + part.height, part.x : part.x + part.width] += 1
    assert len(parts) == 6 and (seen == 1).all()


def test_of_many_groups_a_sample_is_looked_at(run, serve_page, monkeypatch):
    from alps.engine.browser import survey

    parts = survey.region_parts(run) * 500
    read = []
    monkeypatch.setattr(survey, "region_parts", lambda folder: parts)
    areas = survey._areas
    monkeypatch.setattr(survey, "_areas", lambda *a: read.append(1) or areas(*a))
    page = serve_page(run)
    state = page.get("state").json
    assert (state["groups"], state["allGroups"]) == (survey.MOST_GROUPS, 500)
    assert len(read) == survey.MOST_GROUPS
    assert abs(sum(one["share"] for one in state["classes"]) - 1) < 1e-9
