"""The project itself: the import order of the house, the numbers of the README."""

import importlib
import re
import subprocess
import sys

import numpy as np
import pytest

import jaxvision


def test_imports_follow_the_data_flow(pytestconfig):
  result = subprocess.run(
    [
      sys.executable,
      '-c',
      'from importlinter.cli import lint_imports_command as c; c()',
    ],
    cwd=pytestconfig.rootpath,
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stdout + result.stderr
  assert '1 kept, 0 broken' in result.stdout


def test_the_readme_has_the_numbers_of_the_files(pytestconfig, monkeypatch):
  root = pytestconfig.rootpath
  monkeypatch.syspath_prepend(root / 'experiments')
  results = importlib.import_module('results')
  text = (root / 'README.md').read_text()
  assert results.readme(text) == text
  transfer = root / 'experiments' / 'studies' / 'transfer.md'
  assert transfer.read_text() in text
  # Every table is one of those: what stands between markers is never written by hand.
  markers = re.findall('<!-- (?:study )?([a-z_ ]+): begin -->', text)
  assert set(markers) == {*results.NAMES, 'results', 'gan results', 'transfer'}
  stale = text.replace('**', '**0')
  assert results.readme(stale) != stale


@pytest.mark.slow
def test_the_generators_in_the_repository_draw(pytestconfig):
  files = sorted((pytestconfig.rootpath / 'experiments' / 'generators').glob('*'))
  weights = [file for file in files if file.suffix == '.safetensors']
  assert weights
  for file in weights:
    assert file.stat().st_size < 2e6
    images = jaxvision.load_generator(file).sample(16)
    # Not one picture sixteen times, and not noise: neighbouring pixels are alike.
    assert len(np.unique(images.reshape(16, -1), axis=0)) == 16
    pixels = images.astype(float)
    steps = np.abs(np.diff(pixels, axis=2)).mean()
    assert steps < 0.7 * np.abs(pixels - pixels.mean()).mean()
