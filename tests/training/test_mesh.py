"""How a state lies on the devices of a mesh."""

import jax
import jax.numpy as jnp

from jaxvision.training.mesh import make_mesh, state_shardings


def test_fsdp_splits_large_parameters():
  mesh = make_mesh(data=4, fsdp=2)
  shapes = {
    'large': jax.ShapeDtypeStruct((3, 3, 64, 128), jnp.float32),
    'small': jax.ShapeDtypeStruct((64,), jnp.float32),
  }
  shardings = state_shardings(mesh, shapes)
  assert shardings['large'].shard_shape((3, 3, 64, 128)) == (3, 3, 64, 64)
  assert shardings['small'].is_fully_replicated
