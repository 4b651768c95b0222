# Copyright (c) The dspnet_mm authors. All rights reserved.
"""How good are frozen features? kNN and linear probe."""
import warnings
from typing import Iterable, Tuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from dspnet_mm.errors import InputError

# Temperature of a neighbour's vote (InstDisc, arXiv 1805.01978, section 3.4).
_KNN_TEMPERATURE = 0.07
_LINEAR_MAX_ITERATIONS = 1000


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
