"""Orbax: how a state and a record lie on disk, and what writes them in the background.

Importing Orbax takes a fifth of a second, so this module is imported when the first
checkpoint is written or read.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

PyTree = Any


class _NumpyHandler(ocp.type_handlers.NumpyHandler):
  """Orbax's reader and writer of arrays, which ends all it began before it fails.

  Orbax closes its event loop as soon as one array fails. The reads and writes of the
  others then end without a loop to tell, each with a page of traceback.
  """

  def __init__(self):
    super().__init__(deepcopy_host_arrays=False)  # `to_host` has copied

  async def _background_serialize(
    self, values: Sequence[Any], infos: Sequence[Any], args: Any = None
  ) -> None:
    one_by_one = super()._background_serialize
    args = args or [ocp.SaveArgs()] * len(values)
    await _all(one_by_one([v], [i], [a]) for v, i, a in zip(values, infos, args))

  async def deserialize(self, infos: Sequence[Any], args: Any = None) -> list[Any]:
    one_by_one = super().deserialize
    args = args or [ocp.RestoreArgs()] * len(infos)
    found = await _all(one_by_one([i], [a]) for i, a in zip(infos, args))
    return [array for (array,) in found]

  async def metadata(self, infos: Sequence[Any]) -> list[Any]:
    one_by_one = super().metadata
    return [found for (found,) in await _all(one_by_one([i]) for i in infos)]


async def _all(operations: Any) -> list[Any]:
  """Waits for all of the operations; raises what the first that failed ran into."""
  results = await asyncio.gather(*operations, return_exceptions=True)
  for result in results:
    if isinstance(result, BaseException):
      raise result
  return results


def _state_handler() -> ocp.PyTreeCheckpointHandler:
  """Returns what reads and writes a state, from NumPy or, if distributed, JAX arrays."""
  types = ocp.type_handlers
  return ocp.PyTreeCheckpointHandler(
    type_handler_registry=types.create_type_handler_registry(
      (np.ndarray, _NumpyHandler()), (jax.Array, types.ArrayHandler())
    )
  )


def read_state(checkpoint: Path) -> PyTree:
  """Returns the state of a checkpoint as NumPy arrays, as they were written."""
  handler, directory = _state_handler(), checkpoint / 'state'
  read_as = ocp.RestoreArgs(restore_type=np.ndarray)
  tree = handler.metadata(directory).tree
  args = ocp.args.PyTreeRestore(restore_args=jax.tree.map(lambda _: read_as, tree))
  return handler.restore(directory, args=args)


class Writer:
  """Writes checkpoints in the background, one at a time."""

  def __init__(self):
    handlers = ocp.handlers.DefaultCheckpointHandlerRegistry()
    handler = _state_handler()
    handlers.add('state', ocp.args.PyTreeSave, handler)
    handlers.add('record', ocp.args.JsonSave, ocp.JsonCheckpointHandler())
    self._checkpointer = ocp.AsyncCheckpointer(
      ocp.CompositeCheckpointHandler(handler_registry=handlers)
    )

  def save(self, checkpoint: Path, state: PyTree, record: dict[str, Any]) -> None:
    """Starts to write a checkpoint: to a temporary name, and then to its own.

    Args:
      checkpoint: its directory, which does not exist.
      state: of NumPy arrays, or of JAX arrays that are sharded over processes.
      record: JSON.
    """
    self._checkpointer.save(
      checkpoint,
      args=ocp.args.Composite(
        state=ocp.args.PyTreeSave(state), record=ocp.args.JsonSave(record)
      ),
    )

  def wait(self) -> None:
    """Waits until the checkpoint is on disk; raises what was in the way."""
    self._checkpointer.wait_until_finished()

  def close(self) -> None:
    """Waits, and ends the threads."""
    self._checkpointer.close()
