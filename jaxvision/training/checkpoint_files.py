"""The contents of one checkpoint: a state, and a record in JSON that checks it.

The record holds a checksum, the dtype and the shape of every leaf of the state, and a
checksum of itself. A flipped bit is found in either.
"""

import errno
import json
import os
import re
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.errors import UserError
from jaxvision.placement import place

PyTree = Any

FORMAT = 2  # 1: the record has no checksum of its own
_BY_CONTENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)


# Writing.


def _is_key(leaf: Any) -> bool:
  return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def to_host(leaf: Any) -> np.ndarray:
  """Returns a copy of an array on the host; of a PRNG key, of its data.

  On a CPU, `jax.device_get` is a view of memory that the next step takes over while the
  copy is still being written.
  """
  return np.array(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def is_whole(leaf: Any) -> bool:
  """Returns whether this process has all of an array, so that `to_host` can copy it."""
  if not isinstance(leaf, jax.Array):
    return True
  return leaf.is_fully_addressable or leaf.is_fully_replicated


def diverged(name: str, leaf: np.ndarray) -> bool:
  """Whether a leaf of a state, of any dtype, shows that training has diverged.

  That is NaN or infinity. Optimisers may begin with infinity, as the least loss so far,
  and what a metric has gathered says nothing of the weights.
  """
  known = jax.dtypes.issubdtype(leaf.dtype, np.inexact)
  if not known or name.startswith('metrics/'):
    return False
  if 'opt_state' in name:
    return bool(np.isnan(leaf).any())
  return not np.isfinite(leaf).all()


def storable(leaf: np.ndarray) -> np.ndarray | None:
  """Returns what Orbax can write for an array: its bits where the dtype is not NumPy's.

  None stands for an array without elements, which has nothing to write.
  """
  if not leaf.size:
    return None
  return leaf if leaf.dtype.isbuiltin == 1 else leaf.view(f'u{leaf.dtype.itemsize}')


def named_leaves(tree: PyTree) -> dict[str, Any]:
  """Returns the leaves of a tree by their paths, whatever containers they lie in.

  >>> named_leaves({'opt_state': ({'mu': 1}, [2])})
  {'opt_state/0/mu': 1, 'opt_state/1/0': 2}
  """
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in leaves
  }


def describe_leaves(host: PyTree) -> dict[str, dict[str, Any]]:
  """Returns name -> checksum, dtype and shape, for the record."""
  return {
    name: {
      'checksum': _checksum(leaf),
      'dtype': str(leaf.dtype),
      'shape': list(leaf.shape),
    }
    for name, leaf in named_leaves(host).items()
  }


def _checksum(leaf: np.ndarray) -> int:
  return zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8))


def seal(record: dict[str, Any]) -> dict[str, Any]:
  """Returns a record with its format and its checksum.

  >>> sealed = seal({'step': 320})
  >>> sealed['checksum'] == seal({'step': 360})['checksum']
  False
  """
  record = json.loads(json.dumps({**record, 'format': FORMAT}))
  return {**record, 'checksum': _checksum_of_record(record)}


def _checksum_of_record(record: dict[str, Any]) -> int:
  rest = {name: value for name, value in record.items() if name != 'checksum'}
  return zlib.crc32(json.dumps(rest, sort_keys=True).encode())


# Reading. ValueError and FileNotFoundError say that a checkpoint is damaged.


def read_record(checkpoint: Path) -> dict[str, Any]:
  """Returns the record of a checkpoint, checked; its metrics under 'metrics'."""
  record = json.loads((checkpoint / 'record' / 'metadata').read_bytes())
  if not isinstance(record, dict) or record.get('format') not in (1, FORMAT):
    raise ValueError('the record has no format that this version knows')
  sealed = record['format'] == FORMAT or 'checksum' in record
  if sealed and record.get('checksum') != _checksum_of_record(record):
    raise ValueError('the record does not have the checksum it was written with')
  if record.get('step') != int(checkpoint.name):
    raise ValueError(f'the record is of step {record.get("step")}')
  if record['format'] == 1:
    metrics = checkpoint / 'metrics' / 'metrics'
    record['metrics'] = json.loads(metrics.read_bytes()) if metrics.exists() else None
  return record


def read_state(checkpoint: Path, record: dict[str, Any]) -> dict[str, np.ndarray]:
  """Returns the leaves of a state by their names, as written and checked."""
  from jaxvision.training import checkpoint_format  # see there

  found = named_leaves(checkpoint_format.read_state(checkpoint))
  leaves = record.get('leaves')
  if leaves is None:
    _check_as_of_old(found, record.get('checksums'))
    return found
  for name, written in leaves.items():
    if 0 in written['shape']:
      found[name] = np.empty(written['shape'], written['dtype'])
  wrong = sorted(found.keys() ^ leaves.keys()) or [
    name
    for name, leaf in found.items()
    if list(leaf.shape) != leaves[name]['shape']
    or _checksum(leaf) != leaves[name]['checksum']
  ]
  if wrong:
    raise ValueError(f'{wrong[0]} does not have the checksum it was written with')
  return found


_KEYS = re.compile(r"\['([^']*)'\]|\.(\w+)|\[(\d+)\]")


def _check_as_of_old(
  found: dict[str, np.ndarray], checksums: dict[str, int] | None
) -> None:
  """Checks a state of format 1, whose record has checksums by the names of `keystr`."""
  if checksums is None:  # it was written by several processes
    return
  expected = {
    '/'.join(a or b or c for a, b, c in _KEYS.findall(name)): value
    for name, value in checksums.items()
  }
  for name, leaf in found.items():
    if _checksum(leaf) != expected.get(name):
      raise ValueError(f'{name} does not have the checksum it was written with')


def fit(
  found: dict[str, np.ndarray], abstract: PyTree, record: dict[str, Any], origin: Path
) -> PyTree:
  """Returns the state with the shardings wanted now, whatever they were then.

  Args:
    found: from `read_state`.
    abstract: shapes, dtypes and shardings.
    record: of the checkpoint.
    origin: the checkpoint, for messages.

  Raises:
    UserError: the checkpoint is of another state.
  """
  wanted, leaves = named_leaves(abstract), record.get('leaves') or {}
  for name in sorted(found.keys() | wanted.keys()):
    then = _kind(found.get(name), leaves.get(name, {}).get('dtype'))
    now = _kind(wanted.get(name))
    if then != now:
      raise UserError(
        f'{origin} is of another state: {name} is {then} there and {now} now, as after a '
        'change of the model, the optimiser or the number of classes: undo the change, '
        'choose another directory with --workdir=DIR, or start anew with --overwrite'
      )
  structure = jax.tree.structure(abstract)
  placed = [_place(found[name], leaf) for name, leaf in wanted.items()]
  return jax.tree.unflatten(structure, placed)


def _kind(leaf: Any, dtype: str | None = None) -> str:
  """Returns a dtype and a shape, as JAX prints them: float32[3,3]."""
  if leaf is None:
    return 'missing'
  if _is_key(leaf):
    leaf = jax.eval_shape(jax.random.key_data, leaf)
  return f'{dtype or leaf.dtype}[{",".join(map(str, leaf.shape))}]'


def _place(value: np.ndarray, wanted: jax.ShapeDtypeStruct) -> jax.Array:
  if _is_key(wanted):
    keys = jax.random.wrap_key_data(
      value, impl=jax.random.key_impl(jnp.empty(0, wanted.dtype))
    )
    return place(keys, wanted.sharding) if wanted.sharding else keys
  if value.dtype != wanted.dtype:
    value = value.view(wanted.dtype)  # stored as bits
  if wanted.sharding is None:
    return jnp.asarray(value)
  return jax.make_array_from_callback(
    value.shape, wanted.sharding, lambda index: value[index]
  )


def reason(error: BaseException) -> str:
  """Returns what was wrong at the bottom, in one line."""
  while error.__cause__ is not None:
    error = error.__cause__
  text = ' '.join(str(error).split()).split(' See full ')[0]
  return f'{type(error).__name__}: {text[:160]}'


def unreadable(error: BaseException, checkpoint: Path) -> str | None:
  """Returns why the files of a checkpoint cannot be read; None if they are damaged.

  Permissions, a failing disk, too many open files or too little memory say nothing of
  what the files hold.
  """
  cause: BaseException | None = error
  while cause is not None:
    number = cause.errno if isinstance(cause, OSError) else None
    # TensorStore wraps the system's error in its own words.
    wrapped = re.search(r"os_error_code='(\d+)'", str(cause))
    if number is None and wrapped:
      number = int(wrapped[1])
    if number is not None and number not in _BY_CONTENT:
      return os.strerror(number)
    if isinstance(cause, MemoryError):
      return 'out of memory'
    if 'RESOURCE_EXHAUSTED' in str(cause):  # memory or files
      return reason(cause)
    cause = cause.__cause__ or cause.__context__
  try:  # TensorStore may have passed over what the system said
    for file in checkpoint.rglob('*'):
      if file.is_file():
        with file.open('rb') as opened:
          while opened.read(1 << 20):
            pass
  except OSError as problem:
    if problem.errno not in _BY_CONTENT:
      return problem.strerror
  return None
