# Copyright (c) The dspnet_mm authors. All rights reserved.
"""What the command-line tools share."""
import argparse
import os
import shlex
import sys
from typing import Any, Callable, Dict, Sequence

from mmengine.config import DictAction

from .errors import InputError, VerificationError


def run(main: Callable[[], None]) -> None:
    """Run a tool; what a user can mend ends it with one line.

    Args:
        main (Callable): The tool.
    """
    try:
        main()
    except (InputError, VerificationError) as error:
        print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except OSError as error:
        where = f'{error.filename}: ' if error.filename else ''
        # Who raises one with a message alone, as PIL does, sets no strerror.
        reason = error.strerror or str(error) or type(error).__name__
        print(f'error: {where}{" ".join(reason.split())}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print('stopped', file=sys.stderr)
        sys.exit(130)


class _ConfigOptions(DictAction):
    """MMEngine's KEY=VALUE, with an error instead of a traceback."""

    def __call__(self,
                 parser: argparse.ArgumentParser,
                 namespace,
                 values,
                 option_string=None) -> None:
        try:
            super().__call__(parser, namespace, values, option_string)
        except ValueError:
            parser.error(f'{option_string} {" ".join(values)} is not allowed: '
                         'give KEY=VALUE, e.g. model.switchable_bn=True')


def _seed(text: str) -> int:
    """One that all libraries take."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(
            f'{text} is not allowed: give a whole number from 0 to 2**32 - 1')
    return int(text)


_OPTIONS: Dict[str, Dict[str, Any]] = {
    'seed':
    dict(
        type=_seed,
        default=0,
        help='decides what is drawn at random (default: %(default)s)'),
    'device':
    dict(default='cpu', help='where to compute (default: %(default)s)'),
    'force':
    dict(action='store_true', help='replace files that exist'),
    'cfg-options':
    dict(
        nargs='+',
        action=_ConfigOptions,
        metavar='KEY=VALUE',
        help="values that replace the config's"),
}


def add_options(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add options that several tools have.

    Args:
        parser (ArgumentParser): The tool's.
        *names (str): Of 'seed', 'device', 'force' and 'cfg-options'.
    """
    for name in names:
        parser.add_argument(f'--{name}', **_OPTIONS[name])


def command_line(tool: str) -> str:
    """The command that runs, for what it writes.

    Args:
        tool (str): The tool's file.

    Returns:
        str: As the READMEs have it, from wherever it was called.
    """
    _, _, name = os.path.abspath(tool).rpartition(f'{os.sep}tools{os.sep}')
    return shlex.join(
        ['python', f'tools/{name.replace(os.sep, "/")}', *sys.argv[1:]])


def markdown_table(header: Sequence[str],
                   rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, its columns aligned.

    Args:
        header (Sequence[str]): Names of the columns.
        rows (Sequence[Sequence[str]]): A text for each cell.

    Returns:
        str: The table, without a newline at its end.
    """
    lines = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    lines.insert(1, ['-' * width for width in widths])
    return '\n'.join(
        '| ' +
        ' | '.join(cell.ljust(width)
                   for cell, width in zip(line, widths)) + ' |'
        for line in lines)
