"""``alps export``. torch is imported when it is called, not before."""

from pathlib import Path
from typing import Any

import click

from alps.engine.cli.options import pick, settings_options
from alps.export.settings import SAM, ExportSettings


@click.command()
@click.argument("model")
@click.argument("out", type=click.Path(path_type=Path), required=False)
@settings_options(ExportSettings)
def export(model: str, out: Path | None, **values: Any) -> None:
    """Export MODEL for ONNX Runtime or TensorRT, verified against PyTorch as it is written.

    Without OUT it goes where --runtime of label and segment looks by itself. An export that does
    not compute what PyTorch does, or that is interrupted, leaves nothing behind.
    """
    settings = pick(ExportSettings, values)
    if settings.layout == SAM:
        from alps.export.sam_layout import export_decoder

        for name, off in export_decoder(model, out, settings).items():
            click.echo(f"  {name}: off by {off.rms:.1e} rms, {off.largest:.1e} at most")
        click.echo(f"exported the decoder of {model}: {out}")
        return
    from alps.export.job import export_model

    made = export_model(model, out, settings, say=click.echo)
    click.echo(f"exported {made.manifest.model}: {made.folder}")
    if out is not None:
        click.echo(f"use it: alps label SRC RUN --model {model} --artefacts {out}")
