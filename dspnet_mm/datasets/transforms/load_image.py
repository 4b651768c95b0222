# Copyright (c) The dspnet_mm authors. All rights reserved.
import errno

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmselfsup.registry import TRANSFORMS
from PIL import Image, ImageOps

from dspnet_mm.errors import InputError

_NO_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
# Modes of PIL that are 8 bit grey or RGB, with or without a palette.
_PLAIN_MODES = ('RGB', 'L', 'P', '1')


class UnreadableImage(InputError):
    """An image file that nothing can be learned from.

    Args:
        path (str): The file.
        reason (str): What is wrong with it. Defaults to '', with which the
            path is the whole message: a data loader's process hands on
            errors like that.
    """

    def __init__(self, path: str, reason: str = '') -> None:
        super().__init__(f'{path} cannot be used as an image ({reason}): mend '
                         'or remove it' if reason else path)
        self.path = path
        self.reason = reason

    def __reduce__(self):
        return type(self), (self.path, self.reason)


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Decode an image of any kind to 8 bits, BGR.

    In contrast to mmcv's LoadImageFromFile, a truncated file is an error
    rather than half an image, and what has to be converted is said. 16-bit
    and floating-point images are scaled, transparent ones are laid on black
    (our choices). 16-bit RGB is not said, as PIL decodes it to 8 bits. Images
    are turned upright as their EXIF data says.

    Required Keys:

    - img_path

    Added Keys:

    - img: uint8, shape (H, W, 3), BGR
    - img_shape
    - converted: None, or what it was converted from, e.g. 'CMYK'

    Raises:
        UnreadableImage: If the file cannot be decoded, or is smaller than 2
            pixels in height or width.
    """

    def transform(self, results: dict) -> dict:
        """Load the image that ``results`` names."""
        path = results['img_path']
        try:
            with Image.open(path) as image:
                # Before anything looks at the pixels: to do so twice would
                # decode twice.
                image.load()
                converted = None if image.mode in _PLAIN_MODES and (
                    'transparency' not in image.info) else image.mode
                array = _to_rgb(image)
        except FileNotFoundError:
            raise UnreadableImage(path, 'it does not exist')
        except MemoryError:
            raise
        except Exception as error:
            # Not the image's fault.
            if getattr(error, 'errno', None) in _NO_RESOURCES:
                raise
            # A damaged file fails in as many ways as it can be damaged.
            reason = str(error).strip().split('\n')[0]
            raise UnreadableImage(path, reason or type(error).__name__)
        if min(array.shape[:2]) < 2:
            raise UnreadableImage(path,
                                  f'{array.shape[1]}x{array.shape[0]} pixels')
        results['img'] = cv2.cvtColor(array, cv2.COLOR_RGB2BGR)
        results['img_shape'] = array.shape[:2]
        results['converted'] = converted
        return results


def _to_rgb(image: Image.Image) -> np.ndarray:
    """Decode to uint8, shape (H, W, 3), upright."""
    if 'exif' in image.info or image.format == 'TIFF':
        image = ImageOps.exif_transpose(image)
    if image.mode in ('I', 'F') or image.mode.startswith('I;16'):
        # PIL itself would cut off all that is brighter than 255.
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        white = max(1., values.max()) if image.mode == 'F' else 65535.
        grey = np.clip(np.round(values * (255 / white)), 0, 255)
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
    if 'A' in image.mode or 'a' in image.mode or ('transparency'
                                                  in image.info):
        rgba = image.convert('RGBA')
        black = Image.new('RGBA', rgba.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, rgba)
    return np.asarray(image.convert('RGB'))
