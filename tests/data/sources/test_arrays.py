"""Data sets of arrays: labels of every kind, and mistakes with the way to mend them."""

import numpy as np
import pytest

from jaxvision.data import ArraySource, from_arrays
from jaxvision.data.sources.arrays import as_dataset
from jaxvision.errors import UserError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 5, 4, 3), np.uint8)
CLASSES = np.arange(12) % 3


def _labels(dataset, split='train'):
  return dataset.splits[split].labels


def test_images_and_statistics():
  dataset = from_arrays((IMAGES, CLASSES), (IMAGES[:4], CLASSES[:4]), name='mine')
  assert (dataset.name, dataset.label_kind, dataset.pipeline) == (
    'mine',
    'class',
    'resident',
  )
  assert list(dataset.splits) == ['train', 'test']
  assert dataset.splits['train'].images is IMAGES
  assert dataset.image_shape == (5, 4, 3)
  assert dataset.class_names == ('0', '1', '2')
  unit = IMAGES / 255
  np.testing.assert_allclose(dataset.mean, unit.mean((0, 1, 2)))
  np.testing.assert_allclose(dataset.std, unit.std((0, 1, 2)))
  assert dataset.measured


def test_grey_images_get_a_channel_and_given_statistics_stay():
  dataset = from_arrays((IMAGES[..., 0], CLASSES), mean=[0.5], std=[0.25])
  assert dataset.image_shape == (5, 4, 1)
  assert (dataset.mean, dataset.std, dataset.measured) == ((0.5,), (0.25,), False)


@pytest.mark.parametrize(
  ('labels', 'class_names', 'names', 'numbers'),
  [
    (CLASSES * 10 - 10, None, ('-10', '0', '10'), CLASSES),
    (CLASSES[:, None], None, ('0', '1', '2'), CLASSES),
    (CLASSES.astype(np.uint8), ('a', 'b', 'c'), ('a', 'b', 'c'), CLASSES),
    (np.array(['dog', 'cat'])[CLASSES % 2], None, ('cat', 'dog'), 1 - CLASSES % 2),
    (['dog', 'cat'] * 6, ('dog', 'cat'), ('dog', 'cat'), np.arange(12) % 2),
    (CLASSES == 0, None, ('False', 'True'), CLASSES == 0),
  ],
)
def test_class_labels_become_numbers(labels, class_names, names, numbers):
  dataset = from_arrays((IMAGES, labels), class_names=class_names)
  assert dataset.class_names == names
  assert _labels(dataset).dtype == np.int32
  assert _labels(dataset).tolist() == np.asarray(numbers, int).tolist()
  assert dataset.label_shape == ()


def test_test_labels_take_the_classes_of_train():
  labels = np.array(['b', 'a', 'c'])[CLASSES]
  dataset = from_arrays((IMAGES, labels), (IMAGES[:2], ['c', 'a']))
  assert _labels(dataset, 'test').tolist() == [2, 0]


@pytest.mark.parametrize(
  ('labels', 'kind', 'expected', 'dtype', 'names'),
  [
    (RNG.integers(0, 2, (12, 4)), None, 'multilabel', np.uint8, tuple('0123')),
    (RNG.random((12, 4)), 'multilabel', 'multilabel', np.float32, tuple('0123')),
    (RNG.random(12), None, 'regression', np.float32, ('y',)),
    (RNG.random((12, 2)), None, 'regression', np.float32, ('y0', 'y1')),
    (RNG.random((12, 1)), None, 'regression', np.float32, ('y',)),
    (np.arange(12), 'regression', 'regression', np.float32, ('y',)),
    (np.eye(3)[CLASSES], 'multilabel', 'multilabel', np.float32, tuple('012')),
  ],
)
def test_other_kinds_of_labels(labels, kind, expected, dtype, names):
  dataset = from_arrays((IMAGES, labels), kind=kind)
  assert dataset.label_kind == expected
  assert dataset.class_names == names
  assert _labels(dataset).dtype == dtype
  np.testing.assert_allclose(_labels(dataset), labels, rtol=1e-6)
  assert dataset.label_shape == labels.shape[1:]


def test_fingerprint_depends_on_everything_but_where_it_is():
  base = from_arrays((IMAGES, CLASSES)).fingerprint
  assert len(base) == 64
  assert from_arrays((IMAGES.copy(), list(CLASSES)), name='other').fingerprint == base
  changed = IMAGES.copy()
  changed[3, 2, 1, 0] ^= 1
  others = [
    from_arrays((changed, CLASSES)),
    from_arrays((IMAGES, CLASSES[::-1])),
    from_arrays((IMAGES[:11], CLASSES[:11])),
    from_arrays((IMAGES, CLASSES), class_names='abc'),
    from_arrays((IMAGES, CLASSES), (IMAGES, CLASSES)),
  ]
  assert len({base, *(dataset.fingerprint for dataset in others)}) == 6


def test_mapped_files_stay_mapped(tmp_path):
  np.save(tmp_path / 'images.npy', IMAGES)
  mapped = np.load(tmp_path / 'images.npy', mmap_mode='r')
  source = from_arrays((mapped, CLASSES)).splits['train']
  assert isinstance(source, ArraySource)
  assert source.images is mapped


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (
      {'train': (IMAGES / 255, CLASSES)},
      r'float64.*\(images \* 255\)\.round\(\)\.astype',
    ),
    ({'train': (IMAGES.astype(int), CLASSES)}, r'int64.*images\.astype\(np\.uint8\)'),
    ({'train': (np.array([1, None]), [0, 1])}, r'object.*np\.stack'),
    ({'train': (IMAGES[0, 0], CLASSES[:4])}, r'are 4x3, and must be \[n, H, W, C\]'),
    ({'train': (IMAGES[:0], CLASSES[:0])}, 'train images are empty'),
    (
      {'train': (np.zeros((12, 3, 8, 8), np.uint8), CLASSES)},
      r'channels first: pass images\.transpose\(0, 2, 3, 1\)',
    ),
    ({'train': (IMAGES, CLASSES[1:])}, '12 images and 11 labels'),
    ({'train': (IMAGES, np.r_[np.nan, np.ones(11)])}, 'label 0 is nan'),
    ({'train': (IMAGES, np.array([None] * 12))}, r'labels are object.*astype\(str\)'),
    ({'train': (IMAGES, np.zeros(12, int))}, "all labels are '0'"),
    (
      {'train': (IMAGES, CLASSES), 'class_names': 'ab'},
      r'label 2.*0 to 1 of class_names',
    ),
    ({'train': (IMAGES, CLASSES), 'class_names': 'abcd'}, 'class "d" has no training'),
    (
      {'train': (IMAGES, CLASSES), 'test': (IMAGES, CLASSES + 1)},
      'test label 3 is not',
    ),
    (
      {'train': (IMAGES, CLASSES), 'test': (IMAGES[:, 1:], CLASSES)},
      'test images are 4x4x3',
    ),
    ({'train': (IMAGES, np.eye(3)[CLASSES])}, r'one-hot.*labels\.argmax\(1\)'),
    ({'train': (IMAGES, CLASSES), 'kind': 'multilabel'}, r'multiple labels must be'),
    (
      {'train': (IMAGES, CLASSES[:, None] * 2.0), 'kind': 'multilabel'},
      r'lie in \[0\.0, 4\.0\]',
    ),
    (
      {'train': (IMAGES, CLASSES / 2), 'kind': 'class'},
      'classes must be integers or strings',
    ),
    (
      {'train': (IMAGES, ['a', 'b'] * 6), 'kind': 'regression'},
      'a regression needs numbers',
    ),
    ({'train': (IMAGES, CLASSES), 'kind': 'clas'}, 'did you mean "class"'),
    (
      {'train': (IMAGES, RNG.random((12, 2))), 'class_names': 'abc'},
      '3 names for 2 columns',
    ),
    ({'train': (IMAGES, CLASSES), 'mean': (0.5,) * 3}, 'mean and std together'),
    (
      {'train': (IMAGES, CLASSES), 'mean': (0.5,), 'std': (0.5,)},
      '1 numbers for images of 3',
    ),
    (
      {'train': (IMAGES, CLASSES), 'mean': (0.5,) * 3, 'std': (0.0,) * 3},
      'std must be above',
    ),
    ({'train': IMAGES}, r'train must be \(images, labels\)'),
  ],
)
def test_mistakes_are_one_line_with_the_way_to_mend_them(arguments, message):
  with pytest.raises(UserError, match=message) as caught:
    from_arrays(**arguments)
  assert '\n' not in str(caught.value)


def test_pairs_tuples_and_dicts():
  pair = IMAGES, CLASSES
  assert as_dataset(pair, 'x').fingerprint == from_arrays(pair).fingerprint
  assert list(as_dataset((pair, pair), 'x').splits) == ['train', 'test']
  assert list(as_dataset((pair, pair, pair), 'x').splits)[2] == 'validation'
  named = as_dataset({'train': pair, 'class_names': 'abc'}, 'x')
  assert named.class_names == ('a', 'b', 'c')
  assert as_dataset(named, 'x') is named


@pytest.mark.parametrize(
  ('value', 'message'),
  [
    (None, r'x must be a Dataset.*not NoneType'),
    ({'trian': (IMAGES, CLASSES)}, 'did you mean "train"'),
    ({'test': (IMAGES, CLASSES)}, 'no "train"'),
  ],
)
def test_anything_else_is_refused(value, message):
  with pytest.raises(UserError, match=message):
    as_dataset(value, 'x')
