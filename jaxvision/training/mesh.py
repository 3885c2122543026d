"""Devices as a mesh, and where batches and parameters lie on it."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from jaxvision.errors import UserError

# Smaller leaves cost more in messages than they save in memory.
_SMALLEST_SHARDED = 2**14


def make_mesh(
  data: int = -1, fsdp: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Returns the mesh of `data` x `fsdp` devices; data -1 takes all that there are.

  Args:
    data, fsdp: see the config's `parallel`.
    devices: that there are; None: those of JAX.

  Raises:
    UserError: there are not so many devices.
  """
  devices = jax.devices() if devices is None else devices
  wanted = data
  data = len(devices) // fsdp if data == -1 else data
  if data * fsdp > len(devices) or data == 0:
    raise UserError(
      f'config: parallel.data={wanted} x parallel.fsdp={fsdp} asks for more than '
      f'the {len(devices)} {devices[0].platform} device(s) at hand'
    )
  if data * fsdp != len(devices) and jax.process_count() > 1:
    raise UserError(
      f'config: parallel.data={wanted} x parallel.fsdp={fsdp} leaves out some of the '
      f'{len(devices)} devices of {jax.process_count()} processes: take all with '
      'parallel.data=-1, or start fewer processes'
    )
  grid = np.array(devices[: data * fsdp]).reshape(data, fsdp)
  # Auto: the compiler propagates shardings, so the model needs no annotations.
  return Mesh(grid, ('data', 'fsdp'), axis_types=(AxisType.Auto, AxisType.Auto))


def local_mesh() -> Mesh:
  """Returns the mesh of one device of this process, which others take no part in."""
  grid = np.array(jax.local_devices()[:1]).reshape(1, 1)
  return Mesh(grid, ('data', 'fsdp'), axis_types=(AxisType.Auto, AxisType.Auto))


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of a value that every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of a batch: its first axis split over all devices."""
  return NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))


def state_shardings(mesh: Mesh, state: Any) -> Any:
  """Returns a sharding for each leaf of an abstract state.

  With `fsdp` above 1, a leaf of 2**14 elements or more is split along its largest axis
  that divides (fully sharded data parallelism, Rajbhandari et al. 2020, stage 3);
  everything else is replicated.
  """
  parts = mesh.shape['fsdp']

  def sharding(leaf: Any) -> NamedSharding:
    axes = [i for i, size in enumerate(leaf.shape) if size % parts == 0]
    if parts == 1 or not axes or math.prod(leaf.shape) < _SMALLEST_SHARDED:
      return replicated(mesh)
    largest = max(axes, key=lambda i: leaf.shape[i])
    spec = [None] * len(leaf.shape)
    spec[largest] = 'fsdp'
    return NamedSharding(mesh, PartitionSpec(*spec))

  return jax.tree.map(sharding, state)


def check_batch(mesh: Mesh, config: ConfigDict) -> None:
  """Raises UserError where the batch does not split evenly over devices and parts."""
  whole = mesh.size * config.grad_accumulation
  if config.batch_size % whole:
    near = max(whole, round(config.batch_size / whole) * whole)
    raise UserError(
      f'config: batch_size {config.batch_size} does not split over {mesh.size} devices'
      + (f' x grad_accumulation {config.grad_accumulation}' * (whole > mesh.size))
      + f': take {near}, or fewer devices with --config.parallel.data'
    )
