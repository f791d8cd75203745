"""The runner of mutants, on a checkout of a few lines; and that no room's list has gone stale."""

import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from alps.bench.proofs import mutants
from alps.bench.proofs.mutants import Mutant, MutantError, __main__, mutants_of, rooms
from alps.bench.proofs.mutants.trial import ERROR, NOTICED, SURVIVED, Verdict

CHECKOUT = Path(__file__).resolve().parents[2]
TEST = "tests/test_add.py"
SEEN = Mutant("kernels/add.py", "a + b", "a - b", (TEST,), "subtracts")
UNSEEN = Mutant("kernels/add.py", "c = 1", "c = 2", (TEST,), "another constant")
STALE = Mutant("kernels/add.py", "a * b", "a / b", (TEST,), "text that is gone")
TWICE = Mutant("kernels/add.py", "a", "b", (TEST,), "text that is there often")
HANGING = Mutant("kernels/add.py", "c = 1", "import time; time.sleep(60)", (TEST,), "never ends")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git checkout with one function, tested; the runner takes it for its own."""
    root = tmp_path / "small"
    for name, text in {
        "engine/__init__.py": "",
        "engine/public/__init__.py": "",
        "kernels/__init__.py": "",
        "kernels/add.py": "c = 1\n\n\ndef add(a, b):\n    return a + b\n",
        "tests/test_add.py": (
            "from alps.kernels.add import add\n\n\ndef test_add():\n    assert add(2, 3) == 5\n"
        ),
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    monkeypatch.setattr(__main__, "CHECKOUT", root)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # its tests want none
    return root


@pytest.fixture
def run(monkeypatch):
    """A function that runs the program with these mutants as the list of kernels/."""

    def run(listed, *options):
        monkeypatch.setattr(__main__, "mutants_of", lambda room: listed)
        return CliRunner().invoke(__main__.main, ["kernels", *options])

    return run


@pytest.mark.slow
def test_each_mutant_has_its_verdict_and_the_checkout_stays_as_it_was(checkout, run):
    before = (checkout / "kernels/add.py").read_text()
    done = run([SEEN, UNSEEN, STALE, TWICE])
    lines = done.output.splitlines()
    assert [line.split()[2] for line in lines[1:5]] == ["noticed", "SURVIVED", "error", "error"]
    assert "tests/test_add.py::test_add" in lines[1]
    assert "not found" in lines[3] and "times" in lines[4]
    assert lines[5] == "kernels: 1 of 2 noticed (50.0 %), 1 survived, 2 in error"
    assert done.exit_code == 1
    assert (checkout / "kernels/add.py").read_text() == before


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([NOTICED], 0),
        ([NOTICED, SURVIVED], 1),  # 50 of 100
        ([NOTICED, NOTICED, SURVIVED], 0),
        ([NOTICED, NOTICED, ERROR], 1),
    ],
)
def test_the_exit_code_says_whether_enough_was_noticed(run, monkeypatch, outcomes, code):
    verdicts = [Verdict(outcome, "", 1.0) for outcome in outcomes]
    monkeypatch.setattr(__main__, "Copy", lambda *given: None)
    monkeypatch.setattr(__main__, "try_all", lambda *given: verdicts)
    assert run([SEEN] * len(verdicts), "--least", "60").exit_code == code


@pytest.mark.slow
def test_a_mutant_that_never_ends_is_noticed(checkout, run):
    done = run([HANGING], "--timeout", "8")
    assert "noticed" in done.output and "not done after 8 s" in done.output


@pytest.mark.slow
def test_tests_that_fail_without_a_change_stop_it(checkout, run):
    (checkout / TEST).write_text("def test_add():\n    assert False\n")
    done = run([SEEN])
    assert done.exit_code == 1
    assert "fail without any change: tests/test_add.py::test_add" in done.output


@pytest.mark.slow
def test_a_second_run_tries_only_what_has_changed(checkout, run, tmp_path, monkeypatch):
    file = tmp_path / "verdicts.json"
    run([SEEN, UNSEEN], "--json", str(file))
    rows = json.loads(file.read_text())
    assert sorted(row["outcome"] for row in rows.values()) == ["SURVIVED", "noticed"]
    with monkeypatch.context() as patch:
        patch.setattr(__main__.Copy, "run", None)  # would fail if it were called
        again = run([SEEN, UNSEEN], "--json", str(file))
    assert "1 of 2 noticed" in again.output
    with open(checkout / TEST, "a") as test:
        test.write("\n\ndef test_c():\n    import alps.kernels.add as add\n    assert add.c == 1\n")
    assert "2 of 2 noticed" in run([SEEN, UNSEEN], "--json", str(file)).output


def test_numbers_and_the_seed_choose(monkeypatch):
    listed = [Mutant("f", str(n), "", (), "") for n in range(30)]
    monkeypatch.setattr(__main__, "mutants_of", lambda room: listed)
    assert [one.number for one in __main__.chosen(("kernels",), (3, 5), None, 0)] == [3, 5]
    drawn = [[o.number for o in __main__.chosen(("kernels",), (), 5, seed)] for seed in (0, 0, 1)]
    assert len(drawn[0]) == 5 and drawn[0] == drawn[1] != drawn[2]


def test_rooms_are_the_lists_beside_the_runner():
    assert "kernels" in rooms() and "trial" not in rooms()
    with pytest.raises(MutantError, match=r"no list of mutants; those that have: .*kernels"):
        mutants_of("cellar")


@pytest.mark.parametrize("text", ["[[group", "", "[[group]]\nfile = 'a'", "group = 3"])
def test_a_list_that_is_none_is_named(tmp_path, monkeypatch, text):
    monkeypatch.setattr(mutants, "LISTS", tmp_path)
    change = "[[group]]\nfile = 'f'\ntests = ['t']\n[[group.change]]\nwhy = 'w'\n"
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "attic.toml").write_text(f"{change}old = '''\n  a\n'''\nnew = 'b'\n")
    assert rooms() == ["house"]
    assert mutants_of("house") == [Mutant("f", "  a\n", "b", ("t",), "w")]
    (tmp_path / "house" / "cellar.toml").write_text(text)
    with pytest.raises(MutantError, match=r"cellar\.toml is no list"):
        mutants_of("house")


@pytest.mark.parametrize("room", rooms())
def test_no_list_has_gone_stale(room):
    listed = mutants.mutants_of(room)
    for mutant in listed:
        mutant.applied(CHECKOUT)
    changes = [(mutant.path, mutant.old, mutant.new) for mutant in listed]
    assert len(set(changes)) == len(changes)
