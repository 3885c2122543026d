"""A trained classifier and pictures, shared by the tests of the commands."""

from pathlib import Path

import pytest
from PIL import Image

import jaxvision
from jaxvision import config, data

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='session')
def finished(tmp_path_factory):
  """A finished short run on digits."""
  workdir = tmp_path_factory.mktemp('finished') / 'run'
  loaded = config.load(
    ROOT / 'configs' / 'digits_cnn.py', ['steps=200', 'parallel.data=1', 'report=False']
  )
  jaxvision.train(loaded, workdir, quiet=True)
  return workdir


@pytest.fixture
def pictures(tmp_path):
  """A folder of test digits as PNG files, and the labels."""
  test = data.load('digits').splits['test']
  folder = tmp_path / 'pictures'
  folder.mkdir()
  for i in range(20):
    Image.fromarray(test.images[i, :, :, 0]).save(folder / f'{i:02}.png')
  return folder, test.labels[:20]
