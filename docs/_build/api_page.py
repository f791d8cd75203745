"""The reference of ``import alps``: signatures, fields and docstrings of its public names."""

import dataclasses
import inspect
import re
from typing import Any

import alps

MARK = "<!-- names of alps -->"  # in docs/python.md, where the reference goes


def reference() -> str:
    """Markdown with a heading a name, functions and classes first, errors last."""
    names = sorted((name for name in alps.__all__ if name != "__version__"), key=_order)
    return "\n".join(_entry(name, getattr(alps, name)) for name in names)


def _order(name: str) -> tuple[int, str]:
    value = getattr(alps, name)
    if not inspect.isclass(value):
        return 0, name
    if issubclass(value, Exception):
        return 3, name
    return (2 if name.endswith(("Settings", "Options")) else 1), name


def _entry(name: str, value: Any) -> str:
    if inspect.isclass(value) and issubclass(value, Exception):
        parents = [each.__name__ for each in value.__bases__]
        head = f"class {name}({', '.join(parents)})"
        return "\n".join([f"### {name}", "", _code(head), _prose(value.__doc__), ""])
    if dataclasses.is_dataclass(value):
        lines = [f"### {name}", "", _prose(value.__doc__), "", *_fields(value)]
    else:
        lines = [f"### {name}", "", _code(f"{name}{_signature(value)}"), _prose(value.__doc__), ""]
    if inspect.isclass(value):
        for method, body in vars(value).items():
            if inspect.isfunction(body) and not method.startswith("_"):
                lines += [f"#### {name}.{method}", ""]
                lines += [_code(f"{method}{_signature(body)}"), _prose(body.__doc__), ""]
            elif isinstance(body, property):
                lines += [f"#### {name}.{method}", "", _prose(body.__doc__), ""]
    return "\n".join(lines)


def _fields(value: Any) -> list[str]:
    """A table of a dataclass; what stands behind a field is its help, or its comment in the code."""
    source = inspect.getsource(value)
    rows = ["| field | type | default | |", "|---|---|---|---|"]
    for field in dataclasses.fields(value):
        default = "" if field.default is dataclasses.MISSING else f"`{field.default!r}`"
        if field.default_factory is not dataclasses.MISSING:
            default = f"`{getattr(field.default_factory, '__name__', '')}()`"
        kind = field.type if isinstance(field.type, str) else _type(field.type)
        comment = re.search(rf"^    {field.name}: .*?  # (.*)$", source, re.MULTILINE)
        text = field.metadata.get("help", comment[1] if comment else "")
        cells = f"`{field.name}`", f"`{kind}`", default, text
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*rows, ""]


def _signature(value: Any) -> str:
    try:
        text = str(inspect.signature(value))
    except (TypeError, ValueError):
        return "(...)"
    text = text.replace("(self, ", "(").replace("(self)", "()")
    # Where a type is defined is of no interest to who reads; an address in memory even less.
    text = re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z])", "", text)
    return re.sub(r"<factory>|<[^>]* at 0x[0-9a-f]+>", "...", text)


def _type(kind: Any) -> str:
    name = kind.__name__ if inspect.isclass(kind) and not hasattr(kind, "__args__") else str(kind)
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z])", "", name)


def _code(text: str) -> str:
    return f"```text\n{text}\n```\n"


def _prose(docstring: str | None) -> str:
    """A docstring as Markdown: its sections (Args, Raises) become lists of their entries."""
    lines = inspect.cleandoc(docstring or "").splitlines()
    out: list[str] = []
    for index, line in enumerate(lines):
        if re.fullmatch(r"(Args|Returns|Raises|Yields):", line):
            out += ["", f"**{line[:-1]}**", ""]
        elif entry := re.match(r" {4}(\w+): (.*)", line):
            out.append(f"- `{entry[1]}`: {entry[2]}")
        else:
            indented = line.startswith("    ") and lines[index - 1:index]
            out.append(("  " if indented else "") + line.strip())
    return "\n".join(out).replace("``", "`").replace("<", "&lt;")
