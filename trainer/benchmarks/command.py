"""``alps prepare``."""

from pathlib import Path

import click

SHOWN = 5  # files
NAMES = ("isaid", "potsdam", "vaihingen", "loveda")  # without importing what reads images


@click.command()
@click.argument("benchmark", type=click.Choice(NAMES))
@click.argument("src", type=click.Path(path_type=Path, file_okay=False))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--crop", type=click.IntRange(32), help="Side of a crop. Default: what is usual.")
@click.option("--stride", type=click.IntRange(1), help="Between crops. Default: what is usual.")
def prepare(benchmark: str, src: Path, out: Path, crop: int | None, stride: int | None) -> None:
    """Cut a benchmark's official download, unpacked in SRC, into crops for alps finetune.

    iSAID: 896 pixels every 512. ISPRS Potsdam and Vaihingen: 512, the contest's test images as
    val. LoveDA: whole images. OUT is in mmseg's layout, its labels are class numbers.
    """
    from alps.trainer.benchmarks.prepare import prepare as run

    done = run(benchmark, src, out, crop, stride)
    for split, crops in sorted(done.crops.items()):
        click.echo(f"{split}: {crops} crops")
    if done.alone:
        names = ", ".join(path.name for path in done.alone[:SHOWN])
        click.echo(f"{len(done.alone)} files without image or labels are left out: {names} …")
    click.echo(f"next: alps finetune {out} OUT")
