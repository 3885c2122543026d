"""Names and layouts as a PyTorch module has them, for networks that no library there has.

A module of PyTorch with the attributes of ours loads them with `load_state_dict`:

  here                          there                       layout
  params/a/b/kernel, 4 axes     a.b.weight                  HWIO to OIHW
  params/a/b/kernel, 2 axes     a.b.weight                  [in, out] to [out, in]
  params/a/b/scale              a.b.weight                  of norms
  params/a/b/bias               a.b.bias
  batch_stats/a/b/mean, var     a.b.running_mean, _var
  params/a/b/other              a.b.other                   positions, tokens

Fields that PyTorch's batch norm has beside these, `num_batches_tracked`, are written as 0.
"""

from collections.abc import Mapping

import numpy as np

_TO_TORCH = {
  ('params', 'kernel'): 'weight',
  ('params', 'scale'): 'weight',
  ('batch_stats', 'mean'): 'running_mean',
  ('batch_stats', 'var'): 'running_var',
}
_COUNTER = 'num_batches_tracked'


def to_torch(ours: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
  """Returns tensors by their names in PyTorch, views; None where two would share one.

  Args:
    ours: 'params/...' and 'batch_stats/...' -> array.

  >>> found = to_torch({'params/head/kernel': np.zeros((3, 2))})
  >>> {name: array.shape for name, array in found.items()}
  {'head.weight': (2, 3)}
  """
  found: dict[str, np.ndarray] = {}
  for name, array in ours.items():
    collection, _, path = name.partition('/')
    layer, _, leaf = path.rpartition('/')
    if collection not in ('params', 'batch_stats') or array.ndim not in (0, 1, 2, 4):
      return None
    new = _TO_TORCH.get((collection, leaf), leaf)
    key = '.'.join([*layer.split('/'), new]) if layer else new
    if key in found:
      return None
    found[key] = _turned(array) if leaf == 'kernel' else array
    if new == 'running_mean':
      found[f'{key.removesuffix(new)}{_COUNTER}'] = np.zeros((), np.int64)
  return found


def from_torch(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns what `to_torch` was given, views.

  >>> again = from_torch({'head.weight': np.zeros((2, 3)), 'norm.weight': np.zeros(3)})
  >>> {name: array.shape for name, array in again.items()}
  {'params/head/kernel': (3, 2), 'params/norm/scale': (3,)}
  """
  found: dict[str, np.ndarray] = {}
  for name, array in tensors.items():
    *layer, leaf = name.split('.')
    collection = 'params'
    if leaf == _COUNTER:
      continue
    if leaf in ('running_mean', 'running_var'):
      collection, leaf = 'batch_stats', leaf.removeprefix('running_')
    elif leaf == 'weight':
      leaf = 'kernel' if array.ndim > 1 else 'scale'
    back = _turned_back(array) if leaf == 'kernel' else array
    found['/'.join([collection, *layer, leaf])] = back
  return found


def _turned(kernel: np.ndarray) -> np.ndarray:
  return kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T


def _turned_back(weight: np.ndarray) -> np.ndarray:
  return weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
