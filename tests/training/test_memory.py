"""Memory: a resident set costs its bytes and little more, a streamed one some batches."""

import os
import subprocess
import sys

import numpy as np
import pytest

# Prints by how many MB the process grew, from before the data to after some steps on them.
RESIDENT = """
import sys, numpy as np
from jaxvision.data.dataset import ArraySource
from jaxvision.data import resident
import jax, jax.numpy as jnp
from jaxvision.training.mesh import make_mesh, replicated

def megabytes():
  for line in open('/proc/self/status'):
    if line.startswith('VmRSS'):
      return int(line.split()[1]) / 1000

everywhere = replicated(make_mesh())
@jax.jit
def step(split, i):
  (index,) = resident.train_indices(split, 0, i, 128)
  return resident.take(split, index)['image'].sum()
tiny = resident.put(ArraySource(np.zeros((200, 32, 32, 3), np.uint8), np.zeros(200)), everywhere)
jax.block_until_ready(step(tiny, jnp.int32(0)))
steps = {}  # compiled before it counts: what LLVM holds meanwhile is not the images'
for name in sys.argv[1:]:
  n = len(np.load(name, mmap_mode='r'))
  split = {
    'image': jax.ShapeDtypeStruct((n, 32, 32, 3), np.uint8, sharding=everywhere),
    'label': jax.ShapeDtypeStruct((n,), np.int32, sharding=everywhere),
  }
  steps[name] = step.lower(split, jnp.int32(0)).compile()
before = megabytes()
splits = []
for name in sys.argv[1:]:
  images = np.load(name, mmap_mode='r')
  split = resident.put(ArraySource(images, np.zeros(len(images), np.int32)), everywhere)
  for i in range(len(images) // 128 + 1):  # an epoch touches every page
    jax.block_until_ready(steps[name](split, jnp.int32(i)))
  splits.append(split)
print(megabytes() - before)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_resident_cifar_adds_at_most_200_megabytes(tmp_path):
  files = []
  for n in (50_000, 10_000):
    path = tmp_path / f'{n}.npy'
    np.save(path, np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), np.uint8))
    files.append(str(path))
  output = subprocess.run(
    [sys.executable, '-c', RESIDENT, *files],
    capture_output=True,
    text=True,
    check=True,
    env={**os.environ, 'JAX_NUM_CPU_DEVICES': '1'},
  ).stdout
  grown = float(output)
  assert 100 < grown <= 200  # 184 MB of pixels; less only if they had not been read


class Counting:
  """An endless-looking source that counts how far ahead of its reader it is read."""

  def __init__(self, n):
    self.n, self.reads = n, 0
    self.labels = np.broadcast_to(np.int32(0), n)

  def __len__(self):
    return self.n

  def __getitem__(self, index):
    self.reads += 1
    return np.zeros((4, 4, 1), np.uint8), index % 10


def test_streaming_prefetches_a_bounded_number_of_batches():
  import time

  from jaxvision.data.streaming import train_stream

  source = Counting(10**9)
  stream = train_stream(source, seed=0, batch_size=8, steps=10**6, workers=0)
  taken = 0
  for _ in range(5):
    next(stream)
    taken += 8
  time.sleep(0.5)  # let the threads run as far ahead as they will
  stream.close()
  assert source.reads - taken <= 8 * 16


@pytest.mark.slow
def test_stream_resumes_from_its_state():
  from jaxvision.data.dataset import ArraySource
  from jaxvision.data.streaming import train_stream

  # A class of the package: worker processes do not import the module of a test.
  source = ArraySource(np.zeros((50, 4, 4, 1), np.uint8), np.arange(50) % 10)
  for workers in (0, 2):
    whole = train_stream(source, 0, 8, 12, workers)
    batches = [next(whole) for _ in range(12)]
    with pytest.raises(StopIteration):
      next(whole)
    whole.close()
    stream = train_stream(source, 0, 8, 12, workers)
    for _ in range(5):
      next(stream)
    state = stream.state()
    stream.close()
    # The number of workers is part of the state: another wish does not break it.
    resumed = train_stream(source, 0, 8, 12, workers=7, state=state)
    rest = list(resumed)
    resumed.close()
    assert len(rest) == 7
    for ours, expected in zip(rest, batches[5:]):
      np.testing.assert_array_equal(ours['label'], expected['label'])


def test_hosts_split_each_batch():
  from jaxvision.data.streaming import train_stream

  whole = train_stream(Counting(50), 0, 8, 3, 0)
  parts = [train_stream(Counting(50), 0, 8, 3, 0, process=(i, 2)) for i in range(2)]
  for batch in whole:
    shared = np.concatenate([next(part)['label'] for part in parts])
    np.testing.assert_array_equal(shared, batch['label'])
  for stream in (whole, *parts):
    stream.close()
