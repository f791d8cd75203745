"""A picture of which true class is read as which."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from alps.engine.base.errors import SettingsError
from alps.engine.quality.measure import Quality

CELL, MARGIN, TEXT = 64, 150, 15  # pixels
MOST_NUMBERED = 24  # classes; beyond, cells shrink and numbers are left out


def confusion_plot(quality: Quality) -> Image.Image:
    """Rows are true classes, columns what they are read as; a row's shares add up to 1."""
    counts = np.array(quality.confusion, np.float64)  # (T, T + 1), the last column: no class
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = [c.name for c in quality.classes]
    cell = CELL if len(names) <= MOST_NUMBERED else max(4, 1500 // len(names))
    font = ImageFont.load_default(TEXT)
    size = (MARGIN + cell * (len(names) + 1) + 10, MARGIN + cell * len(names) + 10)
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    draw.text((10, 10), "rows: true class\ncolumns: read as", fill="black", font=font)
    for row, values in enumerate(shares):
        for column, share in enumerate(values):
            x, y = MARGIN + column * cell, MARGIN + row * cell
            draw.rectangle((x, y, x + cell - 1, y + cell - 1), fill=_colour(share), outline="white")
            if cell == CELL:
                ink = "white" if share > 0.5 else "black"
                middle = (x + cell / 2, y + cell / 2)
                draw.text(middle, f"{share:.2f}", fill=ink, font=font, anchor="mm")
    if cell == CELL:
        for index, name in enumerate(names):
            y_middle = MARGIN + (index + 0.5) * cell
            draw.text((MARGIN - 8, y_middle), name[:18], fill="black", font=font, anchor="rm")
        for index, name in enumerate([*names, "none"]):
            _upright(picture, name[:18], MARGIN + index * cell + cell // 2, font)
    return picture


def save_confusion(quality: Quality, path: Path) -> None:
    """Write the picture in the format of the path's suffix."""
    try:
        confusion_plot(quality).save(path)
    except (OSError, ValueError) as error:
        raise SettingsError(f"--plot {path} cannot be written: {error}; give a .png") from error


def _colour(share: float) -> tuple[int, int, int]:
    """White to dark blue."""
    red, green, blue = (int(a + (b - a) * share) for a, b in ((255, 8), (255, 48), (255, 107)))
    return red, green, blue


def _upright(
    picture: Image.Image, text: str, x: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont
) -> None:
    """Text that reads upwards, ending above the first row."""
    width = int(font.getlength(text)) + 2
    strip = Image.new("RGB", (width, TEXT + 6), "white")
    ImageDraw.Draw(strip).text((0, 1), text, fill="black", font=font)
    turned = strip.rotate(90, expand=True)
    picture.paste(turned, (x - turned.width // 2, MARGIN - 8 - turned.height))
