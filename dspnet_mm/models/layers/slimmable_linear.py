# Copyright (c) The dspnet_mm authors. All rights reserved.
import torch
from mmengine.registry import MODELS
from torch import nn
from torch.nn import functional as F

from .slimmable_layer import SlimmableWeight


@MODELS.register_module()
class SlimmableLinear(SlimmableWeight, nn.Linear):
    """A linear layer that computes with some of its features only.

    Takes the arguments of :class:`torch.nn.Linear`.
    """

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Multiply.

        Args:
            inputs (Tensor): Shape (N, active_in).

        Returns:
            Tensor: Shape (N, active_out).
        """
        return F.linear(inputs, *self.active_parameters())
