"""Reading weights: files of two kinds, and repositories that hold one of them."""

import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxvision.errors import UserError
from jaxvision.weights import hub
from jaxvision.weights.preprocessing import Preprocessing, of_names, of_timm
from jaxvision.weights.tensors import Weights

# The key of our own metadata in a safetensors file; its value is JSON.
METADATA_KEY = 'jaxvision'

_TORCH = ('.pth', '.pt', '.bin', '.th', '.tar', '.ckpt')
_SUFFIXES = ('.safetensors', *_TORCH)

# Where training scripts put the weights in what they save.
_WRAPPERS = ('state_dict', 'model', 'model_state_dict', 'net')

# The prefixes that DataParallel, torch.compile and Lightning add to every name.
_PREFIXES = ('module.', '_orig_mod.', 'model.')

# The number of steps of batch norm, which only a momentum of None, unused in ResNets, needs.
_IGNORED = 'num_batches_tracked'

_FLOATS = {
  'F16': np.float16,
  'BF16': ml_dtypes.bfloat16,
  'F32': np.float32,
  'F64': np.float64,
}


def read(source: str) -> Weights:
  """Reads weights, as float32.

  Args:
    source: a .safetensors file; a PyTorch checkpoint, which is read with
      `weights_only=True`, so that only tensors and plain values are loaded; or, if there
      is no such path, a Hugging Face repository ORGANISATION/NAME, where @REVISION
      chooses a branch, tag or commit. Without a network a repository that was read
      before comes from the cache.

  Returns:
    The weights. A state dict within a checkpoint is found, a prefix that all names
    share is removed, and the counters of batch norm are left out. The preprocessing is
    that of the repository's config.json or of our own metadata, or follows from the names
    (`preprocessing.of_names`).

  Raises:
    UserError: there is no such source, or it holds no such weights.
  """
  path = Path(source).expanduser()
  if path.is_file():
    return _read_file(path, str(source), Preprocessing())
  if path.is_dir():
    raise UserError(
      f'weights {source}: is a directory without a run in it; give a run, a file '
      f'({", ".join(_SUFFIXES)}) or a Hugging Face repository (ORGANISATION/NAME)'
    )
  repository = None if path.suffix in _SUFFIXES else hub.parse(source)
  if repository is None:
    raise UserError(
      f'weights {source}: there is no such file, and it is no Hugging Face repository '
      '(ORGANISATION/NAME or ORGANISATION/NAME@REVISION)'
    )
  snapshot = hub.download(*repository)
  return _read_file(snapshot.file, source, of_timm(snapshot.config), snapshot.revision)


def _read_file(
  path: Path, origin: str, known: Preprocessing, revision: str | None = None
) -> Weights:
  """Reads a file that exists; `known` is its preprocessing as far as it is known."""
  if path.suffix not in _SUFFIXES:
    raise UserError(
      f'weights {origin}: the name must end in {", ".join(_SUFFIXES)}, which says the format'
    )
  try:
    data = path.read_bytes()
  except OSError as error:
    raise UserError(f'weights {origin}: {error.strerror}') from error
  if not data:
    raise UserError(f'weights {origin}: the file is empty')
  own: dict[str, Any] = {}
  if path.suffix == '.safetensors':
    tensors, own = _safetensors(data, origin)
  else:
    tensors = _checkpoint(path, origin)
  if not tensors:
    raise UserError(f'weights {origin}: the file holds no tensor')
  tensors = dict(sorted(_without_prefixes(tensors).items()))
  model = own.get('model')
  if own:
    # We wrote this file, and what was not known then is not guessed now.
    known = Preprocessing.of_json(own)
  else:
    known = known.or_else(of_names(tensors))
  sha256 = hashlib.sha256(data).hexdigest()
  fields = own.get('fields')
  fields = fields if isinstance(fields, dict) else None
  return Weights(tensors, origin, sha256, revision, known, model, fields)


def _safetensors(
  data: bytes, origin: str
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """Returns the tensors of a safetensors file and our own metadata, {} if none."""
  import safetensors

  try:
    entries = safetensors.deserialize(data)
  except safetensors.SafetensorError as error:
    raise UserError(
      f'weights {origin}: is no safetensors file, or a damaged one: {_one_line(error)}'
    ) from error
  # The package has validated the header.
  header = json.loads(data[8 : 8 + int.from_bytes(data[:8], 'little')])
  tensors = {}
  for name, entry in entries:
    if name.endswith(_IGNORED):
      continue
    if entry['dtype'] not in _FLOATS:
      raise _no_float(origin, name, entry['dtype'])
    array = np.frombuffer(entry['data'], _FLOATS[entry['dtype']])
    tensors[name] = array.reshape(entry['shape']).astype(np.float32, copy=False)
  try:
    own = json.loads((header.get('__metadata__') or {}).get(METADATA_KEY, '{}'))
  except ValueError:
    own = {}
  return tensors, own if isinstance(own, dict) else {}


def _checkpoint(path: Path, origin: str) -> dict[str, np.ndarray]:
  """Returns the tensors of a PyTorch checkpoint; no code in it is run."""
  import pickle

  try:
    import torch
  except ImportError as error:
    raise UserError(
      f'weights {origin}: reading it needs PyTorch: pip install torch, or convert the '
      'file to .safetensors where PyTorch is'
    ) from error
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      content = torch.load(path, map_location='cpu', weights_only=True)
  except pickle.UnpicklingError as error:
    culprit = re.search(r'GLOBAL (\S{1,80}) ', str(error))
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
      problem = f'is no PyTorch checkpoint, or a damaged one: {_one_line(error)}'
    raise UserError(f'weights {origin}: {problem}') from error
  tensors = {}
  for name, value in _state_dict(content, torch.Tensor).items():
    name = str(name)
    if not isinstance(value, torch.Tensor) or name.endswith(_IGNORED):
      continue
    if value.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
      raise _no_float(origin, name, str(value.dtype).removeprefix('torch.'))
    tensors[name] = value.detach().to(torch.float32).numpy()
  return tensors


def _state_dict(content: Any, tensor: type) -> Mapping[Any, Any]:
  """Returns the mapping that holds the tensors."""
  if not isinstance(content, Mapping):
    return {}
  if not any(isinstance(value, tensor) for value in content.values()):
    for key in _WRAPPERS:
      if isinstance(content.get(key), Mapping):
        return _state_dict(content[key], tensor)
  return content


def _without_prefixes(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  for prefix in _PREFIXES:
    if all(name.startswith(prefix) for name in tensors):
      return _without_prefixes(
        {name.removeprefix(prefix): value for name, value in tensors.items()}
      )
  return tensors


def _no_float(origin: str, name: str, dtype: str) -> UserError:
  return UserError(
    f'weights {origin}: {name} is {dtype}; weights must be floating point of 16, 32 or '
    '64 bits'
  )


def _one_line(error: Exception) -> str:
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return lines[0][:200]
