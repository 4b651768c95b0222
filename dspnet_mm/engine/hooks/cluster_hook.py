# Copyright (c) The dspnet_mm authors. All rights reserved.
import os

import numpy as np
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmselfsup.registry import HOOKS

from dspnet_mm.checkpoint import sha256_of
from dspnet_mm.clustering import (backbone_of, cluster_tree, draw_clusters,
                                  image_features, remove_features)
from dspnet_mm.datasets import ClusterBatchSampler, write_clusters
from dspnet_mm.engine.model_wrapper import algorithm_of
from dspnet_mm.errors import InputError
from dspnet_mm.evaluation import ImageFormat, evaluation_dataset
from dspnet_mm.files import whole_file
from dspnet_mm.models import SDR
from dspnet_mm.randomness import preserved_random_state

# Under which name a checkpoint knows the list.
_DIGEST = 'clusters_sha256'


@HOOKS.register_module()
class ClusterHook(Hook):
    """Cluster the images as soon as the training tells clusters apart.

    By the features of the unified target network of :class:`SDR`, in the
    first process, before the first epoch in which
    :class:`ClusterBatchSampler` takes a level of the tree. The list is
    ``clusters.csv`` in the work directory, with a picture of some clusters,
    ``clusters.png``, unless the sampler's ``clusters`` names another one,
    which is checked before the training begins. A run that is resumed has to
    find the list that it began with.

    Args:
        balanced (bool): Make clusters of one size, see :func:`cluster_tree`.
            Defaults to True.
        num_workers (int): How many processes load images; 0 loads them in
            the training's. Defaults to 0.
    """

    def __init__(self, balanced: bool = True, num_workers: int = 0) -> None:
        self.balanced = balanced
        self.num_workers = num_workers

    def before_train(self, runner: Runner) -> None:
        """Look whether the parts fit together, before work."""
        sampler = runner.train_dataloader.batch_sampler
        model = algorithm_of(runner)
        if not isinstance(sampler, ClusterBatchSampler) or \
                not isinstance(model, SDR):
            raise InputError('ClusterHook is for SDR and batches of one '
                             'cluster: set model.type=SDR and '
                             'train_dataloader.batch_sampler.type='
                             'ClusterBatchSampler, or leave it out')
        theirs = (sampler.num_groups, sampler.levels)
        ours = (model.family.num_groups, model.family.levels)
        if theirs != ours:
            raise InputError(
                'batch_sampler has num_groups={} and {} levels in its last '
                'phase, model.family has num_groups={} and levels={}: give '
                'both the same'.format(*theirs, *ours))
        self._makes_clusters = sampler.clusters is None
        if self._makes_clusters:
            sampler.clusters = os.path.join(runner.work_dir, 'clusters.csv')
        else:
            sampler.images_clusters()
        self._compare(runner, sampler)

    def _compare(self, runner: Runner, sampler: ClusterBatchSampler) -> None:
        """Refuse other clusters than a run began with."""
        known = runner.message_hub.runtime_info.get(_DIGEST)
        if known is None and self._makes_clusters:
            return
        if not os.path.isfile(sampler.clusters):
            raise InputError(f'{sampler.clusters} is no file: to go on, the '
                             'run needs the clusters that it began with')
        digest = sha256_of(sampler.clusters)
        if known not in (None, digest):
            raise InputError(f'{sampler.clusters} is not the list that the '
                             'run began with (another SHA-256): bring it '
                             'back, or begin anew')
        runner.message_hub.update_info(_DIGEST, digest)

    def before_train_epoch(self, runner: Runner) -> None:
        """Cluster, where it is time."""
        sampler: ClusterBatchSampler = runner.train_dataloader.batch_sampler
        epoch = runner.epoch
        if not self._makes_clusters or not sampler.levels_at(epoch):
            return
        # One that is left from another run is not this one's.
        begins = runner.iter == epoch * len(sampler) and (
            not epoch or not sampler.levels_at(epoch - 1))
        if begins:
            if is_main_process():
                with preserved_random_state():
                    self._cluster(runner, sampler)
            barrier()
            # Where it refuses them, it does so in all processes.
            sampler.images_clusters()

    def _cluster(self, runner: Runner, sampler: ClusterBatchSampler) -> None:
        model: SDR = algorithm_of(runner)
        size = model.family.input_size
        dataset = evaluation_dataset(runner.cfg.train_dataloader.dataset, size)
        backbone = backbone_of(model).to(next(model.parameters()).device)
        path = os.path.join(runner.work_dir, 'features.npy')
        features = image_features(
            backbone,
            dataset,
            ImageFormat.from_config(
                runner.cfg.model.get('data_preprocessor'), size),
            path,
            num_workers=self.num_workers,
            progress=runner.logger.info)
        clusters = cluster_tree(features, sampler.num_groups, sampler.levels,
                                self.balanced, runner.seed)
        write_clusters(sampler.clusters, sampler.sampler.dataset, clusters)
        runner.message_hub.update_info(_DIGEST, sha256_of(sampler.clusters))
        remove_features(path)
        picture = os.path.join(runner.work_dir, 'clusters.png')
        with whole_file(picture) as path:
            draw_clusters(dataset, clusters, runner.seed).savefig(
                path, format='png', dpi=100)
        sizes = np.bincount(clusters)
        runner.logger.info(
            '%d clusters of %d images, the smallest of %d, the largest of %d: '
            '%s; some of them: %s', sampler.num_clusters, len(clusters),
            sizes.min(), sizes.max(), sampler.clusters, picture)
