"""The commands of the trainer."""

from alps.trainer.benchmarks.command import prepare
from alps.trainer.distill.command import distill
from alps.trainer.experiment.command import experiment
from alps.trainer.predict.command import predict
from alps.trainer.segmentation.command import evaluate, finetune, pretrain
from alps.trainer.tiny.command import train_tiny

__all__ = [
    "distill",
    "evaluate",
    "experiment",
    "finetune",
    "predict",
    "prepare",
    "pretrain",
    "train_tiny",
]
