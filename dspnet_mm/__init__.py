# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Pre-train once without labels, slim to many networks.

Importing the package registers its parts in MMSelfSup.
"""
from . import compat

compat.apply()

from . import datasets, engine, models  # noqa: E402
from .errors import InputError  # noqa: E402
from .grouped_family import GroupedResNetFamily  # noqa: E402
from .subnet import ResNetFamily, Subnet  # noqa: E402
from .version import __version__  # noqa: E402

__all__ = [
    'GroupedResNetFamily', 'InputError', 'ResNetFamily', 'Subnet',
    '__version__', 'compat', 'datasets', 'engine', 'models'
]
