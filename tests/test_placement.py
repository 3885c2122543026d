"""Arrays on devices, and back."""

import jax
import numpy as np

from jaxvision.placement import everywhere, fetch, place, shared_map
from jaxvision.training.mesh import make_mesh, over_batch, replicated


def test_values_are_placed_and_fetched():
  mesh = make_mesh()
  values = {'x': np.arange(16.0).reshape(8, 2), 'n': np.int32(3)}
  placed = place(values, replicated(mesh))
  assert placed['x'].is_fully_replicated
  split = place(values['x'], over_batch(mesh))
  assert split.addressable_shards[0].data.shape == (8 // mesh.size, 2)
  np.testing.assert_array_equal(fetch(split), values['x'])
  key = place(jax.random.key(3), replicated(mesh))
  assert jax.random.bits(key) == jax.random.bits(jax.random.key(3))


def test_one_process_shares_with_nobody():
  assert everywhere(True)
  assert not everywhere(False)
  batches = [np.arange(3), np.arange(2)]
  found = list(shared_map(lambda batch: (2 * batch,), batches, 3))
  np.testing.assert_array_equal(found[1][0], [0, 2])
  assert len(found) == 2
