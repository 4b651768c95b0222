# Copyright (c) The dspnet_mm authors. All rights reserved.
from typing import List, Tuple

import torch
from mmselfsup.registry import MODELS

from .base import SupernetAlgorithm, Views


@MODELS.register_module()
class DSPNet(SupernetAlgorithm):
    """DSPNet: BYOL for all sub-networks of a supernet at once.

    Implementation of `DSPNet: Towards Slimmable Pretrained Networks based on
    Self-supervised Learning <https://arxiv.org/abs/2207.06075>`_. Each sampled
    sub-network predicts, from its projection of one view, the full target
    network's projection of the other view, both ways round (BYOL, arXiv
    2006.07733, equation 2). That small sub-networks predict a large network's
    projections is the knowledge distillation in it.

    With the supernet alone sampled, it is MMSelfSup's BYOL.

    Args:
        *args: See :class:`SupernetAlgorithm`.
        **kwargs: See :class:`SupernetAlgorithm`.
    """

    def subnet_loss(
            self, views: Views,
            targets: List[torch.Tensor]) -> Tuple[torch.Tensor, torch.Tensor]:
        """BYOL's symmetric loss of the active sub-network.

        Args:
            views (list[Tensor]): Two views, each of shape (N, C, H, W).
            targets (list[Tensor]): The target network's projections of the
                same views, each of shape (N, D).

        Returns:
            tuple[Tensor, Tensor]: The loss, a scalar in [-4, 4], scaled as
            MMSelfSup's BYOL does, and the projections of the first view, of
            shape (N, D).
        """
        first, second = (self.neck(self.backbone(view))[0] for view in views)
        loss = self.head(first, targets[1]) + self.head(second, targets[0])
        return 2 * loss, first
