"""Command-line options that several trainings have."""

import click

from alps.engine.cli.options import run_option

checkpoint_every_option = run_option(
    "--checkpoint-every",
    default=50,
    show_default=True,
    type=click.IntRange(1),
    help="Steps between checkpoints; a killed run loses no more.",
)
