# Copyright (c) The dspnet_mm authors. All rights reserved.
from contextlib import contextmanager
from itertools import combinations
from typing import Dict, Iterator, Sequence

import torch
from torch.nn import functional as F


class GradientProbe:
    """Looks at the gradient of each sub-network of an iteration.

    Args:
        parameters (Sequence[Tensor]): Those whose gradients are looked at.
    """

    def __init__(self, parameters: Sequence[torch.Tensor]) -> None:
        self._parameters = parameters
        self._gradients: Dict[str, torch.Tensor] = {}

    def _present(self) -> torch.Tensor:
        return torch.cat([(torch.zeros_like(parameter) if parameter.grad
                           is None else parameter.grad).flatten()
                          for parameter in self._parameters])

    @contextmanager
    def watch(self, label: str) -> Iterator[None]:
        """Take what a backward pass adds for a sub-network's gradient.

        Args:
            label (str): What it is called; those of one name are added.
        """
        before = self._present()
        yield
        added = self._present() - before
        if label in self._gradients:
            added = added + self._gradients[label]
        self._gradients[label] = added

    def summary(self) -> Dict[str, float]:
        """What :class:`GradientHook` records.

        Returns:
            dict[str, float]: Of the sub-networks that have a gradient; none
            has one while a predictor learns alone.
        """
        gradients = {
            label: gradient
            for label, gradient in self._gradients.items() if gradient.any()
        }
        total = sum(gradients.values())
        figures = {}
        for label, gradient in gradients.items():
            own = gradient != 0
            share = own.float().mean()
            energy = total[own].square().sum() / total.square().sum()
            figures[f'concentration_{label}'] = (energy / share).item()
        for (one, first), (other,
                           second) in combinations(gradients.items(), 2):
            shared = (first != 0) & (second != 0)
            figures[f'cosine_{one}_{other}'] = F.cosine_similarity(
                first[shared], second[shared], dim=0).item()
        return figures
