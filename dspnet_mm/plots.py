# Copyright (c) The dspnet_mm authors. All rights reserved.
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter


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
