# Copyright (c) The dspnet_mm authors. All rights reserved.
"""How good are frozen features? kNN and linear probes."""
import math
import warnings
from typing import Iterable, List, Sequence, Tuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F

from dspnet_mm.errors import InputError
from dspnet_mm.models.heads import JointLinearHead

# Temperature of a neighbour's vote (InstDisc, arXiv 1805.01978, section 3.4).
_KNN_TEMPERATURE = 0.07
_LINEAR_MAX_ITERATIONS = 1000
# How many images are compared with all others at once.
_LEAVE_ONE_OUT_ROWS = 1024
# Of the joint probes: steps with all images, and the first one's size.
_JOINT_STEPS = 1000
_JOINT_RATE = 0.03


@torch.no_grad()
def extract_features(
    backbone: nn.Module, batches: Iterable[Tuple[torch.Tensor, np.ndarray]]
) -> Tuple[np.ndarray, np.ndarray]:
    """Pool a backbone's last output over the image.

    Args:
        backbone (nn.Module): A plain backbone in evaluation mode.
        batches (Iterable[tuple[Tensor, ndarray]]): Inputs of shape
            (N, C, H, W) and labels of shape (N, ).

    Returns:
        tuple[ndarray, ndarray]: Features, float32, shape (M, D), and labels,
        shape (M, ).
    """
    device = next(backbone.parameters()).device
    features, labels = [], []
    for inputs, batch_labels in batches:
        output = backbone(inputs.to(device))[-1]
        features.append(output.mean((2, 3)).cpu().numpy())
        labels.append(batch_labels)
    return np.concatenate(features), np.concatenate(labels)


def knn_accuracy(train: Tuple[np.ndarray, np.ndarray],
                 test: Tuple[np.ndarray, np.ndarray],
                 k: int = 20) -> float:
    """Accuracy of a k-nearest-neighbour classifier.

    A neighbour of cosine similarity s votes with weight exp(s / 0.07)
    (InstDisc, arXiv 1805.01978, section 3.4).

    Args:
        train (tuple[ndarray, ndarray]): Features of shape (N, D) and labels
            of shape (N, ) that vote.
        test (tuple[ndarray, ndarray]): The same of what is classified.
        k (int): How many neighbours, from 1 to N. Defaults to 20.

    Returns:
        float: In [0, 1].

    Raises:
        InputError: If k is not allowed.
    """
    check_neighbours(k, len(train[1]))
    classifier = KNeighborsClassifier(
        n_neighbors=k,
        metric='cosine',
        algorithm='brute',
        # Distances are 1 - s; exp(1 / 0.07) is a factor of all votes.
        weights=lambda distances: np.exp(-distances / _KNN_TEMPERATURE))
    return float(classifier.fit(*train).score(*test))


def leave_one_out_knn_accuracy(features: np.ndarray,
                               labels: np.ndarray,
                               k: int = 20) -> float:
    """Accuracy of :func:`knn_accuracy`'s votes by all images but the one.

    Args:
        features (ndarray): Shape (N, D).
        labels (ndarray): Shape (N, ).
        k (int): How many neighbours, from 1 to N - 1. Defaults to 20.

    Returns:
        float: In [0, 1].

    Raises:
        InputError: If k is not allowed.
    """
    check_neighbours(k, len(labels) - 1)
    classes, own = np.unique(labels, return_inverse=True)
    classes_of = torch.from_numpy(own)
    directions = F.normalize(torch.from_numpy(features), dim=1)
    right = 0
    for rows in torch.arange(len(labels)).split(_LEAVE_ONE_OUT_ROWS):
        similarities = directions[rows] @ directions.t()
        similarities[torch.arange(len(rows)), rows] = -math.inf
        near, neighbours = similarities.topk(k, dim=1)
        votes = torch.zeros(len(rows), len(classes)).scatter_add_(
            1, classes_of[neighbours], ((near - 1) / _KNN_TEMPERATURE).exp())
        right += int((votes.argmax(1) == classes_of[rows]).sum())
    return right / len(labels)


def check_neighbours(k: int, number: int) -> None:
    """Refuse a number of neighbours that cannot be.

    Args:
        k (int): How many neighbours.
        number (int): How many training images there are.

    Raises:
        InputError: If k is not in [1, number].
    """
    if not 1 <= k <= number:
        raise InputError(f'k={k} neighbours are not allowed: give 1 to '
                         f'{number}, the number of training images')


def linear_accuracy(train: Tuple[np.ndarray, np.ndarray],
                    test: Tuple[np.ndarray, np.ndarray]) -> float:
    """Accuracy of a linear classifier: the linear probe.

    Logistic regression (scikit-learn's L-BFGS) on standardised features, with
    its default l2 penalty (our choice; deterministic).

    Args:
        train (tuple[ndarray, ndarray]): Features of shape (N, D) and labels
            of shape (N, ) to learn from.
        test (tuple[ndarray, ndarray]): The same of what is classified.

    Returns:
        float: In [0, 1].
    """
    probe = make_pipeline(StandardScaler(),
                          LogisticRegression(max_iter=_LINEAR_MAX_ITERATIONS))
    with warnings.catch_warnings():
        # Random and collapsed features may not converge; the limit is part
        # of the protocol.
        warnings.simplefilter('ignore', ConvergenceWarning)
        probe.fit(*train)
    return float(probe.score(*test))


def joint_linear_accuracies(train: Sequence[Tuple[np.ndarray, np.ndarray]],
                            test: Sequence[Tuple[np.ndarray, np.ndarray]],
                            switchable: bool, seed: int) -> List[float]:
    """Accuracies of linear classifiers of several networks, trained jointly.

    The losses are :class:`JointLinearHead`'s, on standardised features and
    with the l2 penalty of :func:`linear_accuracy`; 1,000 steps of Adam with
    all images, along a cosine from 0.03 (our choice).

    Args:
        train (Sequence[tuple[ndarray, ndarray]]): For each network, the
            largest first, features of shape (N, D) and labels of shape
            (N, ), the same for all, to learn from.
        test (Sequence[tuple[ndarray, ndarray]]): The same of what is
            classified.
        switchable (bool): Whether each network has a layer of its own, or
            all share the largest's.
        seed (int): For the first weights.

    Returns:
        list[float]: In [0, 1], by network.
    """
    scalers = [StandardScaler().fit(features) for features, _ in train]
    (inputs, labels), (test_inputs, test_labels) = (([
        torch.from_numpy(scaler.transform(features)).float()
        for scaler, (features, _) in zip(scalers, sets)
    ], torch.from_numpy(sets[0][1]).long()) for sets in (train, test))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = JointLinearHead([each.shape[1] for each in inputs],
                               int(labels.max()) + 1, switchable)
    optimizer = torch.optim.Adam(head.parameters(), lr=_JOINT_RATE)
    for step in range(_JOINT_STEPS):
        for group in optimizer.param_groups:
            group['lr'] = _JOINT_RATE * (
                1 + math.cos(math.pi * step / _JOINT_STEPS)) / 2
        penalty = sum(layer.weight.square().sum() for layer in head.layers)
        loss = sum(head.losses(inputs, labels)) + penalty / 2 / len(labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return [
            float((logits.argmax(1) == test_labels).float().mean())
            for logits in head(test_inputs)
        ]
