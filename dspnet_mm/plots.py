# Copyright (c) The dspnet_mm authors. All rights reserved.
import os

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from dspnet_mm.errors import InputError
from dspnet_mm.files import check_writable


def check_picture(path: str) -> None:
    """Refuse a picture that cannot be written, before work begins.

    Args:
        path (str): The file; folders on the way to it may be missing.

    Raises:
        InputError: If its name ends with no format, or see
            :func:`check_writable`.
    """
    check_writable(path)
    # Matplotlib does not write PGF without LaTeX.
    suffixes = sorted({*Figure().canvas.get_supported_filetypes()} - {'pgf'})
    if os.path.splitext(path)[1][1:].lower() not in suffixes:
        raise InputError(f'{path} cannot be a picture: give a name that ends '
                         f'with one of .{", .".join(suffixes)}')


def flops_axis(axes: Axes) -> None:
    """Let the horizontal axis be of FLOPs, in powers of ten, twos and fives.

    Args:
        axes (Axes): Where something was drawn against multiply-adds.
    """
    axes.set_xscale('log')
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=''))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel('FLOPs (multiply-adds per image)')
