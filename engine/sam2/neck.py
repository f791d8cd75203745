"""From Hiera's stages to what the decoder takes: the image embedding, and finer features."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from alps.engine.sam.layers import modules
from alps.engine.sam2.config import Sam2Config
from alps.engine.sam2.hiera import Attention, Hiera


class ImageEncoder(nn.Module):
    """Pixels (B, 3, S, S), normalised -> three levels of features, the finest first.

    Level n has S / (4 · 2^n) rows and columns: (B, C, 256, 256), (B, C, 128, 128), (B, C, 64, 64)
    of an official model. Only the last takes something of the coarsest stage.
    """

    def __init__(self, config: Sam2Config) -> None:
        super().__init__()
        self.trunk = Hiera(config)
        self.neck = Neck(config)

    def forward(self, pixels: Tensor, attend: Attention | None = None) -> list[Tensor]:
        """All three levels as the network was trained; ``levels`` leaves the first two apart."""
        *fine, embedding = self.levels(pixels, attend)
        laterals = self.neck.laterals()
        return [
            *(lateral(level) for lateral, level in zip(laterals, fine, strict=False)),
            embedding,
        ]

    def levels(self, pixels: Tensor, attend: Attention | None = None) -> list[Tensor]:
        """Stages 0 and 1 as they come, (B, width, h, w) each, and the image embedding."""
        *fine, third, last = (stage.permute(0, 3, 1, 2) for stage in self.trunk(pixels, attend))
        return [*fine, self.neck(third, last)]


class Neck(nn.Module):
    """One convolution of 1 x 1 a stage, the coarsest stage's first; stage 3 is added to stage 2."""

    def __init__(self, config: Sam2Config) -> None:
        super().__init__()
        self.convs = modules(
            Lateral(width, config.embedding_channels) for width in reversed(config.stage_widths)
        )

    def laterals(self) -> Sequence["Lateral"]:
        """The convolutions by stage, the finest first."""
        return list(self.convs)[::-1]

    def forward(self, third: Tensor, last: Tensor) -> Tensor:
        """The two coarsest stages -> (B, C, h, w) of the finer of them."""
        coarse = F.interpolate(self.convs[0](last), scale_factor=2.0, mode="nearest")
        return self.convs[1](third) + coarse


class Lateral(nn.Module):
    """A convolution of 1 x 1, by the name that it has in checkpoints."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, width, h, w) -> (B, out, h, w)."""
        return self.conv(image)


def one_after_the_other(image: Tensor, first: nn.Conv2d, second: nn.Conv2d) -> Tensor:
    """Two convolutions of 1 x 1 as one: nothing stands between them, and the second is narrow.

    Of an official model's finest level that spares a tenth of a gigabyte and nine tenths of the
    work.
    """
    assert first.bias is not None and second.bias is not None
    outer, inner = second.weight.flatten(1), first.weight.flatten(1)
    bias = outer @ first.bias + second.bias
    return F.conv2d(image, (outer @ inner)[..., None, None], bias)
