"""Arrays on devices of which some may be those of other processes, and back."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np


def place(values: Any, sharding: jax.sharding.Sharding) -> Any:
  """Puts the same values, which every process has whole, where a sharding wants them.

  As `jax.device_put`, also where some of the devices are those of other processes.

  Args:
    values: a tree of arrays, or of keys of `jax.random`.
    sharding: of every leaf.
  """

  def placed(value: Any) -> jax.Array:
    if sharding.is_fully_addressable:
      return jax.device_put(value, sharding)
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(
      value.dtype, jax.dtypes.prng_key
    ):
      data = placed(np.asarray(jax.random.key_data(value)))
      impl = jax.random.key_impl(value)
      wrap = functools.partial(jax.random.wrap_key_data, impl=impl)
      return jax.jit(wrap, out_shardings=sharding)(data)
    array = np.asarray(value)
    return jax.make_array_from_callback(
      array.shape, sharding, lambda index: array[index]
    )

  return jax.tree.map(placed, values)


def fetch(array: jax.Array) -> np.ndarray:
  """Returns a whole array on the host, in every process; each has to call it."""
  if array.is_fully_addressable or array.is_fully_replicated:
    return np.asarray(array)
  from jax.experimental import multihost_utils  # of use to few

  return multihost_utils.process_allgather(array, tiled=True)


def flags(flag: bool) -> np.ndarray:
  """Returns the flag of every process, bool [processes]; each has to call it."""
  if jax.process_count() == 1:
    return np.array([flag])
  from jax.experimental import multihost_utils

  return multihost_utils.process_allgather(np.array(flag))


def everywhere(flag: bool) -> bool:
  """Returns whether a flag is true in every process; each has to call it."""
  return bool(flags(flag).all())


def shared_map(
  function: Callable[[np.ndarray], tuple[np.ndarray, ...]],
  batches: Iterable[np.ndarray],
  size: int,
) -> Iterator[tuple[np.ndarray, ...]]:
  """Yields what a function makes of batches, which the processes share out.

  Every process has all the batches and gets all the results, in order, as of one process.

  Args:
    function: [n, ...] -> arrays [n, ...], of the same shapes but for n.
    batches: [n, ...] each, n at most `size`.
    size: see `batches`.
  """
  index, count = jax.process_index(), jax.process_count()
  if count == 1:
    yield from map(function, batches)
    return
  from jax.experimental import multihost_utils

  left = iter(batches)
  while turn := list(itertools.islice(left, count)):
    mine = function(turn[index if index < len(turn) else 0])
    padded = [np.pad(a, [(0, size - len(a)), *[(0, 0)] * (a.ndim - 1)]) for a in mine]
    gathered = multihost_utils.process_allgather(padded)
    for number, batch in enumerate(turn):
      yield tuple(array[number, : len(batch)] for array in gathered)
