"""The digits of scikit-learn, read without it."""

import importlib.util
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from jaxvision.data.decode import PLAIN
from jaxvision.data.sources.digits import open_digits
from jaxvision.data.sources.source import Decoding


def check():
  opened = open_digits(Decoding(0, 0, PLAIN, False))
  levels, labels = load_digits(return_X_y=True)
  source = opened.pools['train']
  expected = np.round(levels * (255 / 16)).reshape(-1, 8, 8, 1)
  np.testing.assert_array_equal(source.images, expected)
  np.testing.assert_array_equal(source.labels, labels)
  assert source.images.dtype == np.uint8
  assert source.labels.dtype == np.int32


def test_digits_are_those_of_scikit_learn():
  check()


def test_digits_come_from_scikit_learn_where_their_file_is_elsewhere(monkeypatch):
  find_spec = importlib.util.find_spec

  def moved(name, *args):
    found = find_spec(name, *args)
    if name == 'sklearn':
      found.origin = str(Path('/nowhere/sklearn/__init__.py'))
    return found

  monkeypatch.setattr(importlib.util, 'find_spec', moved)
  check()
