# Copyright (c) The dspnet_mm authors. All rights reserved.
import torch
from mmengine.registry import MODELS
from torch import nn

from .slimmable_layer import SlimmableWeight

_DENSE = (torch.contiguous_format, torch.channels_last)


@MODELS.register_module()
class SlimmableConv2d(SlimmableWeight, nn.Conv2d):
    """A convolution that computes with some of its channels only.

    Takes the arguments of :class:`torch.nn.Conv2d`, ``groups`` excepted.

    Raises:
        ValueError: If ``groups`` is not 1.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self.groups != 1:
            raise ValueError(f'groups={self.groups} cannot be slimmed: only '
                             'groups=1 is supported')

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Convolve.

        Args:
            inputs (Tensor): Shape (N, active_in, H, W).

        Returns:
            Tensor: Shape (N, active_out, H', W').
        """
        weight, bias = self.active_parameters()
        if not any(
                weight.is_contiguous(memory_format=each) for each in _DENSE):
            # Made dense once; PyTorch would do so here and in the backward
            # pass. The memory format stays what it is.
            weight = weight.clone()
        return self._conv_forward(inputs, weight, bias)
