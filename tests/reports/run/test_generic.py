"""The report of any task: every measure has its curve, and captions stay text."""

import numpy as np
import pytest
from report_samples import CONFIG, HOSTILE, SUMMARY, assert_readable, checked_report

from jaxvision.reports.run import generic, plots

HISTORY = [
  {
    'step': step,
    'split': 'train',
    'loss': 2 / step,
    'psnr': 10 + step / 10,
    'learning_rate': 0.1,
    'images_per_second': 900.0,
    'epoch': step / 20,
  }
  for step in range(1, 200, 20)
] + [
  {'step': step, 'split': 'validation', 'loss': 0.1, 'psnr': 9 + step / 10}
  for step in (100, 200)
]
MEASURES = {'loss': 0.125, 'psnr': 21.3456}


def write(directory, **changes):
  summary = {
    **SUMMARY,
    'task': 'examples/denoising_task.py:Denoising',
    'measure': {'logged': 'psnr'},
    'train_psnr': 22.5,
  }
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (3, 8, 8, 1), np.uint8)
  arguments = {
    'summary': summary,
    'config': CONFIG,
    'history': HISTORY,
    'split': 'test',
    'measures': MEASURES,
    'examples': [(image, f'noisy\n{i} dB') for i, image in enumerate(images)],
  }
  return generic.write_report(directory, **{**arguments, **changes})


def test_report_is_complete(tmp_path):
  path = write(tmp_path)
  assert path == tmp_path / 'report' / 'report.html'
  page, record = checked_report(path, ['curves.png', 'examples.png'])
  assert record['measures'] == MEASURES
  assert record['split'] == 'test'
  assert '<strong>21.35</strong>' in page.source
  for text in ('Denoising report', 'psnr21.35', 'train psnr22.50', 'noisy2 dB'):
    assert text.replace(' ', '') in page.text.replace(' ', '')
  assert 'class="right"' not in page.source


def test_curves_have_one_panel_per_measure():
  assert plots.logged_measures(HISTORY) == ['loss', 'psnr']
  figure = plots.curves(HISTORY)
  labels = [axes.get_ylabel() for axes in figure.axes]
  assert labels == ['loss', 'psnr', 'learning rate']
  loss, psnr, _ = figure.axes
  assert loss.get_yscale() == 'log'
  assert psnr.get_yscale() == 'linear'
  assert [line.get_label() for line in psnr.lines] == [
    'train (last 28.10)',
    'validation (last 29.00)',
  ]
  assert len(plots.curves(HISTORY, measures=('loss',)).axes) == 2


@pytest.mark.parametrize('count', [0, 1])
def test_little_to_report(tmp_path, count):
  write(tmp_path)
  examples = [(np.zeros((100, 80, 3), np.uint8), '')] * count
  path = write(
    tmp_path, summary={}, config={}, history=[], measures={}, examples=examples
  )
  page, record = checked_report(path, ['examples.png'] * count)
  assert record['measures'] == {}
  assert 'the task has no measures' in page.text
  assert len(page.all('img')) == count


def test_measures_that_are_not_finite_are_dashes(tmp_path):
  measures = {'loss': float('nan'), 'accuracy': 0.5}
  page, record = checked_report(
    write(tmp_path, history=[], examples=(), measures=measures), []
  )
  assert record['measures'] == {'loss': None, 'accuracy': 0.5}
  assert '50.00%' in page.text


def test_names_cannot_break_out(tmp_path, browser):
  image = np.zeros((8, 8, 1), np.uint8)
  history = [{'step': 1, 'split': 'train', name: 1.0} for name in HOSTILE]
  path = write(
    tmp_path,
    summary={**SUMMARY, 'config_name': HOSTILE[0], 'task': HOSTILE[1]},
    history=history,
    measures=dict.fromkeys(HOSTILE, 0.5),
    examples=[(image, name) for name in HOSTILE],
    notes=HOSTILE,
  )
  page, record = checked_report(path, ['curves.png', 'examples.png'])
  assert all(name in page.text for name in HOSTILE)
  assert list(record['measures']) == HOSTILE
  assert_readable(browser, path, HOSTILE)
