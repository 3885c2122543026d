"""The pages as a browser shows them: scripts, themes, widths, names that are markup."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_samples import (
  HISTORY,
  SCORES,
  classifier_outputs,
  finished_run,
  gan_history,
  sample_classes,
  write_gan_report,
  write_run_report,
)

import jaxvision
from jaxvision import config
from jaxvision.config.search_space import Choice, Range
from jaxvision.metrics import classification
from jaxvision.reports.comparison import groups, report
from jaxvision.reports.sweep.report import write_sweep
from jaxvision.reports.sweep.results import Result, Results

ROOT = Path(__file__).parent.parent.parent
HOSTILE = [
  '</script><script>window.hit = 1</script>',
  '<img src=x onerror="window.hit = 1">',
  '"日本語" & \'$x$\' {{ 7 * 7 }} <!--',
]
CARDS = '#pictured > li'


@pytest.fixture(scope='module')
def hostile(tmp_path_factory):
  directory = tmp_path_factory.mktemp('hostile')
  return write_run_report(directory, class_names=HOSTILE, history=HISTORY)


@pytest.fixture(scope='module')
def outputs():
  """Labels and probabilities of 100 classes; class 0 is often taken for class 1."""
  labels, probabilities = classifier_outputs(100, examples=2000)
  swapped = np.flatnonzero(labels == 0)[:12]
  probabilities[swapped] = 0.02 / 98
  probabilities[swapped, :2] = 0.04, 0.94
  return labels, probabilities


@pytest.fixture(scope='module')
def hundred(tmp_path_factory, outputs):
  return write_run_report(tmp_path_factory.mktemp('hundred'), 100, (32, 32, 3), outputs)


@pytest.fixture(scope='module')
def compared(tmp_path_factory):
  runs = [finished_run(name, seed) for name in ('<i>', 'b') for seed in (0, 1)]
  return report.write_comparison(
    tmp_path_factory.mktemp('compared'), groups.compare(runs)
  )


@pytest.fixture(scope='module')
def generated(tmp_path_factory):
  return write_gan_report(
    tmp_path_factory.mktemp('generated'),
    history=gan_history(points=40, evaluations=4),
    scores=SCORES,
    sample_classes=sample_classes(10, HOSTILE + [str(i) for i in range(7)]),
  )


@pytest.fixture(scope='module')
def explored(tmp_path_factory):
  """Of a folder whose classes are named like markup."""
  root = tmp_path_factory.mktemp('photos')
  rng = np.random.default_rng(0)
  for split in ('train', 'test'):
    for name in ('<i>cat', "dog's & $x$"):
      (root / split / name).mkdir(parents=True)
      for i in range(4):
        pixels = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / split / name / f'{i}.png')
  # In both splits: a leak, whose pictures the page shows.
  first = root / 'train' / '<i>cat' / '0.png'
  (root / 'test' / '<i>cat' / '0.png').write_bytes(first.read_bytes())
  loaded = config.load(ROOT / 'configs' / 'folder_cnn.py', [f'data.root={root}'])
  _, page = jaxvision.explore(loaded, tmp_path_factory.mktemp('explored'))
  return page


@pytest.fixture(scope='module')
def swept(tmp_path_factory):
  trials = [
    Result(
      number=i,
      values={
        'optimizer.learning_rate': 10.0 ** (i % 4 - 4),
        'model.form': HOSTILE[i % 2],
      },
      end=('done', 'pruned', 'failed')[max(0, i - 6)],
      value=None if i == 8 else 0.5 + i / 20,
      reports={6: 0.3, 12: 0.5 + i / 20},
      error=HOSTILE[0] if i == 8 else '',
      seconds=12.5 + i,
      host='one',
    )
    for i in range(9)
  ]
  results = Results(
    name=HOSTILE[1],
    config_name='digits_cnn',
    measure='accuracy',
    mode='max',
    sampler='tpe',
    size=20,
    space={
      'optimizer.learning_rate': Range(1e-4, 1.0, log=True),
      'model.form': Choice(*HOSTILE[:2]),
    },
    trials=trials,
    importances={'optimizer.learning_rate': 0.8, 'model.form': 0.2},
    machine={'device_kind': 'Some GPU', 'git_commit': '0123456789abcdef'},
    synthetic=False,
    held_out=True,
  )
  return write_sweep(tmp_path_factory.mktemp('swept'), results)


PAGES = ('hostile', 'hundred', 'compared', 'generated', 'explored', 'swept')


@pytest.mark.parametrize(
  'name', [pytest.param(n, marks=[pytest.mark.slow] * (n == 'hundred')) for n in PAGES]
)
def test_a_page_fits_a_phone_and_a_screen_in_both_themes(browser, request, name):
  path = request.getfixturevalue(name)
  seen = set()
  for width in (390, 1200):
    for dark in (False, True):
      page = browser.open(path, width=width, dark=dark)
      assert page.overflow() <= 0
      seen.add((dark, page.evaluate('getComputedStyle(document.body).backgroundColor')))
  assert seen == {(False, 'rgb(255, 255, 255)'), (True, 'rgb(22, 26, 32)')}


def test_headings_sort_the_classes_by_click_and_by_key(browser, hundred):
  record = json.loads((hundred.parent / 'report.json').read_text(encoding='utf-8'))
  page = browser.open(hundred)
  for column, key in enumerate(('class', 'precision', 'recall', 'f1', 'support')):
    head = f'#scores th:nth-child({column + 1})'
    cells = f'#scores tbody td:nth-child({column + 1})'
    page.click(f'{head} button')
    assert page.get_attribute(head, 'aria-sort') == 'ascending'
    rising = page.texts(cells)
    if key == 'class':
      assert rising == [f'class {i}' for i in range(100)]  # 2 comes before 10
    else:
      wanted = sorted(row[key] for row in record['per_class'])
      assert list(map(float, rising)) == pytest.approx(wanted, abs=6e-4)
    page.press(f'{head} button', 'Enter')
    assert page.get_attribute(head, 'aria-sort') == 'descending'
    falling = page.texts(cells)
    assert falling == rising[::-1] or key != 'class'
    assert sorted(falling) == sorted(rising)
    assert falling[0] == rising[-1]
  assert page.evaluate("document.querySelectorAll('#scores [aria-sort]').length") == 1


def test_a_search_filters_the_classes(browser, hundred):
  page = browser.open(hundred)
  page.fill('[data-narrows=scores]', 'CLASS 7')
  shown = page.texts('#scores tbody td:first-child')
  assert shown == ['class 7', *(f'class {i}' for i in range(70, 80))]
  assert page.texts('#classes .filters output') == ['11 of 100']
  page.fill('[data-narrows=scores]', 'nowhere')
  assert page.texts('#scores tbody td:first-child') == []
  assert page.texts('#classes .filters output') == ['No name matches.']


def _pictured(outputs):
  labels, probabilities = outputs
  return classification.representative_mistakes(probabilities, labels, 240, 24)


def _indices(mistakes):
  return [f'#{mistake.index}' for mistake in mistakes]


def _shown(page):
  """Returns the numbers of the examples that are shown."""
  return [f'#{text.split("#")[1]}' for text in page.texts(CARDS)]


def test_mistakes_are_filtered_and_counted(browser, hundred, outputs):
  mistakes = _pictured(outputs)
  assert len(mistakes) == 240
  page = browser.open(hundred)
  assert _shown(page) == _indices(mistakes[:48])
  assert page.texts('#found')[0].startswith('48 of 240 mistakes shown, of ')
  page.click('#more')
  assert _shown(page) == _indices(mistakes)
  assert page.texts('#more') == []

  page.select_option('[name=true]', '0')
  of_class = [m for m in mistakes if m.true == 0]
  assert 2 <= len(of_class) < 24
  assert _shown(page) == _indices(of_class)
  assert page.texts('#found') == [f'{len(of_class)} of 240 mistakes match.']
  page.select_option('[name=predicted]', '1')
  pair = [m for m in of_class if m.predicted == 1]
  assert _shown(page) == _indices(pair) != _indices(of_class)
  page.fill('[name=confidence]', '95')
  assert _shown(page) == []
  assert page.texts('#nothing')[0] == 'No mistake shown here matches.'
  assert page.texts('#found') == ['0 of 240 mistakes match.']

  page.click('#filter [type=reset]')
  page.wait_for_selector('#nothing', state='hidden')
  assert _shown(page) == _indices(mistakes[:48])
  page.type('[name=name]', 'Class 42')  # letter by letter, as a keyboard does
  named = [m for m in mistakes if 42 in (m.true, m.predicted)]
  assert _shown(page) == _indices(named)
  page.fill('[name=name]', '')
  page.focus('[name=confidence]')
  for _ in range(3):
    page.press('[name=confidence]', 'PageUp')
  least = int(page.input_value('[name=confidence]')) / 100
  assert least > 0.2
  sure = [m for m in mistakes if m.confidence >= least]
  assert page.texts('#found')[0].startswith(f'{len(sure)} of 240')


def _press_cell(page, row, column, number):
  side = page.evaluate("document.querySelector('canvas.cells').clientWidth") / number
  place = {'x': (column + 0.5) * side, 'y': (row + 0.5) * side}
  page.click('.field', position=place)


def test_a_cell_of_the_matrix_shows_its_count_and_lists_its_mistakes(
  browser, hundred, outputs
):
  labels, probabilities = outputs
  confusion = classification.confusion_matrix(labels, probabilities.argmax(axis=1), 100)
  mistakes, support = _pictured(outputs), confusion.sum(axis=1)
  page = browser.open(hundred, height=1600)
  page.select_option('[name=order]', 'listed')
  _press_cell(page, 0, 1, 100)
  count, share = confusion[0, 1], confusion[0, 1] / support[0]
  told = f'class 0 predicted as class 1: {count} of {support[0]} ({share:.1%})'
  pair = [m for m in mistakes if (m.true, m.predicted) == (0, 1)]
  assert page.texts('.readout') == [f'{told}. {len(pair)} shown below']
  assert _shown(page) == _indices(pair)
  assert page.input_value('[name=true]') == '0'

  # The diagonal stands for all mistakes of its class, by keys as well as by pointer.
  page.press('.board', 'ArrowLeft')
  told = f'class 0 predicted correctly: {confusion[0, 0]} of {support[0]}'
  assert page.texts('.readout')[0].startswith(told)
  page.press('.board', 'Enter')
  assert _shown(page) == _indices([m for m in mistakes if m.true == 0])

  # In another order the same place is another cell.
  page.select_option('[name=order]', 'alike')
  page.hover('.field', position={'x': 1, 'y': 1})
  first = classification.confusion_order(confusion)[0]
  assert page.texts('.tip')[0].startswith(f'class {first} predicted correctly: ')


def test_the_matrix_is_drawn_as_asked(browser, hundred):
  page = browser.open(hundred)
  picture = "document.querySelector('canvas.cells').toDataURL()"
  seen = [page.evaluate(picture)]
  for field, value in (('order', 'recall'), ('order', 'name'), ('scale', 'count')):
    page.select_option(f'[name={field}]', value)
    seen.append(page.evaluate(picture))
  page.check('[name=alone]')
  seen.append(page.evaluate(picture))
  page.click('#matrix .larger')
  seen.append(page.evaluate(picture))
  assert len(set(seen)) == len(seen)
  assert page.overflow() <= 0


def test_without_scripts_all_of_it_is_shown(browser, hundred):
  # The browser is asked for the layout, as nothing can be evaluated in the page.
  page = browser.open(hundred, scripts=False)
  assert page.is_visible('#confusion .still img')
  assert not page.is_visible('#matrix')
  assert not page.is_visible('#filter')
  assert not page.is_visible('#nothing')
  assert page.is_visible(f'{CARDS}:nth-child(1)')
  assert page.is_visible(f'{CARDS}:nth-child(240)')


def test_paper_gets_the_matrix_as_a_picture(browser, hundred):
  page = browser.open(hundred)
  assert not page.is_visible('#confusion .still img')
  page.emulate_media(media='print')
  assert page.is_visible('#confusion .still img')
  assert not page.is_visible('#matrix')
  assert not page.is_visible('#filter')


def test_names_that_are_markup_are_only_names(browser, hostile):
  page = browser.open(hostile)
  assert page.evaluate('window.hit') is None
  assert page.texts('#scores tbody td:first-child') == HOSTILE
  options = '[...document.querySelector("[name=true]").options].map(o => o.text)'
  shown = [text.rsplit(' (', 1)[0] for text in page.evaluate(options)]
  assert shown == ['any', *HOSTILE]
  _press_cell(page, 0, 0, 3)
  assert page.texts('.readout')[0].startswith(f'{HOSTILE[0]} predicted correctly: ')
  page.fill('[name=name]', '日本語')
  assert 0 < len(_shown(page)) < len(page.query_selector_all(CARDS))


def test_a_report_without_a_mistake_has_nothing_to_filter(browser, tmp_path):
  labels = np.arange(12) % 2
  outputs = labels, np.eye(2, dtype=np.float32)[labels]
  page = browser.open(write_run_report(tmp_path, 2, outputs=outputs))
  page.check('[name=alone]')
  _press_cell(page, 1, 1, 2)
  assert page.texts('.readout') == ['class 1 predicted correctly: 6 of 6 (100.0%)']
  _press_cell(page, 1, 0, 2)
  assert page.texts('.readout') == ['class 1 predicted as class 0: 0 of 6 (0.0%)']
  assert page.texts('#filter') == page.texts(CARDS) == []


def test_trials_sort_by_every_column(browser, swept):
  page = browser.open(swept)
  numbers = '#trials tbody td:first-child'
  assert page.texts(numbers) == ['6', '5', '4', '3', '2', '1', '0', '7', '8']
  page.click('#trials th:first-child button')
  assert page.texts(numbers) == [str(i) for i in range(9)]
  page.click('#trials th:nth-child(3) button')  # the learning rate
  assert page.texts(numbers)[0] in ('0', '4', '8')
  assert page.evaluate('window.hit') is None
  assert 'of 20 trials have ended' in page.text_content('[role=note]')


def test_a_leak_is_shown_with_its_pictures(browser, explored):
  page = browser.open(explored)
  record = json.loads(explored.with_suffix('.json').read_text())
  assert record['duplicates']['identical'] == 1
  text = page.text_content('body')
  assert '<i>cat' in text
  assert "dog's & $x$" in text
  assert page.evaluate('[...document.images].every(i => i.naturalWidth > 0)')


def test_runs_that_are_compared_sort(browser, compared):
  page = browser.open(compared)
  entries = 'table.sortable tbody td:first-child'
  before = page.texts(entries)
  assert set(before) == {'<i>', 'b'}
  page.click('table.sortable th:first-child button')
  rising = page.texts(entries)
  page.click('table.sortable th:first-child button')
  assert page.texts(entries) == rising[::-1]


@pytest.mark.parametrize(
  ('script', 'problem'),
  [
    ('throw new Error("broken")', 'uncaught: broken'),
    ('Promise.reject(new Error("late"))', 'uncaught: late'),
    ('console.error("wrong")', 'console: wrong'),
    ('fetch("other.json").catch(() => {})', 'request: file://'),
    ('new Image().src = "http://127.0.0.1:9/x.png"', 'request: http://127.0.0.1:9/'),
  ],
)
def test_the_browser_fails_a_test_whose_page_is_at_fault(
  chromium, tmp_path, script, problem
):
  from browsing import Browser

  path = tmp_path / 'page.html'
  path.write_text(f'<!doctype html><title>x</title><script>{script}</script>')
  browser = Browser(chromium)
  page = browser.open(path)
  page.wait_for_timeout(100)
  with pytest.raises(AssertionError, match=problem):
    browser.close()
