"""The report of a run: complete, readable by programs, safe whatever the names."""

import json
import os
import re

import numpy as np
import pytest
from PIL import Image
from report_samples import HISTORY, SUMMARY, Page, classifier_outputs, write_run_report

from jaxvision.io import write_whole
from jaxvision.reports import html
from jaxvision.reports.run import report


@pytest.mark.parametrize(
  ('num_classes', 'shape'),
  [
    (2, (224, 180, 3)),
    (10, (8, 8, 1)),
    pytest.param(100, (32, 32, 3), marks=pytest.mark.slow),
  ],
)
def test_report_is_complete(tmp_path, num_classes, shape):
  labels, probabilities = classifier_outputs(num_classes, examples=200)
  path = write_run_report(
    tmp_path, num_classes, shape, (labels, probabilities), history=HISTORY
  )
  assert path == tmp_path / 'report' / 'report.html'
  pictures = [
    'confusion_matrix.png',
    'curves.png',
    'f1_per_class.png',
    'reliability.png',
    'samples.png',
    'worst_mistakes.png',
  ]
  texts = ['report.html', 'report.json', 'report.md']
  assert sorted(os.listdir(path.parent)) == sorted(pictures + texts)
  for picture in pictures:
    with Image.open(path.parent / picture) as image:
      image.load()
      assert min(image.size) > 200
      assert len(np.unique(np.asarray(image.convert('L')))) > 10  # not blank

  record = json.loads((path.parent / 'report.json').read_text(encoding='utf-8'))
  predictions = probabilities.argmax(axis=1)
  assert record['accuracy'] == pytest.approx(np.mean(predictions == labels))
  assert record['examples'] == 200
  assert len(record['per_class']) == record['num_classes'] == num_classes
  assert np.sum(record['confusion_matrix']) == 200
  assert np.trace(record['confusion_matrix']) == np.sum(predictions == labels)
  assert set(record['averages']) == {'macro', 'weighted'}
  assert 0 <= record['ece'] <= 1
  assert record['accuracy'] <= record['accuracy_top5'] <= 1
  assert len(record['reliability']) == 15
  worst = record['worst_mistakes'][0]
  assert worst['confidence'] == pytest.approx(
    probabilities[predictions != labels].max(axis=1).max()
  )
  assert labels[worst['index']] == worst['true'] != worst['predicted']

  parsed = Page(path)
  source = parsed.source
  assert html.percent(record['accuracy']) in parsed.text
  wrong = np.sum(predictions != labels)
  assert len(record['worst_mistakes']) == min(24, wrong)
  assert len(parsed.all('img')) == 1 + min(240, wrong) + 24
  assert source.count('<tr><td class="name">class ') >= num_classes


def test_many_classes_have_cells_and_no_matrix(tmp_path, monkeypatch):
  labels, probabilities = classifier_outputs(10, examples=200)
  shape = (8, 8, 1)
  write_run_report(tmp_path / 'few', 10, shape, (labels, probabilities))
  monkeypatch.setattr(report, 'MATRIX_CLASSES', 9)
  path = write_run_report(tmp_path / 'many', 10, shape, (labels, probabilities))
  assert not (path.parent / 'confusion_matrix.png').exists()
  few, many = (
    json.loads((tmp_path / name / 'report' / 'report.json').read_text())
    for name in ('few', 'many')
  )
  matrix = np.zeros((10, 10), int)
  for row, column, count in many.pop('confusion_cells'):
    matrix[row, column] = count
  assert few.pop('confusion_matrix') == matrix.tolist()
  assert many.pop('confusion_matrix') is few.pop('confusion_cells') is None
  assert many == few
  told = 'The matrix of 10 classes is not drawn'
  assert told in Page(path).text
  assert 'id="matrix"' not in Page(path).source
  assert told in (path.parent / 'report.md').read_text()


def test_html_needs_nothing_else(tmp_path):
  parsed = Page(write_run_report(tmp_path, history=HISTORY))
  source = parsed.source
  assert not re.search(r'https?://|//\w+\.\w+|@import|url\((?!#)', source)
  resources = [
    value
    for _, attributes in parsed.tags
    for name, value in attributes.items()
    if name in ('src', 'srcset', 'data', 'poster', 'action')
  ]
  assert resources
  assert all(value.startswith('data:image/png;base64,') for value in resources)
  links = {attributes['href'] for attributes in parsed.all('a')}
  targets = {
    f'#{attributes["id"]}' for _, attributes in parsed.tags if 'id' in attributes
  }
  assert links <= targets
  assert parsed.all('html')[0]['lang'] == 'en'
  assert 'prefers-color-scheme: dark' in source
  assert all(attributes.get('alt') for attributes in parsed.all('img'))
  policy = parsed.all('meta')
  assert any("default-src 'none'" in meta.get('content', '') for meta in policy)


def _tables(source):
  """Splits Markdown into tables, each a list of rows of cells."""
  tables, rows = [], []
  for line in [*source.splitlines(), '']:
    if line.startswith('|'):
      rows.append(re.split(r'(?<!\\)\|', line.strip())[1:-1])
    elif rows:
      tables.append(rows)
      rows = []
  return tables


def test_markdown_tables_are_whole(tmp_path):
  path = write_run_report(tmp_path, num_classes=10)
  source = (path.parent / 'report.md').read_text(encoding='utf-8')
  record = json.loads((path.parent / 'report.json').read_text(encoding='utf-8'))
  facts, classes, pairs, mistakes = _tables(source)
  for table in (facts, classes, pairs, mistakes):
    assert len({len(row) for row in table}) == 1
  assert len(classes) == 2 + 10 + 2  # head, classes, averages
  assert len(pairs) == 2 + len(record['most_confused_pairs'])
  assert len(mistakes) == 2 + len(record['worst_mistakes'])
  for file in re.findall(r'\]\(([^)]+)\)', source):
    assert (path.parent / file).is_file()


def test_names_cannot_break_out(tmp_path):
  names = [
    '<script>alert(1)</script>',
    'a & b | c',
    '日本語 "quoted" \'x\'',
    '$5 or $10 {{ 7 * 7 }} \n`tick` ](http://example.com)',
  ]
  summary = {**SUMMARY, 'config_name': '<b>bold</b> & co', 'command': 'a "<i>" ```'}
  path = write_run_report(
    tmp_path,
    num_classes=4,
    class_names=names,
    summary=summary,
    config={'note': '</pre><script>``` fence'},
    notes=['Synthetic <data>: these numbers mean nothing.'],
  )
  parsed = Page(path)
  source = parsed.source
  for name in names[:3]:
    assert name in parsed.text
  assert '{{ 7 * 7 }}' in parsed.text
  assert [a.get('type') for a in parsed.all('script')] == ['application/json', None]
  (data,) = re.findall(r'<script type="application/json".*?>(.*?)</script>', source)
  assert json.loads(data)['names'] == names
  assert not parsed.all('b')
  assert not parsed.all('i')
  assert summary['config_name'] in parsed.text
  assert summary['command'] in parsed.text
  notices = [a for _, a in parsed.tags if a.get('class') == 'notice']
  assert len(notices) == 1
  assert 'Synthetic <data>: these numbers mean nothing.' in parsed.text

  markdown = (path.parent / 'report.md').read_text(encoding='utf-8')
  assert '<script>' not in re.sub(r'````.*?````', '', markdown, flags=re.DOTALL)
  classes = _tables(markdown)[1]
  assert len(classes) == 2 + 4 + 2
  assert len({len(row) for row in classes}) == 1
  record = json.loads((path.parent / 'report.json').read_text(encoding='utf-8'))
  assert [row['class'] for row in record['per_class']] == names


def test_what_was_not_measured_is_a_dash(tmp_path):
  nothing = dict.fromkeys(SUMMARY)
  labels, probabilities = classifier_outputs(3)
  for number, summary in enumerate(({**nothing, 'epochs': float('nan')}, {})):
    path = write_run_report(
      tmp_path / str(number),
      summary=summary,
      config={},
      outputs=(labels, probabilities),
    )
    parsed = Page(path)
    source = parsed.source
    assert 'None' not in parsed.text
    assert 'nan' not in parsed.text
    assert source.count(f'<dd>{html.MISSING}</dd>') == 13
    assert not (path.parent / 'curves.png').exists()
    assert 'class="command"' not in source
    assert 'Undefined' not in (path.parent / 'report.md').read_text(encoding='utf-8')


def test_damaged_log_records_are_passed_over(tmp_path):
  history = [
    {'step': 1, 'split': 'train', 'loss': float('nan'), 'accuracy': None},
    {'step': 2, 'split': 'train', 'loss': 1.0, 'learning_rate': None},
    {'step': 2, 'split': 'test', 'accuracy': 0.5},
    {'step': 3, 'split': 'ema', 'loss': 0.001, 'extra': 'word'},
  ]
  path = write_run_report(tmp_path, history=history)
  assert (path.parent / 'curves.png').is_file()


def test_no_mistake_is_said_and_old_pictures_go(tmp_path):
  report_directory = write_run_report(tmp_path, history=HISTORY).parent
  assert (report_directory / 'worst_mistakes.png').exists()
  assert (report_directory / 'curves.png').exists()
  labels = np.arange(12) % 3
  perfect = np.eye(3, dtype=np.float32)[labels]
  path = write_run_report(tmp_path, outputs=(labels, perfect))
  assert not (path.parent / 'worst_mistakes.png').exists()
  assert not (path.parent / 'curves.png').exists()
  record = json.loads((path.parent / 'report.json').read_text(encoding='utf-8'))
  assert record['worst_mistakes'] == record['most_confused_pairs'] == []
  assert 'all 12 predictions are correct' in Page(path).text


def test_same_inputs_give_the_same_bytes(tmp_path):
  one = write_run_report(tmp_path / 'one', num_classes=2).parent
  two = write_run_report(tmp_path / 'two', num_classes=2).parent
  for file in sorted(os.listdir(one)):
    assert (one / file).read_bytes() == (two / file).read_bytes(), file


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / 'report.json'
  write_whole(path, 'old')

  def fail(*_):
    raise OSError('no space left on device')

  monkeypatch.setattr(os, 'replace', fail)
  with pytest.raises(OSError, match='no space'):
    write_whole(path, 'new')
  assert path.read_text() == 'old'
  assert os.listdir(tmp_path) == ['report.json']


@pytest.mark.parametrize(
  ('labels', 'probabilities'),
  [
    (np.zeros(0, np.int32), np.zeros((0, 3), np.float32)),
    (np.zeros(2, np.int32), np.zeros((2, 4), np.float32)),
    (np.zeros(2, np.int32), np.full((2, 3), np.nan, np.float32)),
    (np.array([0, 3]), np.full((2, 3), 1 / 3, np.float32)),
  ],
  ids=['no examples', 'other classes', 'not finite', 'label out of range'],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, labels, probabilities):
  with pytest.raises(ValueError):
    write_run_report(tmp_path, outputs=(labels, probabilities))
  assert not (tmp_path / 'report').exists()
