# Copyright (c) The dspnet_mm authors. All rights reserved.
"""How good is a network after fine-tuning on few labels?"""
import copy
from typing import Tuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from dspnet_mm.randomness import preserved_random_state, seed_all

# Our choice: enough for some dozens of images to be learned by heart.
_ITERATIONS = 60
_BATCH_SIZE = 64
_BACKBONE_LR = 0.05
_HEAD_LR = 0.2
# Without it, some dozens of images let the larger networks diverge.
_MAX_NORM = 1.0

Labelled = Tuple[torch.Tensor, np.ndarray]


def finetuned_accuracy(backbone: nn.Module,
                       train: Labelled,
                       test: Labelled,
                       seed: int = 0) -> float:
    """Accuracy of a network fine-tuned with a linear classifier on top.

    All of the network is trained, without augmentations, by SGD with momentum
    0.9 along a cosine and gradients clipped to norm 1, for 60 iterations of
    up to 64 images; batch norm keeps the statistics that it has (our choice:
    a fixed short protocol).

    Args:
        backbone (nn.Module): A plain backbone; a copy of it is trained.
        train (tuple[Tensor, ndarray]): Inputs of shape (N, C, H, W) and
            labels of shape (N, ) to learn from.
        test (tuple[Tensor, ndarray]): The same of what is classified.
        seed (int): For the order of images. Defaults to 0.

    Returns:
        float: In [0, 1].
    """
    backbone = copy.deepcopy(backbone)
    backbone.eval()  # The batch norms', too.
    device = next(backbone.parameters()).device
    inputs = train[0].to(device)
    labels = torch.from_numpy(train[1]).to(device)
    with preserved_random_state(), torch.enable_grad():
        seed_all(seed)
        with torch.no_grad():
            features = _pooled(backbone, inputs[:1]).shape[1]
        head = nn.Linear(features, int(labels.max()) + 1).to(device)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        parameters = [*backbone.parameters(), *head.parameters()]
        optimizer = torch.optim.SGD([
            dict(params=backbone.parameters(), lr=_BACKBONE_LR),
            dict(params=head.parameters(), lr=_HEAD_LR)
        ],
                                    momentum=0.9,
                                    weight_decay=5e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, _ITERATIONS)
        order = torch.cat([
            torch.randperm(len(labels))
            for _ in range(-(-_ITERATIONS * _BATCH_SIZE // len(labels)))
        ])
        size = min(_BATCH_SIZE, len(labels))
        for batch in order.split(size)[:_ITERATIONS]:
            optimizer.zero_grad()
            output = head(_pooled(backbone, inputs[batch]))
            F.cross_entropy(output, labels[batch]).backward()
            nn.utils.clip_grad_norm_(parameters, _MAX_NORM)
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        predicted = torch.cat([
            head(_pooled(backbone, chunk.to(device))).argmax(1).cpu()
            for chunk in test[0].split(1024)
        ])
    return float((predicted.numpy() == test[1]).mean())


def _pooled(backbone: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    return backbone(inputs)[-1].mean((2, 3))
