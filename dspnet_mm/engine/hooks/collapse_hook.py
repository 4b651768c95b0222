# Copyright (c) The dspnet_mm authors. All rights reserved.
import logging
from typing import Dict, Optional

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmselfsup.registry import HOOKS


@HOOKS.register_module()
class CollapseHook(Hook):
    """Warn, once, when the projections of a sub-network have collapsed.

    A collapsed network gives the same projection to every image, at the best
    possible loss: nothing but the ``spread_NAME`` that the algorithm logs
    tells it from a good one.

    Args:
        threshold (float): Warn where the spread is below, in (0, 1).
            Defaults to 0.02, our choice: a fiftieth of an even spread.
        patience (int): For so many iterations in a row in which the
            sub-network was trained. Defaults to 200.
    """
    priority = 'LOW'

    def __init__(self, threshold: float = 0.02, patience: int = 200) -> None:
        self.threshold = threshold
        self.patience = patience
        self._collapsed: Dict[str, int] = {}
        self._warned = False

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch: Optional[dict] = None,
                         outputs: Optional[dict] = None) -> None:
        """Look at the spreads of the iteration."""
        if self._warned:
            return
        for key, spread in (outputs or {}).items():
            if not key.startswith('spread_'):
                continue
            low = float(spread) < self.threshold
            self._collapsed[key] = self._collapsed.get(key, 0) + 1 if low \
                else 0
            if self._collapsed[key] == self.patience:
                self._warned = True
                runner.logger.log(
                    logging.WARNING,
                    '%s has been below %g for %d iterations: the projections '
                    'have collapsed. Try a lower learning rate, a longer '
                    'warm-up, a target momentum nearer to 1, or a larger '
                    'batch, in a new run', key, self.threshold, self.patience)
                return
