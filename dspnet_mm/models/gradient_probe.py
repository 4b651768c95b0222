# Copyright (c) The dspnet_mm authors. All rights reserved.
from contextlib import contextmanager
from itertools import combinations
from typing import Dict, Iterable, Iterator, List, Optional, Sequence

import torch
from torch.nn import functional as F


class GradientProbe:
    """Looks at the gradient of each sub-network of an iteration.

    Args:
        parameters (Sequence[Tensor]): Those whose gradients are looked at.
        supernet (str): What the supernet is called.
    """

    def __init__(self, parameters: Sequence[torch.Tensor],
                 supernet: str) -> None:
        self._parameters = parameters
        self._supernet = supernet
        self._gradients: Dict[str, torch.Tensor] = {}
        self._left_out: Dict[torch.Tensor, torch.Tensor] = {}

    def leave_out(self,
                  parameters: Iterable[torch.Tensor]) -> List[torch.Tensor]:
        """Do not look at a term's gradient in the next backward pass.

        For weight decay in the loss: all parameters have it, whichever
        sub-network is active. Were it given a backward pass of its own, the
        sum of the gradients would be rounded otherwise.

        Args:
            parameters (Iterable[Tensor]): The term's.

        Returns:
            list[Tensor]: Views of them, to compute the term from.
        """
        for parameter in parameters:
            view = self._left_out[parameter] = parameter.view_as(parameter)
            if view.requires_grad:
                view.retain_grad()
        return list(self._left_out.values())

    def _flat(self,
              gradients: Iterable[Optional[torch.Tensor]]) -> torch.Tensor:
        return torch.cat([
            (torch.zeros_like(parameter)
             if gradient is None else gradient).flatten()
            for parameter, gradient in zip(self._parameters, gradients)
        ])

    @contextmanager
    def watch(self, label: str, scale: float = 1.) -> Iterator[None]:
        """Take what a backward pass adds for a sub-network's gradient.

        Args:
            label (str): What it is called; those of one name are added.
            scale (float): How many times too large the pass leaves gradients,
                e.g. by mixed precision's scale. Defaults to 1.
        """
        before = self._flat(parameter.grad for parameter in self._parameters)
        yield
        if self._left_out:
            # As the backward pass adds it up, so that exactly nothing is left
            # where the sub-network has no part.
            before = before + self._flat(self._left_out[parameter].grad
                                         for parameter in self._parameters)
            self._left_out.clear()
        present = self._flat(parameter.grad for parameter in self._parameters)
        added = (present - before) / scale
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
        figures = {}
        supernets = gradients.get(self._supernet)
        if supernets is not None:
            total = sum(gradients.values())
            for label, gradient in gradients.items():
                figures[f'norm_{label}'] = total[gradient != 0].norm().item()
                excess = self._excess(total, supernets, gradient != 0)
                if label != self._supernet and excess:
                    figures[f'imbalance_{label}'] = excess
        for (one, first), (other,
                           second) in combinations(gradients.items(), 2):
            shared = (first != 0) & (second != 0)
            figures[f'cosine_{one}_{other}'] = F.cosine_similarity(
                first[shared], second[shared], dim=0).item()
        return figures

    def _excess(self, total: torch.Tensor, supernets: torch.Tensor,
                own: torch.Tensor) -> float:
        """How much larger gradients are on a sub-network's parameters.

        In the convolutions that the sub-network has a part of; 0 where there
        are none.

        Args:
            total (Tensor): The gradient, shape (N, ).
            supernets (Tensor): The supernet's, which it is compared with.
            own (Tensor): Which parameters the sub-network has.
        """
        sizes = [parameter.numel() for parameter in self._parameters]
        ratios = []
        for parameter, *layer in zip(
                self._parameters,
                *(values.split(sizes) for values in (total, supernets, own))):
            *gradients, inside = layer
            sides = [
                values[side].square().mean().sqrt() for values in gradients
                for side in (inside, ~inside)
            ]
            # Where a part has no parameters, the mean is not a number.
            if parameter.dim() == 4 and all(side > 0 for side in sides):
                ratios.append([sides[0] / sides[1], sides[2] / sides[3]])
        if not ratios:
            return 0.
        summed, alone = torch.tensor(ratios).mean(0)
        return (summed / alone).item()
