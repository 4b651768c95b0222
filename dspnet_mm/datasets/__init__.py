# Copyright (c) The dspnet_mm authors. All rights reserved.
from .digits import EmbeddedDigits
from .image_folder import ImageFolder

__all__ = ['EmbeddedDigits', 'ImageFolder']
