# Copyright (c) The dspnet_mm authors. All rights reserved.
import torch
from mmengine.registry import MODELS
from torch import nn
from torch.nn import functional as F

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

    def _crashes(self, inputs: torch.Tensor) -> bool:
        """Whether the backward pass may end the process.

        That of PyTorch 2.0.1 did for strided convolutions of 1x1 kernels and
        few channels in the channels-last format, on a CPU with AVX2 and
        without AVX-512.
        """
        return (inputs.device.type == 'cpu' and self.kernel_size == (1, 1)
                and self.stride != (1, 1) and self.padding == (0, 0)
                and not inputs.is_contiguous())

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
        if self._crashes(inputs):
            # The same numbers, of every stride-th pixel.
            rows, columns = self.stride
            inputs = inputs[..., ::rows, ::columns]
            return F.conv2d(inputs, weight, bias)
        return self._conv_forward(inputs, weight, bias)
