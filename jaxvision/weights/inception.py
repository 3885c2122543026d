"""The weights of `jaxvision.models.inception`, from the file that PyTorch's users share.

It is TensorFlow's network of 2015-12-05 in PyTorch's layouts, converted for pytorch-fid
and passed on by torch-fidelity under another name; the bytes are the same. Batch norms
are folded into their convolutions, in double precision.
"""

import contextlib
import hashlib
import http.client
import logging
import os
import re
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.data import cache
from jaxvision.errors import UserError
from jaxvision.models.inception import NUM_FEATURES, NUM_LOGITS, SIZE, InceptionV3
from jaxvision.models.paths import path_of
from jaxvision.weights import files
from jaxvision.weights.tensors import check_finite

URL = (
  'https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/'
  'pt_inception-2015-12-05-6726825d.pth'
)
SHA256 = '6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2'

# The name under which torch-fidelity passes the file on; one at hand is as good.
_ALIAS = 'weights-inception-2015-12-05-6726825d.pth'

# Of the batch norms in the file, as TensorFlow's graph has it.
_EPSILON = 1e-3
_NORM = ('weight', 'bias', 'running_mean', 'running_var')

# Our names of layers and blocks, and the file's; within blocks they are the same.
_NAMES = {
  'stem_1': 'Conv2d_1a_3x3',
  'stem_2': 'Conv2d_2a_3x3',
  'stem_3': 'Conv2d_2b_3x3',
  'stem_4': 'Conv2d_3b_1x1',
  'stem_5': 'Conv2d_4a_3x3',
  'mixed35_1': 'Mixed_5b',
  'mixed35_2': 'Mixed_5c',
  'mixed35_3': 'Mixed_5d',
  'reduce35': 'Mixed_6a',
  'mixed17_1': 'Mixed_6b',
  'mixed17_2': 'Mixed_6c',
  'mixed17_3': 'Mixed_6d',
  'mixed17_4': 'Mixed_6e',
  'reduce17': 'Mixed_7a',
  'mixed8_1': 'Mixed_7b',
  'mixed8_2': 'Mixed_7c',
}

_OFFLINE = (
  f'without a network, evaluation.features=PATH takes the path of {Path(URL).name}'
)
_SHOWN = 3  # names in a message
_CHUNK = 1 << 20  # bytes

_log = logging.getLogger(__name__)


def load(source: str = '') -> tuple[dict[str, Any], str]:
  """Returns the variables of `InceptionV3`, and which weights they are.

  Args:
    source: the file: .pth as published, or .safetensors with the same names. '': the
      published one, from the cache (`weights` in $JAXVISION_CACHE, by default
      ~/.cache/jaxvision) or else downloaded into it, 96 MB.

  Returns:
    {'params': ...} of float32 NumPy arrays, and the SHA-256 of the file in
    hexadecimal. Where that is not `SHA256`, it is a conversion of the published
    file, or other weights, in whose features no published number was taken.

  Raises:
    UserError: the file is not there and cannot be downloaded; it is no file of
      weights; its name ends, as PyTorch's do, in a hyphen and the first eight digits
      of a SHA-256 that it has not; a tensor is missing, of another shape or not finite.
  """
  path = Path(source).expanduser() if source else _published()
  if not path.is_file():
    raise UserError(
      f'weights {path}: there is no such file; it would be {Path(URL).name}, from {URL}'
    )
  weights = files.read(str(path))
  assert weights.sha256 is not None  # as of every file
  _check_name(path, weights.sha256)
  return _variables(weights.tensors, str(path)), weights.sha256


def _variables(tensors: Mapping[str, np.ndarray], origin: str) -> dict[str, Any]:
  """Returns the tensors of the file as variables of our module."""
  images = jnp.zeros((1, SIZE, SIZE, 3))
  shapes = jax.eval_shape(InceptionV3().init, jax.random.key(0), images)['params']
  leaves = jax.tree_util.tree_leaves_with_path(shapes)
  ours = {path_of(path): leaf.shape for path, leaf in leaves}
  kernels = {
    path.removesuffix('/kernel'): shape
    for path, shape in ours.items()
    if path.endswith('/kernel') and path != 'head/kernel'
  }
  _check(tensors, kernels, origin)
  check_finite(tensors, f'weights {origin}')
  params: dict[str, Any] = {
    'head': {'kernel': np.ascontiguousarray(tensors['fc.weight'].T)},
    'head_bias': tensors['fc.bias'],
  }
  for layer in kernels:
    kernel, bias = _folded(tensors, _name(layer))
    *block, branch = layer.split('/')
    inner = params.setdefault(block[0], {}) if block else params
    inner[branch] = {'kernel': kernel, 'bias': bias}
  return {'params': params}


def _name(layer: str) -> str:
  """Returns the file's name of a layer of ours.

  >>> _name('mixed35_1/branch5x5_2')
  'Mixed_5b.branch5x5_2'
  """
  block, *branch = layer.split('/')
  return '.'.join([_NAMES[block], *branch])


def _folded(
  tensors: Mapping[str, np.ndarray], name: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns kernel [h, w, C, F] and bias [F] of a convolution and its batch norm."""
  scale, shift, mean, variance = (
    tensors[f'{name}.bn.{part}'].astype(np.float64) for part in _NORM
  )
  scale /= np.sqrt(variance + _EPSILON)
  kernel = tensors[f'{name}.conv.weight'].transpose(2, 3, 1, 0) * scale
  return kernel.astype(np.float32, order='C'), (shift - mean * scale).astype(np.float32)


def _check(
  tensors: Mapping[str, np.ndarray],
  kernels: Mapping[str, tuple[int, ...]],
  origin: str,
) -> None:
  """Raises UserError unless the file has the tensors of this network and no others.

  Args:
    tensors: tensors of the file.
    kernels: our name of each convolution -> shape of its kernel, [h, w, C, F].
    origin: for the message.
  """
  expected = {'fc.weight': (NUM_LOGITS, NUM_FEATURES), 'fc.bias': (NUM_LOGITS,)}
  for layer, (height, width, channels, features) in kernels.items():
    name = _name(layer)
    expected[f'{name}.conv.weight'] = (features, channels, height, width)
    expected |= {f'{name}.bn.{part}': (features,) for part in _NORM}
  there = {name: array.shape for name, array in tensors.items()}
  problems = {
    'lacks': sorted(expected.keys() - there.keys()),
    'has, beyond it,': sorted(there.keys() - expected.keys()),
    'has in another shape': [
      f'{name} ({there[name]}, not {shape})'
      for name, shape in sorted(expected.items())
      if there.get(name, shape) != shape
    ],
  }
  for problem, names in problems.items():
    if names:
      more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
      raise UserError(
        f'weights {origin}: is not the Inception-v3 of FID ({Path(URL).name}): it '
        f'{problem} {", ".join(names[:_SHOWN])}{more}'
      )


def _check_name(path: Path, sha256: str) -> None:
  """Raises UserError if the file's name states the start of another SHA-256."""
  stated = re.search(r'-([0-9a-f]{8})$', path.stem)
  # A conversion keeps the digits of what it was made from.
  if stated and path.suffix != '.safetensors' and not sha256.startswith(stated[1]):
    raise UserError(
      f'weights {path}: its SHA-256 begins with {sha256[:8]}, and should with '
      f'{stated[1]}, as its name says: the file is damaged or another one; delete it '
      f'and get it again from {URL}'
    )


def _published() -> Path:
  """Returns where the published file lies, after downloading it if it does not yet."""
  folder = cache.directory('') / 'weights'
  path = folder / Path(URL).name
  for there in (path, folder / _ALIAS):
    if there.is_file():
      return there
  _log.info('downloading %s (96 MB) to %s', URL, folder)
  part = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  try:
    folder.mkdir(parents=True, exist_ok=True)
    sha256 = _download(part)
    if sha256 != SHA256:
      raise UserError(
        f'{URL} sent a file whose SHA-256 is {sha256[:8]}..., not {SHA256[:8]}...: '
        f'nothing was kept; try again, or {_OFFLINE}'
      )
    part.replace(path)
  except (OSError, http.client.HTTPException) as error:
    raise UserError(
      f'{URL} cannot be downloaded to {folder} ({_reason(error)}): {_OFFLINE}'
    ) from error
  finally:
    with contextlib.suppress(OSError):
      part.unlink()
  return path


def _download(path: Path) -> str:
  """Writes what the URL sends to `path` and returns its SHA-256."""
  sha256 = hashlib.sha256()
  with urllib.request.urlopen(URL, timeout=30) as response, path.open('wb') as file:
    while chunk := response.read(_CHUNK):
      sha256.update(chunk)
      file.write(chunk)
  return sha256.hexdigest()


def _reason(error: BaseException) -> str:
  """Returns what went wrong in a few words; of a failed connection, its own reason."""
  error = getattr(error, 'reason', error)
  return ' '.join(str(error).split())[:160] or type(error).__name__
