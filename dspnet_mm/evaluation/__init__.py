# Copyright (c) The dspnet_mm authors. All rights reserved.
from .finetune import finetuned_accuracy
from .images import (ImageFormat, evaluation_dataset, iterate, pick,
                     pick_balanced)
from .probes import extract_features, knn_accuracy, linear_accuracy

__all__ = [
    'ImageFormat', 'evaluation_dataset', 'extract_features',
    'finetuned_accuracy', 'iterate', 'knn_accuracy', 'linear_accuracy', 'pick',
    'pick_balanced'
]
