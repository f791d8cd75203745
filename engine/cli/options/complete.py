"""What a shell offers for the value of an option. Nothing heavy is imported for a press of Tab."""

from collections.abc import Callable, Sequence

import click
from click.shell_completion import CompletionItem

from alps.engine.settings import DEVICES

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def words(values: Sequence[str], or_file: bool = False) -> Completer:
    """Complete ``values``; ``or_file``: a path will do too, which the shell completes itself."""

    def complete(
        context: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        found = [CompletionItem(word) for word in values if word.startswith(incomplete)]
        return [*found, CompletionItem(incomplete, type="file")] if or_file else found

    return complete


def model(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete names of models, and files."""
    from alps.engine.models.registry import MODELS

    return words(list(MODELS), or_file=True)(context, parameter, incomplete)


device = words(DEVICES)
