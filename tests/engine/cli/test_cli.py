"""The `alps` program: its commands, its options, and how it fails."""

import contextlib
import dataclasses
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from alps.engine.base.errors import (
    AlpsError,
    RunFolderError,
    SettingsError,
    TooManyFailuresError,
)
from alps.engine.cli import commands
from alps.engine.cli import main as cli
from alps.engine.cli.options import pick, settings_options
from alps.engine.cli.options.kinds import BandList, ShardOf
from alps.engine.settings import (
    ClusterSettings,
    PaintSettings,
    RunSettings,
    SegmentSettings,
    SourceSettings,
)
from alps.engine.stages.label import RunSummary

REPOSITORY = Path(__file__).resolve().parents[3]
COMMANDS = {point.name: point for point in entry_points(group="alps.commands")}
SETTINGS = (SourceSettings, SegmentSettings, ClusterSettings)


def run(*arguments):
    return CliRunner().invoke(cli.commands, arguments, prog_name="alps")


def every_command():
    """(name, command) of all registered commands and what lies below them."""

    def walk(name, command):
        yield name, command
        for child in getattr(command, "commands", {}).values():
            yield from walk(f"{name} {child.name}", child)

    for name, point in sorted(COMMANDS.items()):
        yield from walk(name, point.load())


ALL = dict(every_command())

# --- the commands


@pytest.mark.parametrize(
    ("labelled", "line"),
    [
        (1.0, "labelled: 100.0 % of valid pixels have a class\n"),
        (0.99999, "labelled: > 99.9 % of valid pixels have a class\n"),
        (None, ""),  # there are no label maps
    ],
)
def test_the_end_says_what_is_labelled_apart_from_what_masks_cover(capsys, labelled, line):
    tiles = {"failed": 1, "ok": 3}
    commands._say(RunSummary(Path("OUT"), 2, tiles, 40, 700, 0.973, labelled, {}, {"gone": 1}))
    assert capsys.readouterr().out == (
        f"2 sources, tiles: 1 failed, 3 ok; 40 segments, 700 regions\n{line}"
        "under SAM's masks: 97.3 % of valid pixels\nfailed (1 tiles): gone\n"
        "label maps: OUT/labels\nreport: OUT/report/index.html\n"
    )


def test_registered_commands_are_those_of_setup_py():
    group = (REPOSITORY / "setup.py").read_text().split('"alps.commands": [')[1].split("]")[0]
    written = re.findall(r'"([\w-]+) = alps(?:\.\w+)+:\w+"', group)
    assert set(COMMANDS) == set(written) >= {"label", "demo", "train-tiny"}


def test_help_imports_no_torch():
    code = (
        "import sys; sys.argv = ['alps', '--help']\n"
        "from alps.engine.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    listed, modules = done.stdout.rsplit("\n", 2)[:2]
    assert all(re.search(rf"^  {name} ", listed, re.MULTILINE) for name in COMMANDS)
    assert "'click'" in modules
    for heavy in ("torch", "sklearn", "skimage", "onnx", "pyarrow", "cv2"):
        assert f"'{heavy}'" not in modules


@pytest.mark.parametrize("name", ALL)
def test_every_command_explains_itself(name):
    command = ALL[name]
    assert command.help and command.help.strip().endswith(".")
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"alps {name} {parameter.opts[0]} has no help"
    shown = run(*name.split(), "--help")
    first = command.help.split("\n\n")[0]
    assert shown.exit_code == 0 and " ".join(first.split()) in " ".join(shown.output.split())


@pytest.mark.parametrize("name", ALL)
def test_every_command_stands_in_the_readme(name):
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"\balps {re.escape(name)}\b", text), f"README.md never says: alps {name}"


def test_unknown_commands_and_options_are_refused():
    for arguments in (["lable"], ["label", "a", "b", "--cluster-count", "3"], ["--verbose"]):
        done = run(*arguments)
        assert done.exit_code == 2 and arguments[-2 if len(arguments) > 1 else 0] in done.output


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["lable"], "'label'"),
        (["clusters"], "'cluster'"),
        (["models", "fech"], "'fetch'"),
        (["label", "a", "b", "--cluster-count", "3"], "'--clusters'"),
        (["paint", "run", "--minpatch", "9"], "'--min-patch'"),
    ],
)
def test_what_is_unknown_is_answered_with_what_is_like_it(arguments, meant):
    done = run(*arguments)
    assert done.exit_code == 2 and meant in done.output.split("Did you mean")[1]


def test_nothing_is_suggested_for_what_is_like_nothing():
    assert "Did you mean" not in run("xyzzy").output


def headings_of(shown):
    """Names of a help's first column, by the heading above them."""
    found, heading = {}, None
    for line in shown.splitlines():
        if match := re.fullmatch(r"(\w[\w -]*):", line):
            heading = match[1]
        elif heading and (match := re.match(r"  (\S+)", line)):
            found.setdefault(heading, []).append(match[1])
    return found


def test_commands_are_listed_in_groups(monkeypatch):
    found = headings_of(run("--help").output)
    assert {name: tuple(found[name]) for name in cli.SECTIONS} == cli.SECTIONS  # and none is left
    assert set(found) == {"Options", *cli.SECTIONS}
    theirs = COMMANDS | {"theirs": COMMANDS["report"]}
    monkeypatch.setattr(cli.InstalledCommands, "_entry_points", lambda _: theirs)
    assert headings_of(run("--help").output)["Other commands"] == ["theirs"]


def test_sentences_of_commands_are_listed_whole():
    shown = " ".join(run("--help").output.split())
    for name, point in COMMANDS.items():
        sentence = point.load().help.split("\n\n")[0].rstrip(".")
        assert " ".join(sentence.split()) in shown, name


def test_options_are_listed_by_what_they_are_about():
    found = headings_of(run("label", "--help").output)
    assert list(found) == ["Run", "Source", "Masks", "Clusters", "Label maps", "Options"]
    for heading, cls in zip(list(found)[1:5], (*SETTINGS, PaintSettings), strict=True):
        flags = {"--" + field.name.replace("_", "-") for field in dataclasses.fields(cls)}
        assert flags <= set(found[heading]), heading
    assert {"--model", "--device", "--workers"} <= set(found["Run"])
    assert "--clusters-from" in found["Clusters"]
    # click keeps the first help option that it made: --help alone where a command ran by itself.
    assert found["Options"] in (["-h,"], ["--help"])


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (("label", "--model", "vit"), {"vit_b", "vit_l", "vit_h"}),
        (("distill", "a", "b", "--teacher", "ti"), {"tiny"}),
        (("segment", "--precision", ""), {"fp32", "bf16", "fp16", "int8"}),
        (("predict", "--precision", "b"), {"bfloat16"}),
        (("export", "--precision", "int"), {"int8"}),
        (("label", "--device", "c"), {"cpu", "cuda", "cuda:0"}),
        (("pretrain", "--device", "m"), {"mps"}),
        (("label", "--runtime", "t"), {"torch", "tensorrt"}),
        (("label", "--stretch", "a"), {"auto", "archive"}),
        (("clus",), {"cluster"}),
        (("label", "--points-per"), {"--points-per-side", "--points-per-batch"}),
    ],
)
def test_shells_complete(typed, offered):
    *before, incomplete = typed
    shell = ShellComplete(cli.commands, {}, "alps", "_ALPS_COMPLETE")
    items = shell.get_completions(before, incomplete)
    assert {item.value for item in items if item.type != "file"} >= offered
    assert all(item.value.startswith(incomplete) for item in items)
    if "--model" in before:
        assert any(item.type == "file" for item in items)  # a checkpoint will do too


def test_missing_arguments_are_refused():
    assert run("label", "only-src").exit_code == 2
    assert "OUT" in run("cluster").output


def test_version():
    done = run("--version")
    assert done.exit_code == 0 and done.output.startswith("alps, version ")


# --- how it fails


@pytest.fixture
def program(monkeypatch, capsys, restored_signals):
    """A function that runs the program with one command, which raises an error or is a function;
    returns code and stderr.
    """

    def start(does):
        @click.command()
        def command():
            if isinstance(does, BaseException):
                raise does
            does()

        class Point:
            def load(self):
                return command

        monkeypatch.setattr(cli.InstalledCommands, "_entry_points", lambda _: {"go": Point()})
        monkeypatch.setattr(sys, "argv", ["alps", "go"])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code, capsys.readouterr().err

    return start


@pytest.mark.parametrize(
    ("kind", "code"),
    [(AlpsError, 1), (RunFolderError, 1), (SettingsError, 2), (TooManyFailuresError, 3)],
)
def test_an_expected_error_is_one_line(program, kind, code):
    assert program(kind("x is wrong; do y")) == (code, "alps: x is wrong; do y\n")


def test_an_error_of_several_lines_is_one_too(program):
    assert program(AlpsError("cannot read x:\nbad magic\n")) == (
        1,
        "alps: cannot read x: bad magic\n",
    )


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGHUP, 129, "hung up"),
    ],
)
def test_a_signal_is_one_line_and_says_how_to_go_on(program, number, code, word):
    said = f"alps: {word}; run the same command again to go on\n"
    assert program(lambda: signal.raise_signal(number)) == (code, said)


def _loses_it():
    with contextlib.suppress(BaseException):
        signal.raise_signal(signal.SIGINT)


def _turns_it_into_a_fault():
    _loses_it()
    raise SystemError("returned a result with an exception set")


def _turns_it_into_an_error():
    _loses_it()
    raise RunFolderError("x is unfinished")


@pytest.mark.parametrize("does", [_loses_it, _turns_it_into_a_fault, _turns_it_into_an_error])
def test_a_signal_that_went_astray_ends_it_all_the_same(program, does):
    code, said = program(does)
    assert code == 130
    assert said == "alps: interrupted; run the same command again to go on\n"


def test_a_signal_waits_for_the_end_of_an_import(program, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "slow_to_load.py").write_text(
        "import pathlib, signal, time\n"
        "signal.raise_signal(signal.SIGTERM)\n"
        "pathlib.Path(__file__).with_suffix('.done').touch()\n"
    )

    def does():
        import slow_to_load  # noqa: F401

        time.sleep(5)
        raise ZeroDivisionError  # it was never told

    assert program(does)[0] == 143
    assert (tmp_path / "slow_to_load.done").exists()


def _damaged_for_want_of_memory():
    raise RunFolderError("x is damaged; put back a copy") from MemoryError()


@pytest.mark.parametrize("does", [MemoryError("9 GB"), _damaged_for_want_of_memory])
def test_out_of_memory_is_one_line_and_says_what_to_lower(program, does):
    code, said = program(does)
    assert code == 1 and said.count("\n") == 1
    assert said.startswith("alps: out of memory: free some, or ") and "--tile" in said
    assert "run the same command again" in said and "put back" not in said


def test_a_fault_of_ours_is_not_hidden(program):
    with pytest.raises(ZeroDivisionError):
        program(ZeroDivisionError())


def test_a_real_error_from_outside():
    command = [sys.executable, "-m", "alps.engine.cli.main", "report", "no-such-folder"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("alps: no-such-folder") and done.stderr.count("\n") == 1


# --- options


def options_of(name):
    return {p.name: p for p in ALL[name].params if isinstance(p, click.Option)}


@pytest.mark.parametrize(
    ("name", "classes"),
    [("label", SETTINGS), ("segment", SETTINGS[:2]), ("cluster", SETTINGS[2:])],
)
def test_every_setting_is_an_option_with_its_default(name, classes):
    options = options_of(name)
    shown = " ".join(run(name, "--help").output.split())
    for cls in classes:
        for field in dataclasses.fields(cls):
            option = options[field.name]
            assert option.default == field.default
            assert option.help == field.metadata["help"]
            assert "--" + field.name.replace("_", "-") in option.opts
            if field.default is None:
                assert not option.show_default
            elif isinstance(field.default, bool):
                assert option.secondary_opts == ["--no-" + option.opts[0][2:]]
                flags = option.opts if field.default else option.secondary_opts
                # Lines may break at a hyphen.
                assert f"[default:{flags[0][2:]}]" in shown.replace(" ", "")
            else:
                assert f"{field.metadata['help']} [default: {field.default}]" in shown
    others = {f.name for cls in SETTINGS if cls not in classes for f in dataclasses.fields(cls)}
    assert not others & set(options)


@pytest.fixture
def labelled(monkeypatch):
    """The settings that `alps label` would run with."""
    from alps.engine.stages import label

    seen = []

    class Stop(AlpsError):
        pass

    def record(src, out, settings, options, one_pass):
        assert one_pass is None
        seen.append(settings)
        raise Stop

    monkeypatch.setattr(label, "label_archive", record)

    def settings_for(*arguments):
        done = run("label", "src", "out", *arguments)
        assert isinstance(done.exception, Stop), done.output
        return seen.pop()

    return settings_for


def test_no_option_gives_the_defaults_of_python(labelled):
    assert labelled() == RunSettings()


def test_options_reach_their_settings(labelled):
    given = labelled(
        "--bands", "4,3,2", "--tile", "512", "--pred-iou-thresh", "0.5", "--clusters", "7",
        "--no-normalise", "--min-area", "20",
    )  # fmt: skip
    assert given == RunSettings(
        SourceSettings(tile=512, bands=(4, 3, 2)),
        SegmentSettings(pred_iou_thresh=0.5, min_area=20),
        ClusterSettings(clusters=7, normalise=False),
    )


def test_kinds_of_options():
    @dataclasses.dataclass
    class Some:
        whole: int = dataclasses.field(default=3, metadata={"help": "A number."})
        share: float | None = dataclasses.field(default=None, metadata={"help": "A share."})
        word: str = dataclasses.field(default="x", metadata={"help": "A word."})
        hidden: int = 5

    @click.command()
    @settings_options(Some)
    def command(**values):
        click.echo(repr(pick(Some, values)))

    def output(*arguments):
        return CliRunner().invoke(command, arguments).output.strip()

    def named(**values):
        return repr(Some(**values))

    assert output() == named()
    assert output("--whole", "4", "--share", "0.25", "--word", "y") == named(
        whole=4, share=0.25, word="y"
    )
    assert "not a valid" in output("--whole", "4.5")
    assert "No such option" in output("--hidden", "1")


@pytest.mark.parametrize(
    ("text", "value"),
    [("4,3,2", (4, 3, 2)), ("1", (1,)), (" 1, 2 ,3", (1, 2, 3)), ((1, 2, 3), (1, 2, 3))],
)
def test_band_lists(text, value):
    assert BandList().convert(text, None, None) == value


@pytest.mark.parametrize("text", ["x", "", "4,,2", "4;3;2", "4.0"])
def test_band_lists_that_are_none(text):
    done = run("label", "src", "out", "--bands", text)
    assert done.exit_code == 2 and "--bands" in done.output and "such as 4,3,2" in done.output


@pytest.mark.parametrize(
    ("text", "value"), [("2/8", (1, 8)), ("1/1", (0, 1)), ("8/8", (7, 8)), ((1, 8), (1, 8))]
)
def test_shards(text, value):
    assert ShardOf().convert(text, None, None) == value


@pytest.mark.parametrize("text", ["9/8", "0/8", "-1/8", "1/0", "x", "2", "1/2/3", "1/x", ""])
def test_shards_that_are_none(text):
    done = run("segment", "src", "out", "--shard", text)
    assert done.exit_code == 2 and "--shard" in done.output and text in done.output
