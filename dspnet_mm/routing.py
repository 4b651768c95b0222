# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Which of many sub-networks suits a labelled task, without fine-tuning."""
from functools import partial
from typing import Callable, Dict, Iterator, List, Sequence, Tuple

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold

from dspnet_mm.errors import InputError
from dspnet_mm.evaluation import linear_accuracy
from dspnet_mm.evaluation.probes import leave_one_out_knn_accuracy
from dspnet_mm.models import SlimmableResNet, activate
from dspnet_mm.slimming import recalibrate
from dspnet_mm.subnet import Subnet

_LINEAR_FOLDS = 3
_K = 20
_LOGME_ITERATIONS = 100
_LOGME_TOLERANCE = 1e-5


def logme(features: np.ndarray, labels: np.ndarray) -> float:
    """How likely labels are under a linear model of the features.

    The logarithm of the evidence of Bayesian linear regression onto each
    class's 0 and 1, for each image and averaged over the classes, with the
    precisions of weights and noise that make it largest (LogME, arXiv
    2102.11005, equations 2 to 4 and algorithm 3).

    Args:
        features (ndarray): Shape (N, D).
        labels (ndarray): Shape (N, ).

    Returns:
        float: Higher is better; it has no bounds.
    """
    features = features.astype(np.float64)
    number, channels = features.shape
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    squares = singular**2
    evidences = []
    for label in np.unique(labels):
        wanted = (labels == label).astype(np.float64)
        explained = (left.T @ wanted)**2
        if not (squares * explained).any():
            # They say nothing: the precision of the weights has no maximum,
            # and in the limit all is noise.
            noise = number / (wanted @ wanted)
            evidences.append((np.log(noise / (2 * np.pi)) - 1) / 2)
            continue
        rest = max(wanted @ wanted - explained.sum(), 0.)
        alpha = beta = 1.
        for _ in range(_LOGME_ITERATIONS):
            ratio = alpha / beta
            weights = (squares * explained / (ratio + squares)**2).sum()
            error = (explained * (ratio / (ratio + squares))**2).sum() + rest
            effective = (squares / (ratio + squares)).sum()
            alpha = effective / weights
            beta = (number - effective) / max(error, 1e-12)
            if abs(alpha / beta - ratio) <= _LOGME_TOLERANCE * ratio:
                break
        determinant = np.log(alpha + beta * squares).sum() + (
            channels - len(squares)) * np.log(alpha)
        evidences.append(
            (channels * np.log(alpha) + number * np.log(beta) - determinant -
             beta * error - alpha * weights - number * np.log(2 * np.pi)) /
            (2 * number))
    return float(np.mean(evidences))


def linear_score(features: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy of linear probes on images that they did not learn from.

    Args:
        features (ndarray): Shape (N, D).
        labels (ndarray): Shape (N, ).

    Returns:
        float: In [0, 1], over three folds.
    """
    folds = StratifiedKFold(_LINEAR_FOLDS, shuffle=True, random_state=0)
    return float(
        np.mean([
            linear_accuracy((features[train], labels[train]),
                            (features[test], labels[test]))
            for train, test in folds.split(features, labels)
        ]))


# The first is the default, our choice: it fits nothing to the task, so that
# few images will do, and is the fastest. The others are the alternatives.
METRICS: Dict[str, Callable[[np.ndarray, np.ndarray], float]] = dict(
    knn=partial(leave_one_out_knn_accuracy, k=_K),
    linear=linear_score,
    logme=logme)


def check_task(labels: np.ndarray, classes_of: Sequence[str], metric: str,
               source: str) -> None:
    """Refuse a task that cannot tell networks apart.

    Args:
        labels (ndarray): Shape (N, ).
        classes_of (Sequence[str]): The name of each label.
        metric (str): A key of ``METRICS``.
        source (str): Where it comes from, for messages.

    Raises:
        InputError: If it has one class, a class has fewer images than linear
            probes have folds, or there are not more images than the
            neighbours that ``knn`` goes by.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        raise InputError(f'{source} has {len(classes)} class: a task needs at '
                         'least 2 to tell networks apart')
    if counts.min() < _LINEAR_FOLDS:
        smallest = classes_of[classes[counts.argmin()]]
        raise InputError(f'{source} has {counts.min()} image(s) of the class '
                         f'{smallest}: give at least {_LINEAR_FOLDS} of each')
    if metric == 'knn' and len(labels) <= _K:
        raise InputError(f'{source} has {len(labels)} images, not more than '
                         f'the k={_K} neighbours that vote: give more images, '
                         'or another --metric')


@torch.no_grad()
def subnets_features(backbone: SlimmableResNet, subnets: Dict[str, Subnet],
                     images: torch.Tensor, calibration: List[int],
                     batch_size: int) -> Iterator[Tuple[str, np.ndarray]]:
    """Features by many sub-networks, what they have in common computed once.

    Sub-networks that are alike up to a stage share its output: 256 of four
    stages with four groups each run 4 + 16 + 64 + 256 stages instead of
    1,024. One output of each stage is held at a time.

    Args:
        backbone (SlimmableResNet): The supernet's backbone.
        subnets (dict[str, Subnet]): The sub-networks, by name.
        images (Tensor): Inputs of shape (N, C, H, W).
        calibration (list[int]): Which images batch norm is recalibrated on.
        batch_size (int): How many images are computed at once.

    Yields:
        tuple[str, ndarray]: The name and the pooled features, float32, of
        shape (N, D), in the order of what they have in common.
    """
    stages = backbone.stages
    backbone.eval()

    # With batch norm of its own, a sub-network has no stage in common.
    private = {
        subnet: number
        for number, subnet in enumerate(subnets.values())
    } if backbone.switchable_bn else {}

    def parts(subnet: Subnet) -> List[tuple]:
        """What decides each stage, the stem's being in the first."""
        stages = len(subnet.depths)
        own = list(
            zip(subnet.widths, subnet.depths, subnet.groups or [0] * stages,
                [private.get(subnet, 0)] * stages))
        return [own[0], *own]

    ordered = sorted(subnets.items(), key=lambda item: parts(item[1]))
    known: List[tuple] = []
    outputs: List[torch.Tensor] = []
    for name, subnet in ordered:
        wanted = parts(subnet)
        common = 0
        while common < len(known) and known[common] == wanted[common]:
            common += 1
        del known[common:], outputs[common:]
        with activate(subnet, backbone):
            for stage in stages[common:]:
                inputs = outputs[-1] if outputs else images
                recalibrate(stage, [inputs[calibration]])
                outputs.append(
                    torch.cat(
                        [stage(batch) for batch in inputs.split(batch_size)]))
        known = wanted
        yield name, outputs[-1].mean((2, 3)).cpu().numpy()
