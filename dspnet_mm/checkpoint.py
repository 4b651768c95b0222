# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Loading files without running what they hold."""
import hashlib
import os
import pickle
import zipfile
from types import SimpleNamespace
from typing import Any, Dict, Tuple

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from torch import nn

from dspnet_mm.errors import InputError

# All that a training checkpoint of MMEngine needs, besides what stands in for
# numpy's. None of it runs code that the file chooses.
_ALLOWED = {
    # The latter holds the milestones of MultiStepLR.
    'collections': ('OrderedDict', 'Counter'),
    'torch': ('Size', 'device'),
    'torch._utils': ('_rebuild_tensor_v2', '_rebuild_parameter'),
    '_codecs': ('encode', ),
    'mmengine.logging.history_buffer': ('HistoryBuffer', ),
}


class NotOnTheList(InputError):
    """A checkpoint asks for what it may not hold."""


class _Refused(Exception):
    """A file names something that is not on the list."""


class OneCycle:
    """Stands in for the schedule of this name, of which it has the curves."""
    _annealing_cos = staticmethod(OneCycleParamScheduler._annealing_cos)
    _annealing_linear = staticmethod(OneCycleParamScheduler._annealing_linear)

    def __new__(cls, *args) -> 'OneCycle':
        raise _Refused('OneCycleParamScheduler to be called')


# What may be named of a class: a log buffer's statistics, and curves.
_METHODS = {
    HistoryBuffer: ('min', 'max', 'mean', 'current'),
    OneCycle: ('_annealing_cos', '_annealing_linear'),
}


def named_method(owner: type, name: str) -> Any:
    """Stands in for getattr, by which checkpoints name methods.

    Raises:
        _Refused: If anything else is asked for.
    """
    for allowed, names in _METHODS.items():
        if owner is allowed and name in names:
            return getattr(owner, name)
    raise _Refused(f'getattr({owner!r}, {name!r})')


class _NumberType:
    """Stands in for numpy's dtype: of numbers, and not altered afterwards.

    Of an altered one, e.g. with fields that are objects, numpy follows
    addresses that a file chooses.
    """
    # Behind the version and the order of bytes: what numbers do not have.
    _STATE = (None, None, None, -1, -1, 0)

    def __init__(self, name: str, *flags) -> None:
        self.dtype = np.dtype(name) if isinstance(name, str) else None
        if self.dtype is None or self.dtype.kind not in 'biufc':
            raise _Refused(f'numpy.dtype({name!r})')

    def __setstate__(self, state: tuple) -> None:
        version, order, *others = state
        if (version, *others) != (3, *self._STATE) or order not in [*'<>|=']:
            raise _Refused(f'numpy.dtype with the state {state}')
        self.dtype = self.dtype.newbyteorder(order)


class _NumberArray(np.ndarray):
    """Stands in for numpy's arrays: of numbers alone."""

    def __new__(cls, *args) -> '_NumberArray':
        raise _Refused('numpy.ndarray to be called')

    def __setstate__(self, state: tuple) -> None:
        version, shape, number_type, order, data = state
        super().__setstate__((version, shape, number_type.dtype, order, data))


def _reconstruct(kind: type, shape: Tuple[int], code: bytes) -> _NumberArray:
    if (kind, shape, code) != (_NumberArray, (0, ), b'b'):
        raise _Refused(f'an array like {kind!r}, {shape}, {code!r}')
    return np.ndarray.__new__(_NumberArray, shape, np.int8)


def _scalar(number_type: _NumberType, data: bytes) -> np.generic:
    return np.frombuffer(data, number_type.dtype)[0]


_STAND_INS = {
    'builtins.getattr': named_method,
    '__builtin__.getattr': named_method,
    'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler':
    OneCycle,
    'numpy.dtype': _NumberType,
    'numpy.ndarray': _NumberArray,
    'numpy.core.multiarray._reconstruct': _reconstruct,
    'numpy._core.multiarray._reconstruct': _reconstruct,
    'numpy.core.multiarray.scalar': _scalar,
    'numpy._core.multiarray.scalar': _scalar,
}


class _RestrictedUnpickler(pickle.Unpickler):

    def find_class(self, module: str, name: str) -> Any:
        stand_in = _STAND_INS.get(f'{module}.{name}')
        if stand_in is not None:
            return stand_in
        # Storages, of which tensors are made, PyTorch finds before.
        if name in _ALLOWED.get(module, ()):
            return super().find_class(module, name)
        raise _Refused(f'{module}.{name}')


# PyTorch's own allow-list (weights_only=True) can be extended only from
# torch 2.4 on, so torch.load gets a pickle module that has one.
_RESTRICTED_PICKLE = SimpleNamespace(
    __name__='restricted_pickle',
    Unpickler=_RestrictedUnpickler,
    load=lambda file, **kwargs: _RestrictedUnpickler(file, **kwargs).load())


def sha256_of(path: str) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            digest.update(block)
    return digest.hexdigest()


def check_exists(path: str) -> None:
    """Refuse a checkpoint that is not there.

    Args:
        path (str): Where it should be.

    Raises:
        InputError: If there is no file, with those that are there.
    """
    if os.path.isfile(path):
        return
    is_folder = os.path.isdir(path)
    folder = path if is_folder else os.path.dirname(path) or '.'
    there = [
        os.path.join(folder, name) for name in sorted(os.listdir(folder))
        if name.endswith('.pth')
    ] if os.path.isdir(folder) else []
    wanted = ' or '.join(there) or \
        'one that training wrote, e.g. work_dirs/.../epoch_N.pth'
    found = 'is a folder' if is_folder else 'does not exist'
    raise InputError(f'{path} {found}: give {wanted}')


def load_checkpoint(path: str) -> Dict[str, Any]:
    """Load a checkpoint; no code of it runs but what is on a list.

    Args:
        path (str): A file that ``torch.save`` wrote.

    Returns:
        dict: What it holds, with tensors on the CPU.

    Raises:
        InputError: If there is no such file, it is damaged, is no checkpoint
            with a ``state_dict``, or names what is not on the list
            (:class:`NotOnTheList`).
    """
    check_exists(path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(
                        name.endswith('constants.pkl')
                        for name in archive.namelist()):
                    raise InputError(f'{path} is a TorchScript program, not '
                                     'a checkpoint: give the .pth file that '
                                     'training wrote')
        checkpoint = torch.load(
            path,
            map_location='cpu',
            pickle_module=_RESTRICTED_PICKLE,
            weights_only=False)
    except _Refused as error:
        raise NotOnTheList(
            f'{path} asks for {error}, which is not on the list of what a '
            'checkpoint may hold; it was not run. Use a checkpoint that '
            'MMEngine wrote')
    except InputError:
        raise
    except Exception as error:
        # A damaged file fails in as many ways as it can be damaged.
        reason = str(error).strip().split('\n')[0] or type(error).__name__
        raise InputError(f'{path} cannot be read as a checkpoint ({reason}): '
                         'it may be damaged; copy it again, or use an earlier '
                         'one')
    if not isinstance(checkpoint, dict) or not isinstance(
            checkpoint.get('state_dict'), dict):
        raise InputError(f'{path} is no checkpoint: it holds no state_dict. '
                         'Give the .pth file that training wrote')
    return checkpoint


def load_every_tensor(module: nn.Module, state: Dict[str, Any], complaint: str,
                      remedy: str) -> None:
    """Load weights only if they fit, all of them.

    Args:
        module (Module): What to load them into.
        state (dict): Its ``state_dict``, as a file holds it.
        complaint (str): What an error begins with, e.g. '... does not fit'.
        remedy (str): What it ends with: what to do.

    Raises:
        InputError: If a key is missing or unexpected, or a shape differs;
            the module is as before then.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    differing = [
        f'{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}'
        if isinstance(state[key], torch.Tensor) else f'{key} is no tensor'
        for key in own
        if key in state and (not isinstance(state[key], torch.Tensor)
                             or state[key].shape != own[key].shape)
    ]
    faults = [
        f'{len(keys)} {what} ({keys[0]}{", ..." if keys[1:] else ""})'
        for what, keys in (('keys missing', missing), ('unexpected keys',
                                                       unexpected),
                           ('tensors of another shape', differing)) if keys
    ]
    if faults:
        raise InputError(f'{complaint}: {"; ".join(faults)}. {remedy}')
    module.load_state_dict(state)
