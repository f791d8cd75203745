"""Hostile values: one value of a record, a table or a model is set to what nobody would write.

Half of the time its checksum is set right, as somebody would who hands a run folder on. Survived is
a command that ends as if nothing were changed; with a right checksum or in run.json, whose values
may lawfully lead to other labels, one that ends in order and touches nothing outside OUT.
"""

import json
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alps.bench.proofs.faults.attack import Attack
from alps.bench.proofs.faults.damage import COMMANDS, kind_of
from alps.bench.proofs.faults.ground import Ground, around, label_maps
from alps.bench.proofs.faults.outcome import SURVIVED, Outcome, Verdict, fault, judge, with_place
from alps.engine.run_folder import sums
from alps.engine.run_folder.folder import RunFolder

OUTSIDE = "../../outside/victim.png"
WORDS = ("", OUTSIDE, "/dev/zero", "\0", "x" * 5000, "\x1b[2J", "é\n", "NaN", "a/../../../b", ".")
NUMBERS = (-1, 0, 1, 2**31 - 1, 2**31, -(2**63), 2**63 - 1, 10**30, 1e308, 0.5, -0.0)
VALUES: tuple[Any, ...] = (*WORDS, "\ud800", *NUMBERS, None, True, [], {}, [[]], {"a": 1})
NOT_NUMBERS = ("NaN", "Infinity", "-Infinity")  # as Python writes and reads them in JSON
DEPTH = 5000  # of lists in lists
MODEL = "model.safetensors"
MANY = ("run.json", "clusters.npz")  # values lie in these; they are drawn more often


def draw(ground: Ground, rng: random.Random) -> Attack:
    """A file, what becomes of one of its values, and the command that follows."""
    out = ground.base / "out"
    files = [
        path.relative_to(out).as_posix()
        for path in sorted(out.rglob("*"))
        if path.suffix in (".json", ".jsonl", ".parquet", ".npz")
    ]
    kinds: dict[str, list[str]] = {MODEL: [MODEL]}
    for name in files:
        kinds.setdefault(kind_of(name), []).append(name)
    kind = rng.choice([*sorted(kinds), *(name for name in files if name in MANY)])
    name, seal, seed = rng.choice(kinds[kind]), rng.random() < 0.5, rng.random()
    commands: tuple[str, ...] = ("fresh",) if name == MODEL else COMMANDS
    if name == "clusters.npz":
        commands = (*COMMANDS, "one pass", "one pass")
    command = rng.choice(commands)
    carry_out = partial(_hostile, ground, name, command, seal, seed)
    sealed = " with its checksum" if seal else ""
    return Attack(kind, f"a value of {name}{sealed}, then {command}", carry_out)


def _hostile(ground: Ground, name: str, command: str, seal: bool, seed: float) -> Outcome:
    ground.restore(finished=command != "fresh")
    path = ground.model if name == MODEL else ground.out / name
    change = HOW[path.suffix]
    what = change(path, random.Random(seed))
    if seal and name not in (MODEL, "run.json") and path.suffix != ".jsonl":
        sums.record(RunFolder(ground.out), path)
    before = around(ground)
    outcome = with_place(_follow(ground, name, command, seal), ground, before)
    if outcome.verdict is Verdict.FAULT:
        return fault(f"{what}: {outcome.why}")
    return outcome


def _follow(ground: Ground, name: str, command: str, seal: bool) -> Outcome:
    steps: dict[str, list[list[str | Path]]] = {
        "label": [ground.label_command()],
        "fresh": [ground.label_command()],
        "again": ground.again(),
        "report": [["report", ground.out]],
        "verify": [["verify", ground.out]],
        "repair": [["verify", ground.out, "--repair"], ground.label_command()],
        "one pass": [
            [
                "label", ground.archive, ground.round / "out2", "--model", ground.model,
                "--device", "cpu", "--clusters-from", ground.out / "clusters.npz",
            ]
        ],
    }  # fmt: skip
    outcomes = []
    for step in steps[command]:
        outcomes.append(judge(ground.alps(*step)))
        if outcomes[-1].verdict is Verdict.FAULT:
            return outcomes[-1]
    if command == "one pass":  # an OUT of its own, beside
        shutil.rmtree(ground.round / "out2", ignore_errors=True)
    if outcomes[-1].verdict is Verdict.NAMED:
        return outcomes[-1]
    lawful = seal or name in (MODEL, "run.json") or command != "label"
    if not lawful and _labels(ground.out) != _labels(ground.base / "out"):
        return fault(f"{command} ends with 0 and other label maps")
    return SURVIVED


def _labels(out: Path) -> dict[str, bytes]:
    return {name: value for name, value in label_maps(out).items() if name.startswith("labels/")}


def _in_json(path: Path, rng: random.Random) -> str:
    text, what = _changed_json(json.loads(path.read_text(encoding="utf-8")), rng)
    path.write_text(text, encoding="utf-8")
    return what


def _in_lines(path: Path, rng: random.Random) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    at = rng.randrange(len(lines))
    lines[at], what = _changed_json(json.loads(lines[at]), rng)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"line {at}: {what}"


def _changed_json(value: Any, rng: random.Random) -> tuple[str, str]:
    """A JSON text of which one value is another, and in words which."""
    places = [(holder, key, where) for holder, key, where in _places(value, "")]
    if not places:
        return json.dumps(rng.choice(VALUES)), "all of it"
    holder, key, where = rng.choice(places)
    kind = rng.randrange(10)
    if kind == 0:
        del holder[key]
        return json.dumps(value), f"{where} is gone"
    if kind == 1:
        marker = "\x01marker"
        holder[key] = marker
        deep = "[" * DEPTH + "]" * DEPTH
        return json.dumps(value).replace(json.dumps(marker), deep), f"{where} = {DEPTH} lists"
    if kind == 2:
        marker = "\x01marker"
        holder[key] = marker
        word = rng.choice(NOT_NUMBERS)
        return json.dumps(value).replace(json.dumps(marker), word), f"{where} = {word}"
    holder[key] = rng.choice(VALUES)
    return json.dumps(value), f"{where} = {str(holder[key])[:40]!r}"


def _places(value: Any, where: str) -> list[tuple[Any, Any, str]]:
    """Every value inside another: what holds it, its key or number, and the way to it."""
    found: list[tuple[Any, Any, str]] = []
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value[:4])
    for key, inner in items:
        found.append((value, key, f"{where}/{key}"))
        found += _places(inner, f"{where}/{key}")
    return found


def _in_table(path: Path, rng: random.Random) -> str:
    table = pq.read_table(path, partitioning=None)
    at = rng.randrange(table.num_columns)
    field = table.schema.field(at)
    kind = rng.randrange(8)
    if kind == 0:
        pq.write_table(table.drop_columns([field.name]), path)
        return f"column {field.name} is gone"
    if kind == 1:
        strange = pa.array([rng.choice(WORDS[:3])] * table.num_rows)
        pq.write_table(table.set_column(at, field.name, strange), path)
        return f"column {field.name} is of text"
    if kind == 2:
        kept = rng.randrange(table.num_rows + 1)
        pq.write_table(pa.concat_tables([table.slice(0, kept)] * rng.choice([1, 2])), path)
        return f"{kept} of {table.num_rows} rows, or twice as many"
    values = table.column(at).to_pylist()
    if not values:
        return "nothing, it has no rows"
    whole = rng.random() < 0.3
    rows = list(range(len(values))) if whole else [rng.randrange(len(values))]
    new = rng.choice(_values_for(field.type))
    for row in rows:
        values[row] = new
    pq.write_table(table.set_column(at, field, pa.array(values, field.type)), path)
    return f"{field.name} of {len(rows)} rows = {str(new)[:40]!r}"


def _values_for(kind: pa.DataType) -> list[Any]:
    if pa.types.is_integer(kind):
        bits = kind.bit_width - 1
        return [-1, 0, 1, 2**bits - 1, -(2**bits), 1000, None]
    if pa.types.is_floating(kind):
        return [float("nan"), float("inf"), -1.0, np.float16(0) if kind == "halffloat" else 1e30]
    if pa.types.is_string(kind):
        return [*WORDS, None]
    if pa.types.is_binary(kind):
        return [b"", b"\xff" * 100, b"0" * 10_000, None]
    if pa.types.is_fixed_size_list(kind):
        return [[np.float16("nan")] * kind.list_size, None]
    return [[], None]


def _in_arrays(path: Path, rng: random.Random) -> str:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    name = rng.choice(sorted(arrays))
    array = arrays[name]
    changes: list[tuple[str, Callable[[], Any]]] = [
        ("is NaN", lambda: np.full(array.shape, np.nan)),
        ("is infinite", lambda: np.full(array.shape, np.inf)),
        ("is negative", lambda: np.full(array.shape, -1)),
        ("is empty", lambda: np.zeros(0, array.dtype if array.dtype.kind != "U" else float)),
        ("has one more row", lambda: np.concatenate([np.atleast_1d(array)] * 2)),
        ("has one more axis", lambda: array[None]),
        ("is narrower", lambda: np.atleast_1d(array)[..., :-1]),
        ("is complex", lambda: np.zeros(array.shape, complex)),
        ("is text", lambda: np.array("../x")),
        ("is huge", lambda: np.full(array.shape, 1e300)),
        ("is an object", lambda: np.array([{}], dtype=object)),
    ]
    what, make = rng.choice([("is gone", lambda: None), *changes])
    if array.dtype.kind == "U" and array.ndim == 0 and rng.random() < 0.7:
        text, what = _changed_json(json.loads(str(array)), rng)
        arrays[name] = np.array(text)
    else:
        arrays[name] = make()
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return f"{name} {what}"


def _in_model(path: Path, rng: random.Random) -> str:
    """The header of a safetensors file: 8 bytes with its length, then JSON."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    about = header["__metadata__"]
    if rng.random() < 0.7:
        key = rng.choice(sorted(about))
        try:
            about[key], what = _changed_json(json.loads(about[key]), rng)
        except ValueError:
            about[key], what = rng.choice(WORDS), "text"
        what = f"{key}{what}"
        text = json.dumps(header)
    else:
        text, what = _changed_json(header, rng)
    new = text.encode("utf-8", "surrogatepass")
    path.write_bytes(len(new).to_bytes(8, "little") + new + content[8 + length :])
    return what


HOW: dict[str, Callable[[Path, random.Random], str]] = {
    ".json": _in_json,
    ".jsonl": _in_lines,
    ".parquet": _in_table,
    ".npz": _in_arrays,
    ".safetensors": _in_model,
}
