# Copyright (c) The dspnet_mm authors. All rights reserved.
from .seed_head import SEEDHead

__all__ = ['SEEDHead']
