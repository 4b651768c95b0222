# Copyright (c) The dspnet_mm authors. All rights reserved.
import os
from typing import Dict, Optional

import numpy as np
from mmengine.dist import all_gather_object, get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmselfsup.registry import HOOKS

from dspnet_mm.datasets import PretrainDataset, UnreadableImage
from dspnet_mm.errors import InputError
from dspnet_mm.files import whole_file
from dspnet_mm.randomness import preserved_random_state

_MAX_PROBED = 256
_MAX_NAMED = 5


@HOOKS.register_module()
class ImageReportHook(Hook):
    """Say which images of a :class:`PretrainDataset` are not as they should.

    The first of those that were skipped or converted are named at once,
    their numbers at the end of an epoch. Some images are tried before the
    first step, so that a folder of something else does not cost a night.

    Args:
        max_unreadable (float): Which part of the images may be unreadable,
            in [0, 1]. With more, the run stops, and their list is in
            ``unreadable_images.txt`` in the work directory. Defaults to 0.01.

    Raises:
        InputError: If more images are unreadable.
    """

    def __init__(self, max_unreadable: float = 0.01) -> None:
        if not 0 <= max_unreadable <= 1:
            raise InputError(f'max_unreadable={max_unreadable} is not allowed:'
                             ' give a part of the images, in [0, 1]')
        self.max_unreadable = max_unreadable
        self._unreadable: Dict[str, str] = {}
        self._converted: Dict[str, str] = {}

    def before_train(self, runner: Runner) -> None:
        """Try some images."""
        dataset = runner.train_dataloader.dataset
        self._dataset = dataset if isinstance(dataset,
                                              PretrainDataset) else None
        if self._dataset is None:
            return
        count = min(len(dataset), _MAX_PROBED)
        with preserved_random_state():
            for index in np.linspace(0, len(dataset) - 1, count).astype(int):
                try:
                    # A plain index: no other image takes the place of this.
                    dataset[int(index)]
                except UnreadableImage as error:
                    if dataset.on_error == 'raise':
                        raise
                    self._note(runner, self._unreadable, error.path,
                               error.reason)
        # If a hundredth of all were unreadable, a tenth of those that were
        # tried would not be.
        self._check(runner, len(dataset), self.max_unreadable)
        self._check(runner, count, max(10 * self.max_unreadable, 0.1))

    def before_train_iter(self,
                          runner: Runner,
                          batch_idx: int,
                          data_batch: Optional[dict] = None) -> None:
        """Take note of what the batch says."""
        if self._dataset is None:
            return
        for sample in data_batch['data_samples']:
            for path, reason in sample.get('unreadable', ()):
                self._note(runner, self._unreadable, path, reason)
            if sample.get('converted'):
                self._note(runner, self._converted, sample.img_path,
                           f'converted from {sample.converted}')
        self._check(runner, len(self._dataset), self.max_unreadable)

    def after_train_epoch(self, runner: Runner) -> None:
        """Report the numbers, over all processes."""
        for found, what in ((self._unreadable, 'could not be read, others '
                             'took their place'), (self._converted,
                                                   'were converted')):
            for other in all_gather_object(found):
                found.update(other)
            if found:
                names = ', '.join(sorted(found)[:_MAX_NAMED])
                runner.logger.info('So far %d image(s) %s: %s%s', len(found),
                                   what, names,
                                   ', ...' if len(found) > _MAX_NAMED else '')
        if self._dataset is not None:
            self._check(runner, len(self._dataset), self.max_unreadable)

    @staticmethod
    def _note(runner: Runner, found: Dict[str, str], path: str,
              what: str) -> None:
        if path not in found and len(found) < _MAX_NAMED:
            # Formatted here: MMEngine logs a warning of the same format once.
            runner.logger.warning(f'{path}: {what}')
        found[path] = what

    def _check(self, runner: Runner, number: int, allowed: float) -> None:
        """Stop if more than the allowed part of so many are unreadable."""
        if len(self._unreadable) <= allowed * number:
            return
        rank = f'_rank{get_rank()}' if get_rank() else ''
        path = os.path.join(runner.work_dir, f'unreadable_images{rank}.txt')
        # Names of files need not be UTF-8.
        with whole_file(path) as temporary, open(
                temporary, 'w', errors='surrogateescape') as file:
            file.writelines(
                f'{name}\t{reason}\n'
                for name, reason in sorted(self._unreadable.items()))
        raise InputError(
            f'at least {len(self._unreadable)} of {number} images cannot be '
            f'read, and {self.max_unreadable:.1%} of all may be: mend or '
            f'remove those listed in {path}, or raise '
            'default_hooks.images.max_unreadable')
