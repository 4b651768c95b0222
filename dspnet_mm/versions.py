# Copyright (c) The dspnet_mm authors. All rights reserved.
import platform
from importlib import metadata
from typing import Dict

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
