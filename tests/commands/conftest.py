"""A trained classifier and pictures, shared by the tests of the commands."""

import os
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


@pytest.fixture(scope='session')
def postgres():
  """A server of PostgreSQL: the one that is named, or else one of our own."""
  pytest.importorskip('psycopg', reason='psycopg comes with the extra "test"')
  import postgres as server_lib

  if url := os.environ.get('JAXVISION_TEST_POSTGRES'):
    yield server_lib.Given(url)
    return
  binaries = server_lib.find_binaries()
  if binaries is None:
    pytest.skip(
      'no server of PostgreSQL: install one, or name a URL in JAXVISION_TEST_POSTGRES'
    )
  try:
    server = server_lib.Server(binaries)
  except RuntimeError as error:
    pytest.skip(f'the server of PostgreSQL does not start here: {error}')
  yield server
  server.close()


@pytest.fixture
def database(postgres):
  """The URL of a database that is new, with its password."""
  import postgres as server_lib

  name = server_lib.create_database(postgres)
  yield postgres.url(name)
  server_lib.drop_database(postgres, name)
