# Copyright (c) The dspnet_mm authors. All rights reserved.
import platform
from importlib import metadata
from itertools import chain
from typing import Dict, Sequence

from .version import __version__

_PACKAGES = ('torch', 'torchvision', 'numpy', 'scikit-learn', 'mmengine',
             'mmcv', 'mmcv-lite', 'mmcls', 'mmselfsup', 'mmdet',
             'mmsegmentation')


def versions() -> Dict[str, str]:
    """The versions that a result depends on, of what is installed."""
    found = {'python': platform.python_version(), 'dspnet_mm': __version__}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def merged_versions(of_each: Sequence[Dict[str, str]]) -> Dict[str, str]:
    """The versions that several results depend on.

    Args:
        of_each (Sequence[dict]): What :func:`versions` gave for each.

    Returns:
        dict: By name; where results differ in one, all of them.
    """
    return {
        name: ', '.join(sorted({each.get(name, 'none')
                                for each in of_each}))
        for name in dict.fromkeys(chain(*of_each))
    }
