# Copyright (c) The dspnet_mm authors. All rights reserved.
from mmengine.runner import EpochBasedTrainLoop
from mmselfsup.registry import LOOPS

from dspnet_mm.datasets import ResumableSampler
from dspnet_mm.errors import InputError


@LOOPS.register_module()
class ResumableTrainLoop(EpochBasedTrainLoop):
    """MMEngine's loop over epochs, able to go on within an epoch.

    A run that is resumed from a checkpoint taken at any iteration sees the
    images that the uninterrupted one would have seen, in the same views.
    An epoch ends with a whole step of the optimizer: what is left over of
    gradient accumulation is left out, as ``drop_last`` leaves out what is
    left over of a batch, so that no gradients are lost between runs.

    Args:
        *args: See MMEngine's EpochBasedTrainLoop.
        **kwargs: See MMEngine's EpochBasedTrainLoop.

    Raises:
        InputError: If the data sampler cannot begin within an epoch, or an
            epoch has not enough images for a step.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        sampler = self.dataloader.sampler
        if not isinstance(sampler, ResumableSampler):
            raise InputError(
                f'{type(sampler).__name__} cannot begin within an epoch, as '
                'ResumableTrainLoop asks: set train_dataloader.sampler.type='
                'ResumableSampler, or train_cfg.type=EpochBasedTrainLoop and '
                'do without exact resuming')
        batches = self._accumulated_batches()
        steps = len(self.dataloader) // batches
        if not steps:
            dataset = self.dataloader.dataset
            needed = self.dataloader.batch_size * sampler.world_size * batches
            raise InputError(
                f'{len(dataset)} images are fewer than a step of the '
                f'optimizer takes, {needed}: give more images, or a smaller '
                'train_dataloader.batch_size')
        if batches > 1:
            sampler.num_samples = min(
                sampler.num_samples,
                steps * batches * self.dataloader.batch_size)
            self._max_iters = self._max_epochs * len(self.dataloader)

    def _accumulated_batches(self) -> int:
        wrapper = self.runner.optim_wrapper
        if isinstance(wrapper, dict):
            # Built after the loop, because schedules ask for its length.
            return wrapper.get('accumulative_counts', 1)
        return wrapper._accumulative_counts

    def run_epoch(self) -> None:
        """Run an epoch, or what is left of it after resuming."""
        done = self._iter - self._epoch * len(self.dataloader)
        # The checkpoint's, where the config names none.
        self.dataloader.sampler.seed = self.runner.seed
        self.dataloader.sampler.start = done * self.dataloader.batch_size
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        for index, data_batch in enumerate(self.dataloader, start=done):
            self.run_iter(index, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1
