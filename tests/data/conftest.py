"""Shared by the tests of data: a cache of their own, and folders of small images."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch):
  """An empty cache directory for this test alone."""
  path = tmp_path / 'cache'
  monkeypatch.setenv('JAXVISION_CACHE', str(path))
  return path


@pytest.fixture
def image_folder(tmp_path, fresh_cache):
  """Makes ROOT/[SPLIT/]CLASS/NN.png out of seeded noise and returns ROOT."""

  def make(counts, size=(6, 5), mode='RGB', root='images', suffix='png'):
    rng = np.random.default_rng(0)
    for folder, count in counts.items():
      (tmp_path / root / folder).mkdir(parents=True, exist_ok=True)
      for i in range(count):
        shape = size if mode == 'L' else (*size, 3)
        pixels = rng.integers(0, 256, shape, np.uint8)
        file = tmp_path / root / folder / f'{i:02}.{suffix}'
        Image.fromarray(pixels).save(file)
    return tmp_path / root

  return make
