"""Compiles the train step for devices that are not there; a process of `scaling.py`.

`cpu` compiles for as many simulated devices as `JAX_NUM_CPU_DEVICES` says. XLA:CPU adds
what is bfloat16 in float32, and all of it in as few collectives as it can. `cuda`
compiles the program of NVIDIA H100s from their description, without a GPU or its
driver; it needs the packages of the extra `cuda12` or `cuda13`.

The step is that of `jaxvision train` over streamed images, with the operators that
accelerators get.
"""

import math
from typing import Any

import jax
import numpy as np
from collectives import collectives, totals
from jax.experimental import topologies
from links import DEVICES_PER_NODE
from ml_collections import ConfigDict
from sides import serve
from table import versions

from jaxvision.config import base_config, validate
from jaxvision.data.info import DatasetInfo
from jaxvision.models.cpu import portable_operators
from jaxvision.models.summary import summarize
from jaxvision.tasks.base import with_numbers
from jaxvision.training.mesh import make_mesh, over_batch, replicated
from jaxvision.training.run import Run
from jaxvision.training.step import step_options, streaming_step

_TRAINING_OVER_FORWARD = 3  # as `jaxvision.training.benchmark` counts

# The data sheet of an H100 SXM5 in the words of XLA.
_H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  device_memory_size: 84929347584
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
runtime_version { major: 12 minor: 9 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def imagenet_config(
  model: str,
  batch_size: int,
  data: int,
  fsdp: int,
  norm_scope: str,
  fields: dict[str, Any],
) -> ConfigDict:
  """Returns the config: ResNets by SGD with momentum, transformers by AdamW.

  Args:
    model: see `jaxvision.models`.
    batch_size: of all devices.
    data, fsdp, norm_scope: of `parallel`.
    fields: of the model, where they are not the defaults.
  """
  config = base_config()
  config.model = {'name': model, **fields}
  if model.startswith('resnet'):
    config.model.stem = 'imagenet'
    config.optimizer.name, config.optimizer.momentum = 'sgd', 0.9
  else:
    config.optimizer.name, config.optimizer.weight_decay = 'adamw', 0.1
  config.dtype, config.batch_size = 'bfloat16', batch_size
  config.parallel.data, config.parallel.fsdp = data, fsdp
  config.parallel.norm_scope = norm_scope
  config.steps = 1000  # more than any program knows of
  return validate(config)


def imagenet_info() -> DatasetInfo:
  """Returns the facts of ImageNet at 224x224."""
  return DatasetInfo(
    name='imagenet',
    class_names=tuple(map(str, range(1000))),
    image_shape=(224, 224, 3),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    examples={'train': 1_281_167, 'test': 50_000},
  )


def devices(backend: str, count: int) -> list[Any]:
  """Returns devices to compile for.

  Args:
    backend: 'cpu' or 'cuda'.
    count: of devices; those of CUDA are in nodes of eight.

  Raises:
    ValueError: this process has other devices, or JAX has no CUDA here.
  """
  if backend == 'cpu':
    if len(jax.devices()) < count:
      raise ValueError(f'{len(jax.devices())} simulated devices, not {count}')
    return jax.devices()[:count]
  within = math.gcd(count, DEVICES_PER_NODE)
  try:
    found = topologies.get_topology_desc(
      platform='cuda',
      topology_name='h100',
      target_config=_H100,
      topology=f'1x{count // within}x{within}',
    )
  except NotImplementedError as error:
    raise ValueError(
      "JAX has no CUDA here: pip install 'jax[cuda12]', or take --backend=cpu"
    ) from error
  return list(found.devices)


def lower(run: Run) -> jax.stages.Lowered:
  """Returns a run's first train step, traced without an array."""
  everywhere, split = replicated(run.mesh), over_batch(run.mesh)

  def like(value: Any, sharding: Any = everywhere) -> jax.ShapeDtypeStruct:
    dtype = jax.dtypes.canonicalize_dtype(value.dtype)
    return jax.ShapeDtypeStruct(value.shape, dtype, sharding=sharding)

  images = run.plan.images_per_step
  batch = {
    'image': np.broadcast_to(np.uint8(0), (images, *run.info.image_shape)),
    **{name: np.zeros(images, np.int32) for name in ('label', 'index', 'epoch')},
  }
  state = with_numbers(run.abstract_state(), run.config, like)
  metrics = jax.tree.map(like, jax.eval_shape(run.task.metrics.empty))
  batch = {name: like(value, split) for name, value in batch.items()}
  [(_, step), *_] = run.task.phases()
  program = jax.jit(streaming_step(run, step), **step_options(run, state))
  return program.lower(state, metrics, batch)


def count(
  model: str,
  device_count: int,
  fsdp: int,
  batch_size: int,
  backend: str,
  norm_scope: str = 'global',
  fields: dict[str, Any] | None = None,
) -> dict[str, Any]:
  """Compiles a model's step and returns what it communicates and computes, as JSON.

  Args:
    model: see `jaxvision.models`.
    device_count: that share the batch.
    fsdp: that share the state.
    batch_size: of a device.
    backend: see `devices`.
    norm_scope: of batch norms.
    fields: of the model, where they are not the defaults.
  """
  data = device_count // fsdp
  mesh = make_mesh(data, fsdp, devices(backend, device_count))
  config = imagenet_config(
    model, batch_size * device_count, data, fsdp, norm_scope, fields or {}
  )
  with portable_operators():
    run = Run.build(config, imagenet_info(), mesh=mesh)
    lowered = lower(run)
    forward = summarize(run.task.model, run.info.image_shape).flops
  compiled = lowered.compile()
  found = collectives(compiled.as_text())
  leaves = jax.tree.leaves(run.abstract_state().params)
  return {
    'parameters': sum(leaf.size for leaf in leaves),
    'flops': _TRAINING_OVER_FORWARD * forward * batch_size,
    # Of all operations, not only of products; None where XLA does not count.
    'xla_flops': (compiled.cost_analysis() or {}).get('flops'),
    # The state and the metrics alone are given away and taken back.
    'state_bytes': compiled.memory_analysis().alias_size_in_bytes,
    'collectives': totals(found, DEVICES_PER_NODE),
  }


def main() -> None:
  """Answers the parent's requests."""
  serve({'versions': versions, 'count': count})


if __name__ == '__main__':
  main()
