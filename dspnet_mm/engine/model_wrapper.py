# Copyright (c) The dspnet_mm authors. All rights reserved.
from typing import Dict

import torch
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import MODEL_WRAPPERS
from mmengine.runner import Runner
from torch import nn


# In the root registry, the only one where the runner looks for wrappers.
@MODEL_WRAPPERS.register_module()
class SupernetDistributed(nn.Module):
    """Lets an algorithm on a supernet run in several processes.

    The algorithm's own ``train_step`` averages the gradients, once per step.
    PyTorch's DistributedDataParallel would do so in every sub-network's
    backward pass, and wait for gradients of blocks that a sub-network does
    not have. Initial weights are sent to all processes by the runner.

    Args:
        module (SupernetAlgorithm): The algorithm.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def train_step(self, data: dict,
                   optim_wrapper: OptimWrapper) -> Dict[str, torch.Tensor]:
        """See :meth:`SupernetAlgorithm.train_step`."""
        return self.module.train_step(data, optim_wrapper)

    def forward(self, *args, **kwargs):
        """Call the algorithm."""
        return self.module(*args, **kwargs)


def algorithm_of(runner: Runner) -> nn.Module:
    """What a runner trains, without the wrapper of several processes.

    Args:
        runner (Runner): The runner.
    """
    model = runner.model
    return model.module if is_model_wrapper(model) else model
