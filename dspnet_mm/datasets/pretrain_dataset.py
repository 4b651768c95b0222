# Copyright (c) The dspnet_mm authors. All rights reserved.
import os
from contextlib import nullcontext
from typing import Any, List, Tuple

import numpy as np
from mmengine.dataset import BaseDataset
from torch.utils.data import get_worker_info

from dspnet_mm.errors import InputError
from dspnet_mm.randomness import seed_all, seeded
from .sampler import Draw
from .transforms import UnreadableImage

_MAX_IN_A_ROW = 20


class PretrainDataset(BaseDataset):
    """What a data set for pre-training does besides MMEngine's BaseDataset.

    Views are reproducible: with :class:`ResumableSampler` they depend on
    nothing but the seed, the epoch and the image's place in it. And an image
    that cannot be read does not end a training of days: another one, drawn
    at random, takes its place, and ``unreadable`` of the data sample's meta
    information says so. :class:`ImageReportHook` counts them. In evaluation,
    where each image counts, it always is an error. Where batches are parts of
    the data (:class:`ClusterBatchSampler`), ``cluster`` and ``levels`` of the
    meta information say which.

    Args:
        on_error (str): What to do at an image that cannot be read: 'skip' or
            'raise'. Defaults to 'skip'.
        **kwargs: Arguments of MMEngine's BaseDataset, e.g. ``pipeline``.

    Raises:
        InputError: If ``on_error`` is neither, or there are fewer than 3
            images.
    """

    def __init__(self, on_error: str = 'skip', **kwargs) -> None:
        if on_error not in ('skip', 'raise'):
            raise InputError(f"on_error={on_error!r} is not allowed: give "
                             "'skip' or 'raise'")
        self.on_error = on_error
        super().__init__(**kwargs)

    def full_init(self) -> None:
        """See MMEngine's BaseDataset."""
        super().full_init()
        if len(self) < 3:
            raise InputError(f'{self.source} holds {len(self)} image(s): give '
                             'at least 3, and for training at least as many '
                             'as make a batch')

    @property
    def source(self) -> str:
        """Where the images come from, for messages."""
        return self.data_root or type(self).__name__

    def name_of(self, index: int) -> str:
        """What lists of images call an image.

        Args:
            index (int): Which one.

        Returns:
            str: Its path below ``data_root``, with slashes, or the index
            where it is no file.
        """
        path = self.get_data_info(index).get('img_path')
        if path is None:
            return str(index)
        return os.path.relpath(path, self.data_root).replace(os.sep, '/')

    def __getitem__(self, index: int) -> Any:
        """Load an image and make its views.

        Args:
            index (int): Which one; a :class:`Draw` in training.

        Returns:
            Any: What the pipeline makes of it.

        Raises:
            UnreadableImage: If it cannot be read, and is not to be skipped.
            InputError: If 20 images in a row cannot be read.
        """
        if not self._fully_initialized:
            self.full_init()
        randomness = nullcontext()
        if isinstance(index, Draw):
            if get_worker_info() is None:
                randomness = seeded(*index.key)
            else:
                # A worker draws for nothing else: spare it a third of its
                # time, in which the state would be kept and put back.
                seed_all(*index.key)
        with randomness:
            data = self._load(index)
        if isinstance(index, Draw) and index.part is not None:
            data['data_samples'].set_metainfo(index.part._asdict())
        return data

    def _load(self, index: int) -> Any:
        unreadable: List[Tuple[str, str]] = []
        while True:
            try:
                data = self.prepare_data(index)
                break
            except UnreadableImage as error:
                if self.on_error == 'raise' or not isinstance(index, Draw):
                    raise
                unreadable.append((error.path, error.reason))
            if len(unreadable) == _MAX_IN_A_ROW:
                names = ', '.join(path for path, _ in unreadable)
                raise InputError(f'{_MAX_IN_A_ROW} images in a row cannot be '
                                 f'read: {names}')
            index = Draw(np.random.randint(len(self)), index.key, index.part)
        if unreadable:
            data['data_samples'].set_metainfo(dict(unreadable=unreadable))
        return data
