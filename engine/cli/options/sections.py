"""Help in sections: options under what they are about, commands under what they are for."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

REST = "Options"  # what is in no section; click's own word
RUN = "Run"


class SectionOption(click.Option):
    """An option that ``--help`` lists under a heading."""

    def __init__(self, *names: Any, section: str = REST, **more: Any) -> None:
        """Take what ``click.option`` takes, and the heading."""
        super().__init__(*names, **more)
        self.section = section


class SectionCommand(click.Command):
    """A command whose ``--help`` lists options in sections, in the order of their first ones."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections."""
        for heading, options in in_sections(self.get_params(ctx)).items():
            records = [option.get_help_record(ctx) for option in options]
            with formatter.section(heading):
                formatter.write_dl([record for record in records if record])


def in_sections(parameters: Iterable[click.Parameter]) -> dict[str, list[click.Option]]:
    """Options that are shown, by their heading."""
    found: dict[str, list[click.Option]] = {}
    for option in parameters:
        if isinstance(option, click.Option) and not option.hidden:
            found.setdefault(getattr(option, "section", REST), []).append(option)
    return found


def listed(names: Iterable[str], sections: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Names of commands by heading, in the order of ``sections``; what these leave out comes last.

    Another package may register commands too, which no heading knows.
    """
    left = sorted(names)
    found = {}
    for heading, members in sections.items():
        if there := [name for name in members if name in left]:
            found[heading] = there
    if rest := [name for name in left if not any(name in there for there in found.values())]:
        found["Other commands"] = rest
    return found
