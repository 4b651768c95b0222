# Copyright (c) The dspnet_mm authors. All rights reserved.
from .export import export_subnets
from .plain_file import PlainNetwork, find_plain_files, load_plain
from .recalibrate import CALIBRATION_IMAGES, recalibrate
from .slim import build_plain_backbone, plain_backbone_cfg, slim
from .supernet import (build_family_of, build_supernet, load_config,
                       load_supernet, read_config)

__all__ = [
    'CALIBRATION_IMAGES', 'PlainNetwork', 'build_family_of',
    'build_plain_backbone', 'build_supernet', 'export_subnets',
    'find_plain_files', 'load_config', 'load_plain', 'load_supernet',
    'plain_backbone_cfg', 'read_config', 'recalibrate', 'slim'
]
