# Copyright (c) The dspnet_mm authors. All rights reserved.
import torch
from mmengine.dist import all_gather
from torch import nn
from torch.nn import functional as F

from dspnet_mm.errors import InputError


class FeatureQueue(nn.Module):
    """Features of earlier images, the oldest of which make room for new ones.

    As MoCo's (arXiv 1911.05722, section 3.2). It is part of a checkpoint, and
    begins with random directions. Features that are not finite are left out.

    Args:
        channels (int): Of a feature.
        size (int): How many it holds, at least those of a batch.

    Raises:
        InputError: If it is to hold none.

    Attributes:
        features (Tensor): Of length 1 each, of shape (size, channels).
    """

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        if size < 1:
            raise InputError(f'queue_size={size} is not allowed: give at '
                             'least the images of a batch')
        self.register_buffer('features',
                             F.normalize(torch.randn(size, channels), dim=1))
        self.register_buffer('oldest', torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def enqueue(self, features: torch.Tensor) -> None:
        """Let features of all processes take the place of the oldest.

        Args:
            features (Tensor): Of any length, of shape (N, channels).

        Raises:
            InputError: If they are more than the queue holds.
        """
        # In mixed precision they come in half of it.
        features = torch.cat(all_gather(features)).to(self.features)
        features = F.normalize(features, dim=1)
        size = len(self.features)
        if len(features) > size:
            raise InputError(f'queue_size={size} is less than the '
                             f'{len(features)} features of a batch: give more')
        # One bad batch would else spoil all losses until it is overwritten.
        features = features[torch.isfinite(features).all(1)]
        places = torch.arange(len(features), device=self.features.device)
        self.features[(self.oldest + places) % size] = features
        self.oldest.copy_((self.oldest + len(features)) % size)
