"""Data sets from a user's function: what it takes, returns and raises."""

import functools
import importlib.util

import numpy as np
import pytest

from jaxvision import config
from jaxvision.data import Dataset, load
from jaxvision.errors import UserError

PROGRAM = """
import numpy as np

def arrays():
  images = np.arange(20 * 4, dtype=np.uint8).reshape(20, 2, 2)
  return images, np.arange(20) % 2

def sized(data):
  images = np.zeros((20, data.image_size, 4, 1), np.uint8)
  return {'train': (images, ['a', 'b'] * 10), 'name': 'sized'}

def several(first, second):
  return arrays()

def broken():
  images, labels = arrays()
  return images.reshape(3, 3), labels

def nothing():
  pass

class Made:
  def __call__(self, data):
    return arrays()
"""


@pytest.fixture
def mine(tmp_path):
  file = tmp_path / 'mine.py'
  file.write_text(PROGRAM)
  spec = importlib.util.spec_from_file_location('mine', file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def _section(**changes):
  data = config.base_config().data
  data.update({'name': 'mine.py:load', **changes})
  return data


def test_a_function_without_arguments(mine):
  dataset = load(_section(), source=mine.arrays)
  assert isinstance(dataset, Dataset)
  assert dataset.name == 'mine.py:load'
  assert {s: len(v) for s, v in dataset.splits.items()} == {'train': 16, 'test': 4}


def test_a_function_of_the_section_and_other_callables(mine):
  dataset = load(_section(image_size=4, train_fraction=0.5), source=mine.sized)
  assert dataset.image_shape == (4, 4, 1)
  assert dataset.class_names == ('a', 'b')
  assert len(dataset.splits['validation']) == 8
  for callable_ in (mine.Made(), functools.partial(mine.sized, _section(image_size=4))):
    assert len(load(_section(), source=callable_).splits['test']) == 4


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('broken', r'data: broken: .*mine\.py:17: ValueError: cannot reshape'),
    ('several', 'several must take no argument or one.*first, second'),
    ('nothing', 'what nothing returned must be a Dataset.*not NoneType'),
  ],
)
def test_mistakes_in_a_function(mine, name, message):
  with pytest.raises(UserError, match=message) as caught:
    load(_section(), source=getattr(mine, name))
  assert '\n' not in str(caught.value)


def test_a_name_without_its_function():
  with pytest.raises(UserError, match='names a function: pass it'):
    load(_section())


def test_versions_of_tfds_are_not_functions(fresh_cache, monkeypatch, tmp_path):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  with pytest.raises(UserError, match='nothing_like_it:1.0.0'):
    load('nothing_like_it:1.0.0')


def test_arrays_are_read_in_both_pipelines_alike(mine):
  resident = load(_section(), source=mine.arrays)
  streaming = load(_section(pipeline='streaming'), source=mine.arrays)
  assert (resident.pipeline, streaming.pipeline) == ('resident', 'streaming')
  assert resident.fingerprint == streaming.fingerprint
  for split, source in resident.splits.items():
    other = streaming.splits[split]
    np.testing.assert_array_equal(source.labels, other.labels)
    for i in range(len(source)):
      np.testing.assert_array_equal(source[i][0], other[i][0])
