"""Where `sample`, `export`, `explore` and `compare` write, and what they refuse."""

import os
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import jaxvision
from jaxvision.commands import export as export_command
from jaxvision.commands.compare import compare
from jaxvision.commands.explore import explore
from jaxvision.commands.export import export
from jaxvision.commands.sample import sample
from jaxvision.data.info import DatasetInfo
from jaxvision.errors import UserError


class _Generator:
  origin = 'a test'

  def sample(self, count, seed, label):
    return np.full((count, 8, 8, 1), seed, np.uint8)


@pytest.fixture
def trained(monkeypatch, digits_config):
  """Stands in for a run, so that `export` need not load one."""
  dataset = jaxvision.data.load('digits')
  run = SimpleNamespace(
    config=digits_config,
    info=DatasetInfo.of(dataset),
    input_shape=(8, 8, 1),
    state=SimpleNamespace(eval_variables={'params': {'kernel': np.ones((2, 2))}}),
  )
  monkeypatch.setattr(export_command, 'load_run', lambda *_, **__: run)


def _sample(output):
  return sample(_Generator(), output, count=4)


def _sample_files(output):
  return sample(_Generator(), output, count=4, single=True)


def _export(output):
  return export('run', output, format='safetensors')


def _explore(output):
  return explore(jaxvision.base_config(), output)


def _compare(output):
  return compare(['one', 'two'], output)


FILES = pytest.mark.parametrize('write', [_sample, _export])
DIRECTORIES = pytest.mark.parametrize('write', [_sample_files, _explore, _compare])


@FILES
def test_link_as_output_stays_and_its_file_is_replaced(write, trained, tmp_path):
  target, link = tmp_path / 'target', tmp_path / 'link'
  target.write_text('old')
  link.symlink_to('target')
  write(link)
  assert link.is_symlink()
  assert target.stat().st_size > 50
  assert sorted(p.name for p in tmp_path.iterdir()) == ['link', 'target']


@FILES
def test_pipe_as_output_is_written_into(write, trained, tmp_path):
  pipe, read = tmp_path / 'pipe', []
  os.mkfifo(pipe)
  reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
  reader.start()
  write(pipe)
  reader.join(10)
  assert pipe.is_fifo()
  write(tmp_path / 'file')
  assert read == [(tmp_path / 'file').read_bytes()]


@FILES
def test_home_in_the_output_is_expanded(write, trained, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'home').mkdir()
  write('~/x')
  assert (tmp_path / 'home' / 'x').is_file()
  assert [p.name for p in tmp_path.iterdir()] == ['home']


def test_files_of_samples_go_to_a_directory_of_the_home(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  _sample_files('~/x')
  with Image.open(tmp_path / 'x' / 'sample_0_00003.png') as picture:
    assert picture.size == (8, 8)


@FILES
@pytest.mark.parametrize('output', ['gs://bucket/x', '{tmp}', '{tmp}/no/x'])
def test_what_is_no_file_is_refused(write, output, trained, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match=r'^(sample|export): --output: .'):
    write(output.replace('{tmp}', str(tmp_path)))
  assert not list(tmp_path.iterdir())


@DIRECTORIES
@pytest.mark.parametrize('output', ['s3://bucket/x', '{tmp}/pipe', '{tmp}/pipe/x'])
def test_what_is_no_directory_is_refused(write, output, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  os.mkfifo(tmp_path / 'pipe')
  with pytest.raises(UserError, match=r'^(sample|explore|compare): --output: .'):
    write(output.replace('{tmp}', str(tmp_path)))
  assert [p.name for p in tmp_path.iterdir()] == ['pipe']
