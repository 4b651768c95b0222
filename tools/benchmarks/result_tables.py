# Copyright (c) The dspnet_mm authors. All rights reserved.
"""What benchmarks call their results, in READMEs and where they are made."""
from typing import Any, Dict, List, Sequence

from dspnet_mm.evaluation.report import METHODS
from dspnet_mm.means import percent
from dspnet_mm.tables import ACCURACIES, NETWORK, accuracy, rows_table


def gain(value: Dict[str, float]) -> str:
    """A mean difference of accuracies and its error, in points."""
    return percent(value, '+')


def rank(value: Dict[str, float]) -> str:
    """A mean effective rank and its error."""
    return f'{value["mean"]:.1f} ± {value["se"]:.1f}'


COLUMNS = (
    ('figure', 'figure', str),
    ('value', 'measured', '{:.3g}'.format),
    ('training', 'training', str),
    ('second_half', 'mean over the second half', accuracy),
    ('bound', 'bound', str),
    *NETWORK,
    *ACCURACIES,
    ('switchable_gain', 'one each over one sliced', gain),
    ('finetuned_1', '1 % of labels', accuracy),
    ('finetuned_10', '10 % of labels', accuracy),
    ('idea', 'idea', str),
    ('against', 'compared with', lambda value: METHODS.get(value, value)),
    ('knn_gain', 'kNN, points', gain),
    ('linear_gain', 'linear probe, points', gain),
    ('knn_smaller', 'smaller networks, kNN', gain),
    ('linear_smaller', 'smaller networks, linear', gain),
    ('knn_worst', 'worst network, kNN', gain),
    ('linear_worst', 'worst network, linear', gain),
    ('knn_error_ratio', 'errors, kNN', '{:.2f}'.format),
    ('linear_error_ratio', 'errors, linear', '{:.2f}'.format),
    ('cost_ratio', 'cost', '{:.2f}'.format),
    ('cost_ratio_without_loading', 'cost without loading', '{:.2f}'.format),
    ('cost_of', 'of the cost of', METHODS.get),
    ('metric', 'metric', str),
    ('slimmed', 'from slimmed weights', accuracy),
    ('random', 'from random weights', accuracy),
    ('one_by_one', 'from weights pre-trained one by one', accuracy),
    ('exported_as', 'exported as', '`{}`'.format),
    ('task', 'task', str),
    ('knn_unified', 'kNN, unified', accuracy),
    ('knn_routed', 'kNN, routed', accuracy),
    ('knn_best', 'kNN, best in hindsight', accuracy),
    ('linear_unified', 'linear probe, unified', accuracy),
    ('linear_routed', 'linear probe, routed', accuracy),
    ('linear_best', 'linear probe, best in hindsight', accuracy),
    ('images', 'pre-trained on', str),
    ('knn_photographs', 'kNN, photographs', accuracy),
    ('knn_photographs_gain', 'over all', gain),
    ('linear_photographs', 'linear probe, photographs', accuracy),
    ('linear_photographs_gain', 'over all', gain),
    ('knn_shapes', 'kNN, shapes', accuracy),
    ('knn_shapes_gain', 'over all', gain),
    ('linear_shapes', 'linear probe, shapes', accuracy),
    ('linear_shapes_gain', 'over all', gain),
    ('knn_regret', 'lost to the best, kNN', gain),
    ('linear_regret', 'lost to the best, linear', gain),
    ('rank', 'effective rank', rank),
    ('spread', 'spread', accuracy),
)


def comparisons(report: dict) -> List[dict]:
    """A row for each way that a supernet's is compared with."""
    figures = report['figures']

    def with_error(name: str) -> Dict[str, float]:
        return dict(mean=figures[name], se=figures[f'{name}_se'])

    rows = []
    for way in list(report['by_seed'])[1:]:
        # The first comparison's figures have plain names.
        prefix = f'{way}_' if f'{way}_cost_ratio' in figures else ''
        row = {
            key: figures[f'{prefix}{key}']
            for key in ('cost_ratio', 'cost_ratio_without_loading')
        }
        row['against'] = way
        for metric in ('knn', 'linear'):
            stem = f'{prefix}{metric}'
            row[f'{metric}_gain'] = with_error(f'{stem}_gain_mean')
            row[f'{metric}_worst'] = with_error(f'{stem}_gain_worst')
            row[f'{metric}_error_ratio'] = figures[f'{stem}_error_ratio']
        rows.append(row)
    return rows


def results_table(rows: Sequence[Dict[str, Any]]) -> str:
    """Rows in Markdown, with all of ``COLUMNS`` that they have."""
    return rows_table(rows, COLUMNS)
