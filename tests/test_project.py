"""The project itself: the import order of the house, the numbers of the README."""

import json
import runpy
import subprocess
import sys

import numpy as np

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


def test_the_readme_has_the_numbers_of_the_result_files(pytestconfig):
  root = pytestconfig.rootpath
  tables = runpy.run_path(str(root / 'experiments' / 'results_table.py'))
  results = tables['load_results'](root / 'experiments' / 'results')
  text = (root / 'README.md').read_text()
  assert tables['replaced'](text, tables['table'](results)) == text
  gans = tables['gan_table'](results)
  assert gans in text
  assert tables['replaced'](text, gans, 'gan results') == text


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


def test_the_readme_has_the_table_of_the_transfer_study(pytestconfig):
  root = pytestconfig.rootpath
  study = runpy.run_path(str(root / 'experiments' / 'transfer.py'))
  records = json.loads((root / 'experiments' / 'studies' / 'transfer.json').read_text())
  table = study['table'](records)
  assert (root / 'experiments' / 'studies' / 'transfer.md').read_text() == table + '\n'
  assert table in (root / 'README.md').read_text()
