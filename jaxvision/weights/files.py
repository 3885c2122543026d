"""Reading weights: files of two kinds, and repositories and packages that hold one."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxvision.errors import UserError, short
from jaxvision.weights import choosing, hub, packaged, pytorch, torch_layout
from jaxvision.weights.choosing import one_line
from jaxvision.weights.preprocessing import Preprocessing, of_names, of_timm
from jaxvision.weights.tensors import Weights

# The key of our own metadata in a safetensors file; its value is JSON.
METADATA_KEY = 'jaxvision'

# What our own metadata have beside the model, its fields and its preprocessing: how a flow
# draws, how a network resizes its images, and what it takes and returns.
SECTIONS = ('flow', 'resize', 'signature')

_TORCH = ('.pth', '.pt', '.bin', '.th', '.tar', '.ckpt')
_SUFFIXES = ('.safetensors', *_TORCH)

# By the names of dtypes in safetensors files, and in PyTorch.
_FLOATS = {
  'F16': np.float16,
  'BF16': ml_dtypes.bfloat16,
  'F32': np.float32,
  'F64': np.float64,
}
_TORCH_FLOATS = ('float16', 'bfloat16', 'float32', 'float64')

# Integers and bools under other names, such as num_batches_tracked, are no weights.
_WEIGHTS = ('weight', 'bias', 'kernel', 'running_mean', 'running_var')

# What lies where weights should, by how it begins.
_STRANGERS = {
  b'version https://git-lfs': 'is a pointer of Git LFS: get the file with git lfs pull',
  b'<!DOCTYPE': 'is a web page: download the file itself',
  b'<html': 'is a web page: download the file itself',
}


def read(source: str) -> Weights:
  """Reads weights, as float32.

  Args:
    source: a .safetensors file; a PyTorch checkpoint, which is read with
      `weights_only=True`, so that only tensors and plain values are loaded; a folder with
      one of them, as a hub has it; or, if there is no such path, a key of
      `packaged.PACKAGES`, whose weights are in a Python package, or a Hugging Face
      repository ORGANISATION/NAME, where @REVISION chooses a branch, tag or commit.
      Without a network a repository that was read before comes from the cache. Of a file
      with several sets of weights, '#KEY' at the end chooses one: a key of the
      checkpoint ('#ema') or what the names begin with ('#teacher').

  Returns:
    The weights. A state dict within a checkpoint is found, what wrappers put before
    the names of the network is removed, and buffers of integers and the weights of a loss
    are left out. The preprocessing is that of the repository's config.json or of our own
    metadata, or follows from the names (`preprocessing.of_names`).

  Raises:
    UserError: there is no such source, or it holds no such weights, or several.
  """
  path, key = Path(source).expanduser(), None
  if not path.exists() and '#' in source:
    source, _, key = source.rpartition('#')
    path = Path(source).expanduser()
  if path.is_file():
    return _read_file(path, source, key, Preprocessing())
  if path.is_dir():
    file, config = _of_folder(path)
    return _read_file(file, str(file), key, of_timm(config))
  if source in packaged.PACKAGES:
    return packaged.read(source)
  repository = None if path.suffix.lower() in _SUFFIXES else hub.parse(source)
  if repository is None:
    raise UserError(
      f'weights {source}: there is no such file, and it is no Hugging Face repository '
      '(ORGANISATION/NAME or ORGANISATION/NAME@REVISION) and no package '
      f'({", ".join(packaged.PACKAGES)})'
    )
  snapshot = hub.download(*repository)
  known = of_timm(snapshot.config)
  return _read_file(snapshot.file, source, key, known, snapshot.revision)


def in_folder(folder: Path) -> list[Path]:
  """Returns the files of weights in a folder: the hub's where it is a copy of one."""
  for name in hub.WEIGHTS:
    if (folder / name).is_file():
      return [folder / name]
  return sorted(
    path
    for path in folder.iterdir()
    if path.suffix.lower() in _SUFFIXES and path.is_file()
  )


def _of_folder(folder: Path) -> tuple[Path, Any]:
  """Returns the file of weights in a folder and its config.json, None if none."""
  files = in_folder(folder)
  if len(files) != 1:
    names = ', '.join(short(path.name) for path in files[:3])
    what = f'has {len(files)} files of weights ({names})' if files else 'has no weights'
    raise UserError(
      f'weights {folder}: is a directory without a run in it and {what}; give a run, a '
      f'file ({", ".join(_SUFFIXES)}) or a Hugging Face repository (ORGANISATION/NAME)'
    )
  config = folder / 'config.json'
  known = hub.read_config(config, str(folder)) if config.is_file() else None
  return files[0], known


def _read_file(
  path: Path,
  origin: str,
  key: str | None,
  known: Preprocessing,
  revision: str | None = None,
) -> Weights:
  """Reads a file that exists; `known` is its preprocessing as far as it is known."""
  if path.suffix.lower() not in _SUFFIXES:
    raise UserError(
      f'weights {origin}: the name must end in {", ".join(_SUFFIXES)}, which says the format'
    )
  try:
    with path.open('rb') as file:
      start = file.read(64)
      file.seek(0)
      sha256 = hashlib.file_digest(file, 'sha256').hexdigest()
  except OSError as error:
    raise UserError(f'weights {origin}: {error.strerror}') from error
  if not start:
    raise UserError(f'weights {origin}: the file is empty')
  for beginning, problem in _STRANGERS.items():
    if start.lstrip().startswith(beginning):
      raise UserError(f'weights {origin}: {problem}')
  own: dict[str, Any] = {}
  if path.suffix.lower() == '.safetensors':
    found, dtypes, own = _safetensors(path, origin)
    chosen, prefix = choosing.choose({'': found}, {'': 1}, key, origin)
    arrays: Mapping[str, Any] = _floats(found, dtypes, origin)
    if own.get('layout') == 'module':
      arrays = torch_layout.from_torch(arrays)
  else:
    chosen, prefix, arrays = _checkpoint(path, origin, key)
  names = choosing.network(arrays, origin, prefix)
  tensors = {new: arrays[name] for name, new in names.items()}
  tensors = dict(sorted(tensors.items()))
  if own:
    # We wrote this file, and what was not known then is not guessed now.
    known = Preprocessing.of_json(own)
  else:
    known = known.or_else(of_names(tensors))
  model, fields = own.get('model'), own.get('fields')
  left_out = () if prefix else tuple(name for name in arrays if name not in names)
  return Weights(
    tensors,
    f'{origin}#{key}' if key else origin,
    sha256,
    revision,
    known,
    model if isinstance(model, str) else None,
    fields if isinstance(fields, dict) else None,
    chosen,
    left_out,
    {name: own[name] for name in SECTIONS if isinstance(own.get(name), dict)},
  )


def _safetensors(
  path: Path, origin: str
) -> tuple[dict[str, np.ndarray], dict[str, str], dict[str, Any]]:
  """Returns arrays and dtypes of a safetensors file and our own metadata, {} if none."""
  import safetensors

  data = path.read_bytes()
  found, dtypes = {}, {}
  try:
    entries = safetensors.deserialize(data)
    # The package has validated the header.
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], 'little')])
    for name, entry in entries:
      dtypes[name] = entry['dtype']
      array = np.frombuffer(entry['data'], _FLOATS.get(entry['dtype'], np.uint8))
      if entry['dtype'] in _FLOATS:
        array = array.reshape(entry['shape']).astype(np.float32, copy=False)
      found[name] = array
  except (safetensors.SafetensorError, ValueError, RecursionError) as error:
    raise UserError(
      f'weights {origin}: is no safetensors file, or a damaged one: {one_line(error)}'
    ) from error
  own = parsed((header.get('__metadata__') or {}).get(METADATA_KEY, '{}'))
  return found, dtypes, own if isinstance(own, dict) else {}


def parsed(text: str) -> Any:
  """Returns parsed JSON, None if it is none, or nested deeper than Python reads."""
  try:
    return json.loads(text)
  except (ValueError, RecursionError):
    return None


def _checkpoint(
  path: Path, origin: str, key: str | None
) -> tuple[str, str | None, dict[str, np.ndarray]]:
  """Returns the key of the state dict taken, the prefix to take, and the arrays."""
  found = pytorch.load(path, origin)
  sizes = {
    name: sum(
      tensor.numel()
      for tensor in tensors.values()
      if pytorch.dtype_of(tensor) in _TORCH_FLOATS
    )
    for name, tensors in found.items()
  }
  if not found:
    raise UserError(f'weights {origin}: the file holds no tensor')
  chosen, prefix = choosing.choose(found, sizes, key, origin)
  # A tensor may repeat one number without end, in a file of a hundred bytes.
  if sizes[chosen] > path.stat().st_size:
    raise UserError(
      f'weights {origin}: is damaged: its tensors are larger than the file'
    )
  dtypes = {name: pytorch.dtype_of(tensor) for name, tensor in found[chosen].items()}
  floats = _floats(found[chosen], dtypes, origin)
  try:
    return chosen, prefix, {n: pytorch.to_numpy(tensor) for n, tensor in floats.items()}
  except (RuntimeError, TypeError, MemoryError) as error:
    raise UserError(f'weights {origin}: is damaged: {one_line(error)}') from error


def _floats(
  tensors: Mapping[str, Any], dtypes: Mapping[str, str], origin: str
) -> dict[str, Any]:
  """Returns the tensors that may be weights, without buffers of integers and bools."""
  kept, others = {}, []
  for name, tensor in tensors.items():
    if any('\ud800' <= c <= '\udfff' for c in name):
      raise UserError(f'weights {origin}: is damaged: {short(name)} is no text')
    if dtypes[name] in (*_FLOATS, *_TORCH_FLOATS):
      kept[name] = tensor
    elif name.rpartition('.')[2] in _WEIGHTS:
      raise _no_float(origin, name, dtypes[name])
    else:
      others.append(name)
  if others and not kept:
    raise _no_float(origin, others[0], dtypes[others[0]])
  if not kept:
    raise UserError(f'weights {origin}: the file holds no tensor')
  return kept


def _no_float(origin: str, name: str, dtype: str) -> UserError:
  return UserError(
    f'weights {origin}: {short(name)} is {dtype}; weights must be floating point of 16, '
    '32 or 64 bits'
  )
