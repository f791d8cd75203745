"""Batch normalisation over the crops of all processes, so that sharing a batch changes nothing.

PyTorch's own runs on GPUs alone; this one wherever gradients can be summed, with gloo too.
"""

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce


class SharedBatchNorm2d(nn.BatchNorm2d):
    """As ``BatchNorm2d``, with statistics of the whole batch. Its state has the same names."""

    # Norms of segmentation models keep statistics, with a fixed momentum.
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W); every process must have crops."""
        if not self.training:
            return super().forward(x)
        wide = x.float()
        count = wide.new_tensor([float(x.numel() // x.shape[1])])
        sums = torch.cat([wide.sum((0, 2, 3)), wide.square().sum((0, 2, 3)), count])
        mean, square, count = all_reduce(sums).split([x.shape[1], x.shape[1], 1])
        mean, square = mean / count, square / count
        variance = (square - mean.square()).clamp(min=0)
        with torch.no_grad():
            unbiased = variance * count / (count - 1).clamp(min=1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (wide * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)).to(x.dtype)


def share_batch_norm(module: nn.Module) -> None:
    """Make every batch norm inside ``module`` a shared one; nothing where there is one process."""
    if not distributed.is_initialized():
        return
    for norm in module.modules():
        if type(norm) is nn.BatchNorm2d:
            norm.__class__ = SharedBatchNorm2d
