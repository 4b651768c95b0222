# Copyright (c) The dspnet_mm authors. All rights reserved.
from mmengine.runner import EpochBasedTrainLoop
from mmselfsup.registry import LOOPS
from torch import nn

from dspnet_mm.datasets import (ClusterBatchSampler, PretrainDataset,
                                ResumableSampler)
from dspnet_mm.errors import InputError
from dspnet_mm.models.layers import SlimmableBatchNorm
from .hooks import ClusterHook


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
        InputError: If the data set or its sampler cannot begin within an
            epoch, an epoch has not enough images for a step, a run is resumed
            with epochs of another length, or the optimizer is to spare batch
            norms of weight decay in a way that slimmable ones do not know.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        # Both PyTorch's and ours hold the sampler and the batch size.
        batch_sampler = self.dataloader.batch_sampler
        sampler = batch_sampler.sampler
        if not isinstance(sampler, ResumableSampler):
            raise InputError(
                f'{type(sampler).__name__} cannot begin within an epoch, as '
                'ResumableTrainLoop asks: set train_dataloader.sampler.type='
                'ResumableSampler, or train_cfg.type=EpochBasedTrainLoop and '
                'do without exact resuming')
        dataset = self.dataloader.dataset
        # That of num_batch_per_epoch passes on what is drawn.
        if not isinstance(
                getattr(dataset, '_dataset', dataset), PretrainDataset):
            raise InputError(
                f'{type(dataset).__name__} does not draw the same views '
                'again, nor pass over images that cannot be read, as '
                'ResumableTrainLoop asks: set train_dataloader.dataset.type='
                'ImageFolder, with all images below one folder, or '
                'train_cfg.type=EpochBasedTrainLoop and do without')
        self._check_decay()
        batches = self._accumulated_batches()
        if isinstance(batch_sampler, ClusterBatchSampler):
            batch_sampler.max_epochs = self._max_epochs
            if batches > 1:
                raise InputError(
                    'each batch of ClusterBatchSampler trains another '
                    'sub-network, and gradients of several are not '
                    'accumulated: set optim_wrapper.accumulative_counts=1')
        steps = len(self.dataloader) // batches
        if not steps:
            needed = batch_sampler.batch_size * sampler.world_size * batches
            raise InputError(
                f'{len(dataset)} images are fewer than a step of the '
                f'optimizer takes, {needed}: give more images, or a smaller '
                'train_dataloader.batch_size')
        if batches > 1:
            sampler.num_samples = min(
                sampler.num_samples,
                steps * batches * batch_sampler.batch_size)
            self._max_iters = self._max_epochs * len(self.dataloader)

    def _check_decay(self) -> None:
        wrapper = self.runner.optim_wrapper
        # MMEngine knows batch norms by their class, which is another here.
        multipliers = isinstance(wrapper,
                                 dict) and wrapper.get('paramwise_cfg') or {}
        if multipliers.get('norm_decay_mult') not in (None, 1) and any(
                isinstance(module, SlimmableBatchNorm)
                for module in self.runner.model.modules()):
            raise InputError(
                'optim_wrapper.paramwise_cfg.norm_decay_mult does not reach '
                'slimmable batch norms: give custom_keys instead, as '
                'configs/_base_/schedules/lars_paramwise.py does')

    def _accumulated_batches(self) -> int:
        wrapper = self.runner.optim_wrapper
        if isinstance(wrapper, dict):
            # Built after the loop, because schedules ask for its length.
            return wrapper.get('accumulative_counts', 1)
        return wrapper._accumulative_counts

    def run(self) -> nn.Module:
        """Train, after a look at what a resumed run was trained on."""
        batch_sampler = self.dataloader.batch_sampler
        if isinstance(batch_sampler, ClusterBatchSampler) and \
                batch_sampler.levels and not any(
                    isinstance(hook, ClusterHook)
                    for hook in self.runner.hooks):
            raise InputError(
                'ClusterHook, which makes the clusters or looks whether those '
                'that batch_sampler.clusters names fit the model, is missing: '
                "add dict(type='ClusterHook') to custom_hooks")
        sampler = batch_sampler.sampler
        hub = self.runner.message_hub
        number = (len(self.dataloader.dataset), len(self.dataloader))
        before = hub.get_info('images_and_iterations', number)
        if self._iter and tuple(before) != number:
            raise InputError(
                'the checkpoint is of a run with {} images in {} iterations '
                'an epoch, and now there are {} in {}: resume with the same '
                'images, batch size and number of processes, or begin a new '
                'run with its weights (load_from without resume)'.format(
                    *before, *number))
        hub.update_info('images_and_iterations', number)
        # Where the config gives no seed, each start draws another one.
        sampler.seed = hub.get_info('sampler_seed', sampler.seed)
        hub.update_info('sampler_seed', sampler.seed)
        return super().run()

    def run_epoch(self) -> None:
        """Run an epoch, or what is left of it after resuming."""
        done = self._iter - self._epoch * len(self.dataloader)
        batch_sampler = self.dataloader.batch_sampler
        batch_sampler.sampler.start = done * batch_sampler.batch_size
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        for index, data_batch in enumerate(self.dataloader, start=done):
            self.run_iter(index, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1
