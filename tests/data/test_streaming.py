"""Training batches: the two pipelines hold the same, example for example."""

import jax
import numpy as np
import pytest

from jaxvision.data import ArraySource, resident, streaming
from jaxvision.data.dataset import RelabelledSource, ResizedSource, SubsetSource
from jaxvision.data.order import coin, seed_words

STEPS, BATCH, N = 5, 6, 20


@pytest.fixture(scope='module')
def source():
  rng = np.random.default_rng(0)
  return ArraySource(
    rng.integers(0, 256, (N, 4, 4, 3), np.uint8), rng.integers(0, 5, N).astype(np.int32)
  )


def resident_batches(source, seed, classes=0):
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  split = resident.put(source, device, classes)
  largest = max(np.bincount(source.labels)) if classes else 0

  @jax.jit
  def batch(split, seed, step):
    (index,) = resident.train_indices(split, seed, step, BATCH, largest_class=largest)
    return resident.train_batch(split, index, step)

  return [batch(split, seed, np.int32(step)) for step in range(STEPS)]


@pytest.mark.parametrize('classes', [0, 5])
def test_resident_equals_streaming_also_after_a_resume(source, classes, monkeypatch):
  monkeypatch.setattr(
    streaming, '_ORDERED_AT_A_TIME', 2 * BATCH + 1
  )  # the third is alone
  expected = resident_batches(source, seed_words(7), classes)

  def start(state=None):
    return streaming.train_stream(
      source, 7, BATCH, STEPS, workers=0, state=state, balanced_classes=classes
    )

  stream = start()
  got = [next(stream), next(stream)]
  state = stream.state()
  stream.close()
  stream = start(state)
  got += list(stream)
  stream.close()
  assert len(got) == STEPS
  for ours, theirs in zip(expected, got):
    assert set(ours) == set(theirs) == {'image', 'label', 'index', 'epoch'}
    for name, value in theirs.items():
      assert ours[name].dtype == value.dtype
      np.testing.assert_array_equal(ours[name], value)


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize(
  'labels',
  [
    np.random.default_rng(1).integers(0, 2, (N, 3)).astype(np.uint8),
    np.random.default_rng(1).random((N, 2), np.float32),
    np.random.default_rng(1).random(N, np.float32),
  ],
  ids=['multilabel', 'several outputs', 'regression'],
)
def test_pipelines_keep_the_dtype_and_shape_of_labels(source, labels, workers):
  source = ArraySource(source.images, labels)
  expected = resident_batches(source, seed_words(1))
  stream = streaming.train_stream(source, 1, BATCH, STEPS, workers=workers)
  for ours, theirs in zip(expected, stream, strict=True):
    assert ours['label'].dtype == theirs['label'].dtype == labels.dtype
    np.testing.assert_array_equal(ours['label'], theirs['label'])
  stream.close()
  stream = streaming.eval_stream(source, 8, workers=0)
  batches = list(stream)
  stream.close()
  split = resident.put(source, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
  last = resident.eval_batch(split, 16, 8)
  assert last['label'].dtype == batches[2]['label'].dtype == labels.dtype
  np.testing.assert_array_equal(last['label'], batches[2]['label'])
  seen = np.concatenate([b['label'][b['mask']] for b in batches])
  np.testing.assert_array_equal(seen, labels)


@pytest.mark.parametrize('wrap', ['plain', 'subset', 'relabelled', 'listed'])
def test_batches_gathered_at_once_are_those_read_one_by_one(source, wrap):
  images, labels = source.images, source.labels
  if wrap == 'subset':
    indices = np.array([3, 3, 0, 17])
    source, images, labels = (
      SubsetSource(source, indices),
      images[indices],
      labels[indices],
    )
  elif wrap == 'relabelled':
    labels = (7 - labels).astype(np.int32)
    source = RelabelledSource(source, labels)
  elif wrap == 'listed':  # a source of the user's own has no `read_images`
    source = ResizedSource(source, (4, 4, 3))
  stream = streaming.eval_stream(source, 3, workers=0, repeat=True)
  for _ in range(2):
    batches = [next(stream) for _ in range(-(-len(labels) // 3))]
    mask = np.concatenate([batch['mask'] for batch in batches])
    for name, expected in (('image', images), ('label', labels)):
      got = np.concatenate([batch[name] for batch in batches])[mask]
      np.testing.assert_array_equal(got, expected)
      assert got.dtype == expected.dtype
  stream.close()


def test_an_image_of_another_shape_is_an_error():
  images = [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 1), np.uint8)]

  class Mixed:
    labels = np.zeros(2, np.int32)

    def __len__(self):
      return 2

    def __getitem__(self, index):
      return images[index], 0

  stream = streaming.eval_stream(Mixed(), 2, workers=0)
  with pytest.raises(ValueError, match='shape'):
    next(stream)
  stream.close()


def test_index_and_epoch_say_which_example_and_how_often(source):
  batches = resident_batches(source, seed_words(0))
  index = np.concatenate([b['index'] for b in batches])
  epoch = np.concatenate([b['epoch'] for b in batches])
  assert epoch.tolist() == [0] * N + [1] * (STEPS * BATCH - N)  # one batch has both
  assert sorted(index[:N]) == list(range(N))
  images = np.concatenate([b['image'] for b in batches])
  np.testing.assert_array_equal(images, source.images[index])


def test_a_seed_may_be_traced(source):
  split = resident.put(source, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
  step = np.int32(1)
  seed = 2**40 + 3
  plain = resident.train_indices(split, seed, step, BATCH, 2)
  traced = jax.jit(lambda words: resident.train_indices(split, words, step, BATCH, 2))
  np.testing.assert_array_equal(plain, traced(seed_words(seed)))


def test_coin_is_fair_and_the_same_in_numpy_and_jax():
  index = np.arange(20_000)
  bits = coin(seed_words(3), index)
  assert abs(bits.mean() - 0.5) < 0.02
  neighbours = (bits[1:] == bits[:-1]).mean()
  assert abs(neighbours - 0.5) < 0.02
  np.testing.assert_array_equal(bits, coin(seed_words(3), index, xp=jax.numpy))
  assert abs((bits == coin(seed_words(4), index)).mean() - 0.5) < 0.02
