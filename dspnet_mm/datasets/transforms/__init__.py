# Copyright (c) The dspnet_mm authors. All rights reserved.
from .load_image import LoadImage, UnreadableImage

__all__ = ['LoadImage', 'UnreadableImage']
