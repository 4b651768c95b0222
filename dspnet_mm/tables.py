# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Rows of results as tables in Markdown, alike wherever they are shown."""
from typing import Any, Callable, Dict, Sequence, Tuple, Union

from dspnet_mm.cli import markdown_table
from dspnet_mm.evaluation.report import METHODS

# What a row calls it, what tables call it, and how it is shown.
Column = Tuple[str, str, Callable[[Any], str]]


def accuracy(value: Union[float, Dict[str, float]]) -> str:
    """An accuracy as text, e.g. '0.613 ± 0.004'.

    Args:
        value (float | dict): A fraction, or what :func:`mean_and_error` says
            of several.
    """
    if isinstance(value, dict):
        return f'{value["mean"]:.3f} ± {value["se"]:.3f}'
    return f'{value:.3f}'


NETWORK: Tuple[Column, ...] = (
    ('method', 'method', lambda value: METHODS.get(value, value)),
    ('subnet', 'sub-network', str),
    ('widths', 'width', lambda value: ' '.join(f'{w:g}' for w in value)),
    ('depths', 'depth', lambda value: ' '.join(map(str, value))),
    ('params', 'params', '{:,}'.format),
    ('flops', 'FLOPs', '{:,}'.format),
)
ACCURACIES: Tuple[Column, ...] = (
    ('knn', 'kNN', accuracy),
    ('linear', 'linear probe', accuracy),
    ('linear_slimmable', 'jointly, one layer sliced', accuracy),
    ('linear_switchable', 'jointly, one layer each', accuracy),
)


def rows_table(rows: Sequence[Dict[str, Any]],
               columns: Sequence[Column]) -> str:
    """Rows in Markdown.

    Args:
        rows (Sequence[dict]): At least one. Where one lacks what others have,
            its cell is empty.
        columns (Sequence[Column]): Of these, the table has what a row has.

    Returns:
        str: The table, without a newline at its end.
    """
    columns = [
        column for column in columns if any(column[0] in row for row in rows)
    ]
    return markdown_table(
        [title for _, title, _ in columns],
        [[show(row[key]) if key in row else '' for key, _, show in columns]
         for row in rows])
