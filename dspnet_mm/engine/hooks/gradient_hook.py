# Copyright (c) The dspnet_mm authors. All rights reserved.
from typing import List, Optional

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmselfsup.registry import HOOKS

from dspnet_mm.engine.model_wrapper import algorithm_of
from dspnet_mm.errors import InputError
from dspnet_mm.models.gradient_probe import GradientProbe


@HOOKS.register_module()
class GradientHook(Hook):
    """Records how the gradients of sub-networks go together.

    SlimCLR (arXiv 2209.15525) finds two ways in which networks that share
    weights interfere. How each is measured is our choice:

    - imbalance, that the parameters that many share get larger gradients
      than others: ``imbalance_NAME`` is how many times larger the summed
      gradient is on a sub-network's parameters than on the others, over the
      same of the supernet's own gradient, so that 1 is what a network would
      have alone. Sizes are root mean squares, and the mean is over the
      convolutions that the sub-network has a part of. ``norm_NAME`` is the
      l2 norm of the summed gradient on the sub-network's parameters.
    - divergence, that gradients point elsewhere: ``cosine_NAME_NAME`` is the
      cosine, in [-1, 1], between two sub-networks' gradients on the
      parameters that both have.

    Gradients are those of the losses, before ``average_gradients`` divides
    them. Where each sub-network has a step of its own, ``step_each_subnet``,
    what is summed is not what any step takes.

    They go to the visualizer's backends, as ``gradients/...``. With several
    processes, the gradients are the first one's.

    Args:
        interval (int): Every how many iterations, at least 1. Defaults to 50.

    Raises:
        InputError: If the interval is less than 1.
    """

    def __init__(self, interval: int = 50) -> None:
        if interval < 1:
            raise InputError(f'interval={interval} is not allowed: give 1 or '
                             'more')
        self.interval = interval

    def before_train_iter(self,
                          runner: Runner,
                          batch_idx: int,
                          data_batch: Optional[dict] = None) -> None:
        """Begin to look, in some iterations."""
        if self.every_n_train_iters(runner, self.interval):
            model = algorithm_of(runner)
            parameters: List[torch.Tensor] = [
                parameter for parameter in model.backbone.parameters()
                if parameter.requires_grad
            ]
            model.gradient_probe = GradientProbe(
                parameters, model.family.label_of(model.family.full))

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch: Optional[dict] = None,
                         outputs: Optional[dict] = None) -> None:
        """Record what was seen."""
        model = algorithm_of(runner)
        if model.gradient_probe is not None:
            figures = model.gradient_probe.summary()
            model.gradient_probe = None
            runner.visualizer.add_scalars(
                {
                    f'gradients/{name}': value
                    for name, value in figures.items()
                },
                step=runner.iter + 1)
