# Copyright (c) The dspnet_mm authors. All rights reserved.
import os
from typing import List

from mmselfsup.registry import DATASETS

from dspnet_mm.errors import InputError
from .pretrain_dataset import PretrainDataset

EXTENSIONS = ('.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff',
              '.webp')


@DATASETS.register_module()
class ImageFolder(PretrainDataset):
    """All images below a folder, without labels.

    How they are distributed over sub-folders does not matter; hidden ones are
    passed over. Links to folders are followed, except for those back to a
    folder on the way to them. (For labels, MMClassification's CustomDataset
    reads a folder per class.)

    Args:
        data_root (str): The folder.
        **kwargs: Further arguments of :class:`PretrainDataset`, e.g.
            ``pipeline`` and ``on_error``.

    Raises:
        InputError: If the folder does not exist or holds no image, or one of
            its sub-folders is empty.
    """

    def __init__(self, data_root: str, **kwargs) -> None:
        if not os.path.isdir(data_root):
            raise InputError(f'data_root={data_root!r} is not a folder: give '
                             'the folder that holds the images, e.g. by '
                             '--cfg-options train_dataloader.dataset.'
                             'data_root=FOLDER')
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> List[dict]:
        """See MMEngine's BaseDataset."""
        paths, empty = [], []
        # By folder to enter, where it and those on the way to it really are.
        root = os.fspath(self.data_root)
        ways = {root: (os.path.realpath(root), )}
        for folder, folders, names in os.walk(root, followlinks=True):
            way = ways.pop(folder)
            # Hidden ones are not the user's, e.g. macOS's and Jupyter's.
            real = {
                name: os.path.realpath(os.path.join(folder, name))
                for name in folders if name[0] != '.'
            }
            # Else a link back would be followed without end.
            folders[:] = [name for name in real if real[name] not in way]
            for name in folders:
                ways[os.path.join(folder, name)] = (*way, real[name])
            images = [
                os.path.join(folder, name) for name in names
                if name.lower().endswith(EXTENSIONS) and name[0] != '.'
            ]
            paths += images
            if not images and not folders:
                empty.append(folder)
        looked_for = f'looked for {", ".join(EXTENSIONS)}'
        if not paths:
            raise InputError(f'{self.data_root} holds no image: {looked_for} '
                             'in it and below')
        if empty:
            raise InputError(f'{min(empty)} holds no image: {looked_for}; '
                             f'fill or remove it ({len(empty)} such '
                             'folder(s))')
        return [dict(img_path=path) for path in sorted(paths)]
