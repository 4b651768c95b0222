# Copyright (c) The dspnet_mm authors. All rights reserved.
from typing import Dict, List, Sequence

import torch
from mmcls.registry import MODELS
from mmengine.model import BaseModule
from torch import nn
from torch.nn import functional as F

from dspnet_mm.errors import InputError


@MODELS.register_module()
class JointLinearHead(BaseModule):
    """Linear classifiers of several networks' features, trained together.

    From SlimCLR (arXiv 2209.15525), as its authors' scripts train it: the
    largest network's classifier learns from the labels; half of the others'
    loss is of the labels, half is to predict what the largest's predicts
    (in-place distillation, of arXiv 1903.05134). Either each network has a
    linear layer of its own, or all share the largest's, of which smaller
    networks use the first inputs. One matrix is hardly the best for all of
    them, so that sharing costs accuracy.

    Args:
        in_channels (Sequence[int]): Channels of each network's features, the
            largest network's first.
        num_classes (int): How many classes there are, at least 2.
        switchable (bool): Whether each network has a layer of its own.
            Defaults to True.

    Raises:
        InputError: If there are no networks or classes, or a layer that is
            shared has fewer inputs than a network has channels.
    """

    def __init__(self,
                 in_channels: Sequence[int],
                 num_classes: int,
                 switchable: bool = True) -> None:
        super().__init__()
        if not in_channels or num_classes < 2:
            raise InputError(f'in_channels={list(in_channels)} and '
                             f'num_classes={num_classes} are not allowed: '
                             'give at least one network and two classes')
        if not switchable and max(in_channels) > in_channels[0]:
            raise InputError(f'in_channels={list(in_channels)} cannot share a '
                             'layer: give the largest network first')
        self.in_channels = list(in_channels)
        self.switchable = switchable
        inputs = in_channels if switchable else in_channels[:1]
        self.layers = nn.ModuleList(
            nn.Linear(channels, num_classes) for channels in inputs)

    def forward(self, features: Sequence[torch.Tensor]) -> List[torch.Tensor]:
        """Classify.

        Args:
            features (Sequence[Tensor]): Of each network, of shape (N, C), C
                as in ``in_channels``.

        Returns:
            list[Tensor]: Logits by network, each of shape (N, num_classes).
        """
        if self.switchable:
            return [layer(each) for layer, each in zip(self.layers, features)]
        shared, = self.layers
        return [
            F.linear(each, shared.weight[:, :channels], shared.bias)
            for channels, each in zip(self.in_channels, features)
        ]

    def losses(self, features: Sequence[torch.Tensor],
               labels: torch.Tensor) -> List[torch.Tensor]:
        """What each network's classifier has to learn.

        Args:
            features (Sequence[Tensor]): See :meth:`forward`.
            labels (Tensor): The classes, of shape (N, ).

        Returns:
            list[Tensor]: A scalar for each network: the cross-entropy with
            the labels; for all but the largest, the mean of that and of the
            cross-entropy with what the largest predicts.
        """
        largest, *smaller = self(features)
        expected = F.softmax(largest.detach(), dim=1)
        return [
            F.cross_entropy(largest, labels),
            *((F.cross_entropy(logits, labels) +
               F.cross_entropy(logits, expected)) / 2 for logits in smaller)
        ]

    def loss(self, feats: Sequence[torch.Tensor],
             data_samples: list) -> Dict[str, torch.Tensor]:
        """The losses, for MMClassification.

        Args:
            feats (Sequence[Tensor]): See :meth:`forward`.
            data_samples (list[ClsDataSample]): Of each image.

        Returns:
            dict[str, Tensor]: A scalar ``loss_INDEX`` for each network.
        """
        labels = torch.cat([sample.gt_label.label for sample in data_samples])
        return {
            f'loss_{index}': loss
            for index, loss in enumerate(self.losses(feats, labels))
        }

    def predict(self, feats: Sequence[torch.Tensor],
                data_samples: list) -> list:
        """The classes that each network predicts, for MMClassification.

        Args:
            feats (Sequence[Tensor]): See :meth:`forward`.
            data_samples (list[ClsDataSample]): Of each image.

        Returns:
            list[ClsDataSample]: The same, with ``predicted``, a tensor of the
            class by each network.
        """
        classes = torch.stack([logits.argmax(1) for logits in self(feats)], 1)
        for sample, predicted in zip(data_samples, classes):
            sample.predicted = predicted
        return data_samples
