# Copyright (c) The dspnet_mm authors. All rights reserved.
from contextlib import ExitStack, contextmanager
from typing import Iterable, Iterator, List, Union

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dspnet_mm.models.layers import SlimmableBatchNorm

# On how many training images batch norm is recalibrated, unless more or fewer
# are asked for: our choice.
CALIBRATION_IMAGES = 1024

Norm = Union[SlimmableBatchNorm, _BatchNorm]


class _Statistics:
    """Mean and variance of all the values that were added."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Union[float, torch.Tensor] = 0.
        self.squares: Union[float, torch.Tensor] = 0.

    def add(self, inputs: torch.Tensor) -> None:
        """Add a batch of shape (N, C, ...), by Chan's parallel formula."""
        dims = [0] + list(range(2, inputs.dim()))
        var, mean = torch.var_mean(inputs.double(), dims, unbiased=False)
        count = inputs.numel() // inputs.shape[1]
        total = self.count + count
        delta = mean - self.mean
        self.mean = self.mean + delta * (count / total)
        self.squares = self.squares + var * count + delta.square() * (
            self.count * count / total)
        self.count = total

    def write(self, norm: Norm) -> None:
        """Let a batch norm use them in evaluation."""
        var = self.squares / self.count
        if isinstance(norm, SlimmableBatchNorm):
            norm.set_statistics(self.mean, var)
        else:
            norm.running_mean.copy_(self.mean)
            norm.running_var.copy_(var)


class _Reached(Exception):
    """Ends a forward pass: what follows is not needed."""


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside of a block, each module's own mode after it."""
    before = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


@torch.no_grad()
def recalibrate(network: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Set batch norm statistics to those of a whole set of images, exactly.

    Weights that are shared by many sub-networks cannot share the running
    mean and variance: each sub-network sees other activations. So they are
    measured for each one after training. Afterwards, in evaluation mode,
    every batch norm's input over the given images has the mean and the
    (biased) variance that the batch norm uses, no matter how the images were
    cut into batches. That is what training mode computes with all images in
    one batch; an average over batches would not be (our choice).

    With several batches this takes one pass, up to the layer in question,
    for each batch norm, in the memory of a batch; with one batch, one pass.

    Args:
        network (nn.Module): A plain network, or a slimmable one, of which
            the active sub-network is recalibrated.
        batches (Iterable[Tensor]): Inputs of the network, all of which are
            held in memory.

    Raises:
        ValueError: If there are no batches.
    """
    batches = list(batches)
    if not batches:
        raise ValueError('there are no images to recalibrate batch norm with')
    order: List[Norm] = []

    def settle(norm: Norm, inputs: tuple) -> None:
        statistics = _Statistics()
        statistics.add(inputs[0])
        statistics.write(norm)
        order.append(norm)

    with evaluating(network):
        # Also finds which batch norms run, and in which order.
        with _hooks(network, settle):
            network(batches[0])
        if len(batches) == 1:
            return
        for norm in order:
            statistics = _Statistics()

            def collect(module: Norm, inputs: tuple) -> None:
                statistics.add(inputs[0])
                raise _Reached

            with _hooks(norm, collect):
                for batch in batches:
                    try:
                        network(batch)
                    except _Reached:
                        pass
            statistics.write(norm)


@contextmanager
def _hooks(root: nn.Module, hook) -> Iterator[None]:
    with ExitStack() as stack:
        for module in root.modules():
            if isinstance(module, (SlimmableBatchNorm, _BatchNorm)):
                handle = module.register_forward_pre_hook(hook)
                stack.callback(handle.remove)
        yield
