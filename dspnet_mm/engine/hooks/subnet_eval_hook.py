# Copyright (c) The dspnet_mm authors. All rights reserved.
import math
from typing import Dict, Optional, Sequence

from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmselfsup.registry import HOOKS

from dspnet_mm.engine.model_wrapper import algorithm_of
from dspnet_mm.errors import InputError
from dspnet_mm.evaluation import (ImageFormat, evaluation_dataset,
                                  extract_features, iterate, knn_accuracy,
                                  pick)
from dspnet_mm.randomness import preserved_random_state
from dspnet_mm.slimming import CALIBRATION_IMAGES, recalibrate, slim


@HOOKS.register_module()
class SubnetEvalHook(Hook):
    """Evaluate sub-networks by kNN on frozen features while training.

    Each is cut out as a plain network, whose batch norm is recalibrated on
    training images: nothing of the training is touched, random states
    included. The accuracies go into the log and to the visualizer's backends
    (e.g. TensorBoard) as ``knn/NAME``.

    Args:
        train_dataset (dict): Config of a labelled data set whose images
            vote. Its pipeline is replaced by whole, centred images.
        test_dataset (dict): The same of the images that are classified.
        subnets (Sequence[str], optional): Names of the DNs to evaluate.
            Defaults to None, all.
        interval (int): Evaluate after every so many epochs, and after the
            last. Defaults to 10.
        k (int): Number of neighbours. Defaults to 20.
        num_calibration (int): How many of the training images batch norm is
            recalibrated on. Defaults to 1024.
        max_train (int, optional): How many of the training images vote at
            most. Defaults to None, all.
        max_test (int, optional): How many of the test images are classified
            at most. Defaults to None, all.
        num_workers (int): How many processes load images; 0 loads them in
            the training's. Defaults to 0.
    """
    priority = 'LOW'

    def __init__(self,
                 train_dataset: dict,
                 test_dataset: dict,
                 subnets: Optional[Sequence[str]] = None,
                 interval: int = 10,
                 k: int = 20,
                 num_calibration: int = CALIBRATION_IMAGES,
                 max_train: Optional[int] = None,
                 max_test: Optional[int] = None,
                 num_workers: int = 0) -> None:
        if interval < 1:
            raise InputError(f'interval={interval} is not allowed: give a '
                             'number of epochs, at least 1')
        self.dataset_cfgs = (train_dataset, test_dataset)
        self.subnets = subnets
        self.interval = interval
        self.k = k
        self.num_calibration = num_calibration
        self.limits = (max_train, max_test)
        self.num_workers = num_workers

    def before_train(self, runner: Runner) -> None:
        """Build the data sets: what is wrong with them shows before work."""
        model = algorithm_of(runner)
        names = self.subnets or list(model.family.desired)
        self._subnets = {name: model.family[name] for name in names}
        self._format = ImageFormat.from_config(
            runner.cfg.model.get('data_preprocessor'), model.family.input_size)
        with preserved_random_state():
            self._datasets = [
                evaluation_dataset(cfg, model.family.input_size)
                for cfg in self.dataset_cfgs
            ]

        for dataset in self._datasets:
            if 'gt_label' not in dataset.get_data_info(0):
                raise InputError(f'{type(dataset).__name__} has no labels, '
                                 'which kNN needs: give SubnetEvalHook '
                                 'labelled data sets, or leave it out')
        voting = min(len(self._datasets[0]), self.limits[0] or math.inf)
        if not 1 <= self.k <= voting:
            raise InputError(f'k={self.k} neighbours are not allowed: give 1 '
                             f'to {voting}, the number of images that vote')

    def after_train_epoch(self, runner: Runner) -> None:
        """Evaluate, where it is time."""
        if self.every_n_epochs(runner, self.interval) or \
                self.is_last_train_epoch(runner):
            if is_main_process():
                with preserved_random_state():
                    self._report(runner, self.evaluate(runner))
            barrier()

    def evaluate(self, runner: Runner) -> Dict[str, float]:
        """The accuracy of each sub-network, by name."""
        model = algorithm_of(runner)
        device = next(model.parameters()).device
        indices = [
            None if limit is None else pick(dataset, limit, seed=0)
            for dataset, limit in zip([*self._datasets, self._datasets[0]],
                                      [*self.limits, self.num_calibration])
        ]
        calibration = [
            inputs.to(device)
            for inputs, _ in self._iterate(self._datasets[0], indices[2])
        ]
        accuracies = {}
        for name, subnet in self._subnets.items():
            plain = slim(
                model.exported_backbone(name),
                model.as_trained(subnet)).to(device)
            recalibrate(plain, calibration)
            train, test = (extract_features(plain,
                                            self._iterate(dataset, chosen))
                           for dataset, chosen in zip(self._datasets, indices))
            accuracies[name] = knn_accuracy(train, test, self.k)
        return accuracies

    def _iterate(self, dataset, indices):
        # An image that training survives must not end it here.
        return iterate(
            dataset,
            self._format,
            indices,
            self.num_workers,
            skip_unreadable=True)

    def _report(self, runner: Runner, accuracies: Dict[str, float]) -> None:
        scalars = {f'knn/{name}': acc for name, acc in accuracies.items()}
        runner.logger.info(
            'kNN accuracy after epoch %d: %s', runner.epoch + 1,
            '  '.join(f'{name}: {acc:.4f}'
                      for name, acc in accuracies.items()))
        for name, value in scalars.items():
            runner.message_hub.update_scalar(name, value)
        runner.visualizer.add_scalars(scalars, step=runner.epoch + 1)
