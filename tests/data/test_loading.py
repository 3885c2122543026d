"""`load` on the sets that are always there, its splits, statistics and errors."""

import subprocess
import sys

import chex
import numpy as np
import pytest

from jaxvision import config
from jaxvision.data import ArraySource, Dataset, fit_image, from_arrays, load
from jaxvision.data.dataset import Source, read_many
from jaxvision.errors import UserError


def _images(source):
  return np.stack([source[i][0] for i in range(len(source))])


def test_digits_are_the_whole_set_split_by_class():
  dataset = load('digits')
  train, test = dataset.splits['train'], dataset.splits['test']
  assert (len(train), len(test)) == (1438, 359)
  assert dataset.class_names == tuple('0123456789')
  assert dataset.num_classes == 10
  assert not dataset.synthetic
  assert train.images.dtype == np.uint8
  chex.assert_shape(train.images, (1438, 8, 8, 1))
  assert (train.images.min(), train.images.max()) == (0, 255)
  share = np.bincount(test.labels) / np.bincount(np.r_[train.labels, test.labels])
  assert np.abs(share - 0.2).max() < 0.01
  unit = train.images / 255
  np.testing.assert_allclose(dataset.mean, unit.mean((0, 1, 2)))
  np.testing.assert_allclose(dataset.std, unit.std((0, 1, 2)))


def test_digits_can_be_resized_and_coloured():
  dataset = load('digits', image_size=12, channels=3)
  assert dataset.image_shape == (12, 12, 3)
  chex.assert_shape(dataset.splits['test'].images, (359, 12, 12, 3))


def test_validation_is_carved_from_train_and_leaves_test_alone():
  whole, carved = load('digits'), load('digits', train_fraction=0.9)
  train, validation = carved.splits['train'], carved.splits['validation']
  assert len(train) + len(validation) == len(whole.splits['train'])
  assert len(validation) == 144
  assert np.bincount(validation.labels).min() >= 13
  chex.assert_trees_all_equal(
    _images(carved.splits['test']), whole.splits['test'].images
  )
  both = np.concatenate([train.images, validation.images]).reshape(1438, -1)
  before = whole.splits['train'].images.reshape(1438, -1)
  chex.assert_trees_all_equal(both[np.lexsort(both.T)], before[np.lexsort(before.T)])
  np.testing.assert_allclose(carved.mean, (train.images / 255).mean((0, 1, 2)))


def test_split_seed_and_nothing_else_chooses_the_split():
  first, again = load('digits'), load('digits', pipeline='streaming')
  other = load('digits', split_seed=1)
  labels = first.splits['test'].labels
  chex.assert_trees_all_equal(labels, again.splits['test'].labels)
  assert not np.array_equal(first.splits['test'].images, other.splits['test'].images)


@pytest.mark.parametrize('channels', [1, 3])
def test_synthetic_says_so_and_is_the_same_in_both_pipelines(channels):
  fields = {'synthetic_examples': 40, 'synthetic_classes': 4, 'image_size': 9}
  fields |= {'channels': channels, 'train_fraction': 0.75}
  resident = load('synthetic', **fields)
  streaming = load('synthetic', pipeline='streaming', **fields)
  assert resident.synthetic
  assert resident.image_shape == (9, 9, channels)
  assert {s: len(v) for s, v in resident.splits.items()} == {
    'train': 30,
    'test': 10,
    'validation': 10,
  }
  for name, source in resident.splits.items():
    assert isinstance(source, ArraySource)
    assert isinstance(streaming.splits[name], Source)
    chex.assert_trees_all_equal(source.images, _images(streaming.splits[name]))
    chex.assert_trees_all_equal(source.labels, streaming.splits[name].labels)
  assert (resident.mean, resident.std) == (streaming.mean, streaming.std)


def test_synthetic_can_be_learned():
  from sklearn.linear_model import LogisticRegression

  dataset = load('synthetic', synthetic_examples=300, synthetic_classes=3)
  train, test = dataset.splits['train'], dataset.splits['test']
  model = LogisticRegression(max_iter=50).fit(
    train.images.reshape(len(train), -1) / 255, train.labels
  )
  score = model.score(test.images.reshape(len(test), -1) / 255, test.labels)
  assert score > 0.6


def test_size_chooses_the_pipeline():
  fields = {'synthetic_examples': 400, 'image_size': 32, 'channels': 3}
  assert load('synthetic', **fields).pipeline == 'resident'
  dataset = load('synthetic', resident_limit_mb=1, **fields)
  assert dataset.pipeline == 'streaming'
  assert not isinstance(dataset.splits['train'], ArraySource)


def test_a_set_past_the_limit_is_measured_on_a_sample(monkeypatch):
  monkeypatch.setattr('jaxvision.data.statistics.STATISTICS_SAMPLE', 50)
  fields = {'name': 'synthetic', 'synthetic_examples': 200, 'resident_limit_mb': 0}
  streamed = load(**{'data': fields.pop('name'), **fields})
  resident = load('synthetic', pipeline='resident', **fields)
  assert streamed.pipeline == 'streaming'
  assert (streamed.mean, streamed.std) == (resident.mean, resident.std)
  whole = load('synthetic', synthetic_examples=200)
  assert whole.mean != streamed.mean
  np.testing.assert_allclose(whole.mean, streamed.mean, rtol=0.15)


def test_given_statistics_are_taken():
  dataset = load('digits', mean=(0.5,), std=(0.25,))
  assert (dataset.mean, dataset.std) == ((0.5,), (0.25,))


def test_a_section_of_a_config_is_loaded_and_left_alone():
  data = config.base_config().data
  assert len(load(data, test_fraction=0.5).splits['test']) == 898
  assert data.test_fraction == 0.2


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'mean': (0.5, 0.5), 'std': (0.5, 0.5)}, 'data.mean has 2 numbers.* 1 channel'),
    ({'mean': (0.5,), 'std': (0.0,)}, 'data.std must be'),
    ({'train_fractoin': 0.5}, 'did you mean "data.train_fraction"'),
    ({'test_fraction': 1.5}, 'data.test_fraction must be'),
    ({'pipeline': 'fast'}, 'one of auto, resident, streaming'),
    ({'channels': 2}, 'data.channels must be 0, 1 or 3'),
    ({'image_size': 'big'}, 'data.image_size takes a value of type int'),
    ({'name': 'folder'}, '--config.data.root=DIR'),
    ({'name': 'synthetic', 'synthetic_examples': 5}, 'fewer than'),
  ],
)
def test_impossible_fields_are_told_in_one_line(fields, message):
  name = fields.pop('name', 'digits')
  with pytest.raises(UserError, match=message) as caught:
    load(name, **fields)
  assert '\n' not in str(caught.value)


def test_nothing_imports_tensorflow_or_jax():
  program = (
    'import sys; from jaxvision import data; data.load("digits"); '
    'print({"tensorflow", "jax", "tensorflow_datasets"} & set(sys.modules))'
  )
  done = subprocess.run(
    [sys.executable, '-c', program], capture_output=True, text=True, check=True
  )
  assert done.stdout.strip() == 'set()'


def test_reading_many_equals_reading_one_by_one():
  source = load('synthetic', pipeline='streaming').splits['train']
  for i, (image, label) in zip([3, 1], read_many(source, [3, 1])):
    chex.assert_trees_all_equal(image, source[i][0])
    assert label == source.labels[i]


@pytest.mark.parametrize('pipeline', ['resident', 'streaming'])
@pytest.mark.parametrize('name', ['digits', 'synthetic'])
def test_examples_per_class_keeps_some_of_each(name, pipeline):
  fields = {'train_fraction': 0.8, 'pipeline': pipeline}
  whole = load(name, **fields)
  few, more, other = (
    load(name, examples_per_class=k, split_seed=seed, **fields)
    for k, seed in ((5, 0), (9, 0), (5, 1))
  )
  assert np.bincount(few.splits['train'].labels).tolist() == [5] * 10
  assert len(more.splits['train']) == 90
  for split in ('validation', 'test'):
    chex.assert_trees_all_equal(
      _images(few.splits[split]), _images(whole.splits[split])
    )
  shown = [
    {image.tobytes() for image in _images(dataset.splits['train'])}
    for dataset in (few, more, whole)
  ]
  assert shown[0] < shown[1] < shown[2]  # few of them are among more of them
  images = _images(few.splits['train'])
  np.testing.assert_allclose(few.mean, (images / 255).mean((0, 1, 2)))
  assert not np.array_equal(images, _images(other.splits['train']))


def test_a_class_of_too_few_examples_is_named():
  with pytest.raises(UserError, match=r'examples_per_class is 200.*"8" has 139'):
    load('digits', examples_per_class=200)


@pytest.mark.parametrize('name', ['digits', 'synthetic'])
def test_a_crop_fraction_shows_the_centre(name):
  fields = {'synthetic_examples': 20, 'image_size': 8}
  plain, same = load(name, **fields), load(name, crop_fraction=1.0, **fields)
  chex.assert_trees_all_equal(plain.splits['test'].images, same.splits['test'].images)
  assert (plain.crop_fraction, plain.interpolation) == (1.0, 'bilinear')
  centre = load(name, crop_fraction=0.5, interpolation='bicubic', **fields)
  assert (centre.crop_fraction, centre.interpolation) == (0.5, 'bicubic')
  expected = fit_image(plain.splits['test'][0][0], (8, 8, 1), 0.5, 'bicubic')
  if name == 'digits':
    chex.assert_trees_all_equal(centre.splits['test'][0][0], expected)
  assert centre.mean != plain.mean


IMAGES = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 1), np.uint8)
LABELS = np.arange(40) % 4


def test_arrays_are_split_like_every_other_set():
  fields = {'train_fraction': 0.75, 'examples_per_class': 3, 'test_fraction': 0.3}
  dataset = load('digits', source=(IMAGES, LABELS), **fields)
  assert {s: len(v) for s, v in dataset.splits.items()} == {
    'train': 12,
    'test': 12,
    'validation': 7,
  }
  assert np.bincount(dataset.splits['train'].labels).tolist() == [3] * 4
  unit = dataset.splits['train'].images / 255
  np.testing.assert_allclose(dataset.mean, unit.mean((0, 1, 2)))
  again = load('digits', source=from_arrays((IMAGES, LABELS)), **fields)
  assert again.fingerprint == dataset.fingerprint
  other = load('digits', source=(IMAGES, LABELS), split_seed=1, **fields)
  assert other.fingerprint != dataset.fingerprint


def test_arrays_take_the_statistics_and_the_size_of_the_config():
  given = from_arrays((IMAGES, LABELS), mean=[0.5], std=[0.25])
  assert load('digits', source=given).mean == (0.5,)
  dataset = load(
    'digits', source=given, mean=(0.1,) * 3, std=(1.0,) * 3, image_size=3, channels=3
  )
  assert (dataset.mean, dataset.image_shape) == ((0.1,) * 3, (3, 3, 3))
  image = dataset.splits['test'].images[0]
  place = next(
    i for i in range(40) if np.array_equal(fit_image(IMAGES[i], (3, 3, 3)), image)
  )
  assert dataset.splits['test'].labels[0] == LABELS[place]
  with pytest.raises(UserError, match='need images of 1 or 3 channels'):
    load('digits', source=(np.zeros((40, 6, 6, 2), np.uint8), LABELS), image_size=3)


def test_regression_targets_are_split_and_streamed():
  targets = np.random.default_rng(0).random((40, 2))
  dataset = load('digits', source=(IMAGES, targets), pipeline='streaming')
  assert (dataset.label_kind, dataset.label_shape) == ('regression', (2,))
  assert len(dataset.splits['test']) == 8
  with pytest.raises(UserError, match='not class numbers'):
    load('digits', source=(IMAGES, targets), examples_per_class=2)


def test_a_loaded_set_is_left_as_it_is_or_refused():
  section = config.base_config().data
  dataset = load(section, train_fraction=0.9)
  assert load(section, source=dataset, train_fraction=0.9) is dataset
  given = load(section, source=dataset, train_fraction=0.9, mean=(0.0,), std=(1.0,))
  assert (given.mean, given.splits) == ((0.0,), dataset.splits)
  with pytest.raises(UserError, match='loaded with other fields'):
    load(section, source=dataset)


def test_a_data_set_of_another_source_is_decoded():
  class Squares:
    labels = np.arange(10, dtype=np.int32) % 2

    def __len__(self):
      return 10

    def __getitem__(self, index):
      return np.full((4, 4, 1), index, np.uint8), self.labels[index]

  made = Dataset(
    'squares',
    {'train': Squares()},
    ('even', 'odd'),
    (4, 4, 1),
    (0.0,),
    (1.0,),
    'streaming',
  )
  dataset = load('digits', source=made)
  assert dataset.pipeline == 'resident'
  values = [source.images[:, 0, 0, 0] for source in dataset.splits.values()]
  assert sorted(np.concatenate(values).tolist()) == list(range(10))
  with pytest.raises(UserError, match='uint8 4x4x1, and must be uint8 5x4x1'):
    load(
      'digits',
      source=Dataset(
        'x', made.splits, ('a', 'b'), (5, 4, 1), (0.0,), (1.0,), 'resident'
      ),
    )


def test_named_sets_have_a_fingerprint_of_their_splits():
  prints = {
    load('digits', **fields).fingerprint
    for fields in ({}, {'pipeline': 'streaming'}, {'split_seed': 1}, {'image_size': 9})
  }
  assert len(prints) == 3


def test_class_names_are_kept_as_they_may_be_shown():
  labels = np.array([0, 1] * 10, np.int32)
  images = np.zeros((20, 4, 4, 1), np.uint8)
  given = from_arrays((images, labels), class_names=['a\x1b[31m', 'b\udcff'])
  assert load(source=given, data='digits').class_names == (r'a\x1b[31m', r'b\xff')
