"""What an export is asked for; each default stands here once. Imports no torch."""

from dataclasses import dataclass

from alps.engine.base.errors import SettingsError
from alps.engine.settings import setting

FORMATS = ("onnx", "tensorrt")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
OURS, SAM = "alps", "sam"
LAYOUTS = (OURS, SAM)


@dataclass(frozen=True)
class ExportSettings:
    """How a model is exported, and on what it has to prove itself.

    Raises:
        SettingsError: a value cannot work.
    """

    format: str = setting("onnx", "onnx, or tensorrt: engines for one kind of GPU.", words=FORMATS)
    layout: str = setting(
        OURS,
        "alps: four graphs for --runtime. sam: one, the point decoder with the names, inputs and "
        "outputs of Segment Anything's own example, for web demos and annotation tools.",
        words=LAYOUTS,
    )
    single_mask: bool = setting(
        False, "With --layout sam: one mask a prompt, as that example's web demo wants it."
    )
    precision: str = setting(
        "fp32",
        "fp32; fp16 or bf16, with norms and softmax in fp32; int8, the encoder's products "
        "calibrated on your tiles.",
        words=PRECISIONS,
    )
    tiles: str | None = setting(
        None,
        "Images (as SRC of alps label) to verify on, and to calibrate int8 with. Default: "
        "generated scenes.",
    )
    verify_tiles: int = setting(4, "Compare masks on so many of them; 0: only numbers, not masks.")
    calibration_tiles: int = setting(32, "Calibrate int8 on so many of them.")
    max_loss: float | None = setting(
        None, "Share of PyTorch's masks that may get lost. Default: by precision."
    )
    capability: str | None = setting(
        None, "Compute capability to build engines for, 8.6 say. Default: that of the GPU here."
    )
    max_batch: int = setting(8, "Images in one call of an engine.")
    max_points: int = setting(64, "Points in one call of an engine.")
    seed: int = setting(0, "Seed of random inputs and generated scenes.")

    def __post_init__(self) -> None:
        for name, value, known in (
            ("--format", self.format, FORMATS),
            ("--precision", self.precision, PRECISIONS),
            ("--layout", self.layout, LAYOUTS),
        ):
            if value not in known:
                raise SettingsError(f"{name} {value}: give {', '.join(known)}")
        if self.layout == SAM and (self.format, self.precision) != ("onnx", "fp32"):
            raise SettingsError("--layout sam is written as --format onnx --precision fp32 alone")
        if self.single_mask and self.layout != SAM:
            raise SettingsError("--single-mask is for --layout sam; leave it out")
        if self.format == "tensorrt" and self.precision == "int8":
            raise SettingsError(
                "--precision int8 is made for ONNX Runtime; give --format onnx, or --precision fp16"
            )
        for name in ("verify_tiles", "calibration_tiles", "max_batch", "max_points"):
            least = 0 if name == "verify_tiles" else 1
            if getattr(self, name) < least:
                flag = "--" + name.replace("_", "-")
                raise SettingsError(f"{flag} {getattr(self, name)}: give at least {least}")
        if self.max_loss is not None and not 0 <= self.max_loss <= 1:
            raise SettingsError(f"--max-loss {self.max_loss}: must be between 0 and 1")
