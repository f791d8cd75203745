"""A page a command, out of the click commands themselves: what they say with ``--help``."""

from importlib.metadata import entry_points

import click

from alps.engine.cli.options.sections import in_sections

GROUP = "alps.commands"

INDEX = """# Commands

One program, `alps`; each command says the same with `--help`. Exit codes: 0 done, 1 an error, 2 a
setting that cannot work, 3 too many failures, 130 interrupted (129 hung up, 143 terminated).

| command | what it does |
|---|---|
"""


def commands() -> dict[str, click.Command]:
    """All registered commands by their name, sorted."""
    return {point.name: point.load() for point in sorted(entry_points(group=GROUP), key=_name)}


def pages() -> dict[str, str]:
    """Markdown by its path below docs/, the overview first."""
    found = commands()
    rows = []
    for name, command in found.items():
        for path, each in walk(name, command):
            rows.append(f"| [`alps {path}`]({name}.md#{anchor(path)}) | {_sentence(each)} |")
    texts = {"commands/index.md": INDEX + "\n".join(rows) + "\n"}
    for name, command in found.items():
        texts[f"commands/{name}.md"] = "\n".join(
            _section(path, each, "#" if path == name else "##")
            for path, each in walk(name, command)
        )
    return texts


def walk(name: str, command: click.Command) -> list[tuple[str, click.Command]]:
    """A command and what lies below it, by the words that call them."""
    found = [(name, command)]
    for child_name, child in getattr(command, "commands", {}).items():
        found += walk(f"{name} {child_name}", child)
    return found


def anchor(path: str) -> str:
    """Of the heading ``alps PATH``, as Markdown's table of contents makes it."""
    return "alps-" + path.replace(" ", "-")


def _section(path: str, command: click.Command, level: str) -> str:
    context = click.Context(command, info_name=f"alps {path}")
    usage = " ".join(["alps", path, *command.collect_usage_pieces(context)])
    lines = [f"{level} alps {path}", "", "```text", usage, "```", ""]
    lines += [_plain(paragraph) + "\n" for paragraph in (command.help or "").split("\n\n")]
    sections = in_sections(command.get_params(context))
    for heading, options in sections.items():
        records = [record for option in options if (record := option.get_help_record(context))]
        lines += [f"**{heading}**", ""] if len(sections) > 1 else []
        lines += ["| option | what it does |", "|---|---|"]
        lines += [f"| {_code(option)} | {_plain(text)} |" for option, text in records]
        lines.append("")
    return "\n".join(lines)


def _name(point: object) -> str:
    return getattr(point, "name", "")


def _sentence(command: click.Command) -> str:
    return _plain((command.help or "").split("\n\n")[0])


def _plain(text: str) -> str:
    """Text of a help on one line, with nothing left that Markdown would take for its own."""
    text = " ".join(text.split())
    for sign in "*|[":
        text = text.replace(sign, "\\" + sign)
    return text.replace("<", "&lt;")


def _code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`"
