"""PyTorch checkpoints: the state dicts in whatever a training script saved around them."""

import argparse
import pickle
import re
import warnings
import zipfile
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxvision.errors import UserError
from jaxvision.weights.choosing import one_line

# What lies beside weights and holds tensors that are none.
_BESIDE = re.compile(r'opt$|optim|sched|scaler|callback|loops', re.IGNORECASE)
_DEEPEST = 8  # dicts within dicts


class _Ignored:
  """Stands for an object beside the tensors, of which nothing is read."""

  def __new__(cls, *args: Any, **kwargs: Any) -> '_Ignored':
    del args, kwargs
    return super().__new__(cls)

  def __init__(self, *args: Any, **kwargs: Any):
    del args, kwargs

  def __setstate__(self, state: Any) -> None:
    del state


# PyTorch refuses these, though they are plain values: NumPy's scalars and arrays (a best
# accuracy), the arguments of the script, paths. None of their own code is run.
_HARMLESS = (
  *(
    f'numpy.{core}.multiarray.{name}'
    for core in ('core', '_core')
    for name in ('scalar', '_reconstruct')
  ),
  'numpy.dtype',
  'numpy.ndarray',
  f'{argparse.Namespace.__module__}.{argparse.Namespace.__name__}',
  *(
    f'{module}.{name}'
    for module in ('pathlib', 'pathlib._local')
    for name in ('Path', 'PosixPath', 'WindowsPath', 'PurePosixPath')
  ),
)


def load(path: Path, origin: str) -> dict[str, dict[str, Any]]:
  """Returns the state dicts of a checkpoint by the keys that lead to them.

  No code in the file is run.

  Args:
    path: the file.
    origin: what messages call it.

  Returns:
    Key, '' for the file as a whole and 'a.b' for b within a -> name -> PyTorch tensor.

  Raises:
    UserError: PyTorch is not installed, or the file is no such file, is damaged, or
      holds code.
  """
  try:
    import torch
  except ImportError as error:
    raise UserError(
      f'weights {origin}: reading it needs PyTorch: pip install torch, or convert the '
      'file to .safetensors where PyTorch is'
    ) from error
  ignored: list[Any] = [(type(name, (_Ignored,), {}), name) for name in _HARMLESS]
  try:
    _check_archive(path)
    with warnings.catch_warnings(), torch.serialization.safe_globals(ignored):
      warnings.simplefilter('ignore')
      content = torch.load(path, map_location='cpu', weights_only=True)
  except pickle.UnpicklingError as error:
    culprit = re.search(r'GLOBAL ([\w.]{1,80}) ', str(error))
    what = f'code ({culprit[1]})' if culprit else 'what may be code'
    raise UserError(
      f'weights {origin}: refused: it holds {what} beside tensors, and none of it was '
      'run. Save the weights alone, torch.save(model.state_dict(), ...), or as '
      '.safetensors'
    ) from error
  # The reader raises errors of many kinds for other and damaged files.
  except Exception as error:
    if 'TorchScript' in str(error):
      problem = 'is a TorchScript program, not weights: save its state_dict()'
    else:
      problem = f'is no PyTorch checkpoint, or a damaged one: {one_line(error)}'
    raise UserError(f'weights {origin}: {problem}') from error
  return _state_dicts(content, torch.Tensor)


def _check_archive(path: Path) -> None:
  """Raises an error if an archive has other contents than its checksums say.

  PyTorch skips the checksums. It also takes compressed entries, which it never writes
  and which can be a thousand times the size of the file.
  """
  if not zipfile.is_zipfile(path):
    return  # in the format of PyTorch before 1.6
  with zipfile.ZipFile(path) as archive:
    entries = archive.infolist()
    if any(entry.filename.endswith('constants.pkl') for entry in entries):
      return  # a TorchScript program, which PyTorch tells apart
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
      raise ValueError('its contents are larger than the file')
    wrong = archive.testzip()
  if wrong is not None:
    raise ValueError(f'{wrong} does not have the checksum it was written with')


def _state_dicts(content: Any, tensor: type) -> dict[str, dict[str, Any]]:
  """Returns all dicts of tensors within `content`, which may contain itself."""
  found: dict[str, dict[str, Any]] = {}
  seen: set[int] = set()
  queue = deque([('', content, 0)])
  while queue:
    key, mapping, depth = queue.popleft()
    if not isinstance(mapping, Mapping) or id(mapping) in seen:
      continue
    seen.add(id(mapping))
    # The state of an optimiser is by number.
    named = {name: value for name, value in mapping.items() if isinstance(name, str)}
    tensors = {name: v for name, v in named.items() if isinstance(v, tensor)}
    if tensors:
      found[key] = tensors
    if depth < _DEEPEST:
      queue.extend(
        (f'{key}.{name}' if key else name, inner, depth + 1)
        for name, inner in named.items()
        if not _BESIDE.search(name)
      )
  return found


def dtype_of(tensor: Any) -> str:
  """Returns the dtype of a PyTorch tensor, with what makes it unreadable if anything.

  >>> import pytest
  >>> torch = pytest.importorskip('torch')
  >>> dtype_of(torch.zeros(2)), dtype_of(torch.zeros(2, device='meta'))
  ('float32', 'float32 without values (device meta)')
  """
  import torch

  name = str(tensor.dtype).removeprefix('torch.')
  if tensor.is_meta:
    return f'{name} without values (device meta)'
  if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
    return f'{name}, sparse, nested or quantised'
  return name


def to_numpy(tensor: Any) -> np.ndarray:
  """Returns a PyTorch tensor of floats as float32."""
  import torch

  return tensor.detach().to(torch.float32).resolve_neg().numpy()
