"""Runs side by side: who belongs together, what is marked, what chance may have done."""

import csv
import dataclasses
import io
import json

import chex
import numpy as np
import pytest
from report_samples import finished_run
from scipy import stats

from jaxvision.errors import UserError
from jaxvision.reports import html
from jaxvision.reports.comparison import plots, report
from jaxvision.reports.comparison.groups import MEASURES, compare, welch


def test_runs_that_differ_in_their_seeds_are_one_group_and_the_best_is_first():
  compared = compare(
    [
      finished_run('a', 1, 0.8),
      finished_run('b', 0, 0.9),
      finished_run('a', 0, 0.7),
      finished_run('b', 1, 0.91),
    ]
  )
  best, other = compared.groups
  assert (best.label, best.values) == ('b', (0.9, 0.91))
  assert (other.label, other.values) == ('a', (0.7, 0.8))  # by seed
  assert other.mean == pytest.approx(0.75)
  assert other.deviation == pytest.approx(np.std([0.7, 0.8], ddof=1))
  assert compared.fields == ()


def test_what_differs_names_runs_of_one_config():
  compared = compare(
    [
      finished_run(fields={'batch_size': size}, accuracy=a)
      for size, a in ((32, 0.8), (64, 0.9))
    ]
  )
  assert [e.label for e in compared.groups] == ['a batch_size=64', 'a batch_size=32']
  assert compared.fields == ('batch_size',)


def test_by_more_than_three_fields_the_directory_names_them():
  many = {f'model.field{i}': i for i in range(4)}
  compared = compare(
    [finished_run(accuracy=0.9), finished_run(seed=3, fields=many, accuracy=0.8)]
  )
  assert [e.label for e in compared.groups] == ['a-seed0', 'a-seed3']


def test_gans_are_ranked_by_distance_the_lowest_first():
  gans = [
    finished_run(
      name,
      task='gan',
      fd=fd,
      protocol=judge,
      test_accuracy=None,
      params=None,
      generator_params=300,
      discriminator_params=100,
    )
    for name, fd, judge in (('x', 9.0, 'A'), ('y', 3.0, 'A'), ('z', 1.0, 'B'))
  ]
  compared = compare(gans)
  assert [e.label for e in compared.groups] == ['z', 'y', 'x']
  assert compared.groups[0].incomparable_because == ('B, not A',)  # another judge
  assert compared.groups[0].params == 400
  flow = finished_run(
    'f', task='flow_matching', fd=2.0, protocol='A', test_accuracy=None
  )
  flow.summary['measure'] = dataclasses.asdict(MEASURES['gan'])
  assert [e.label for e in compare([*gans[:2], flow]).groups] == ['f', 'y', 'x']
  with pytest.raises(UserError, match='tasks classification, gan have no measure'):
    compare([gans[0], finished_run('b')])


ERROR = {
  'key': 'test_mae',
  'label': 'mean absolute error',
  'split': 'test',
  'logged': 'mae',
  'mode': 'min',
  'percent': False,
}


def own_task(name, error, **summary):
  """A run of a task that a user wrote, which names its measure in summary.json."""
  summary = {'task': 'age', 'measure': ERROR, 'test_mae': error} | summary
  made = finished_run(name, **summary, test_accuracy=None, test_loss=None)
  made.history[-1]['mae'] = error
  return made


def test_a_task_of_ones_own_is_ranked_by_the_measure_that_it_names(tmp_path):
  compared = compare([own_task('a', 0.25, trunk_params=500), own_task('b', 0.125)])
  assert compared.measure.label == 'mean absolute error'
  assert [group.label for group in compared.groups] == ['b', 'a']
  assert compared.groups[1].params == 1500
  page = report.write_comparison(tmp_path, compared)
  assert 'compared by mean absolute error' in page.read_text()
  assert (tmp_path / 'curves.png').exists()
  (row, _) = csv.DictReader(io.StringIO(page.with_suffix('.csv').read_text()))
  assert row['test_mae'] == '0.125'
  assert 'recall' not in row
  assert 'test_loss' not in row


@pytest.mark.parametrize(
  ('summaries', 'problem'),
  [
    ([{'task': 'age'}, {'task': 'gan'}], 'runs of the tasks age, gan have no measure'),
    ([{}, {'measure': ERROR | {'key': 'mse'}}], 'several measures (test_mae, mse)'),
    ([{'measure': None}, {}], 'summary.json of a-seed0 does not say what to rank by'),
    ([{'measure': {'key': 'x'}}, {}], 'summary.json of a-seed0 does not say'),
    ([{'measure': ERROR | {'mode': 'up'}}, {}], 'mode being "max" or "min"'),
  ],
)
def test_runs_without_a_common_measure_are_refused(summaries, problem):
  runs = [own_task(name, 0.5, **more) for name, more in zip('ab', summaries)]
  with pytest.raises(UserError) as error:
    compare(runs)
  assert problem in str(error.value)


def test_unlike_data_and_lengths_are_marked_and_not_tested():
  runs = [
    finished_run(name, seed, accuracy + seed / 1000, **more)
    for name, accuracy, more in (
      ('a', 0.8, {}),
      ('b', 0.7, {}),
      ('long', 0.9, {'epochs': 20.0}),
      ('mnist', 0.99, {'dataset': 'mnist'}),
    )
    for seed in range(3)
  ]
  compared = compare(runs)
  marks = {entry.label: entry.incomparable_because for entry in compared.groups}
  assert marks == {
    'a': (),
    'b': (),
    'long': ('20 epochs, not 10 epochs',),
    'mnist': ('mnist, not cifar10',),
  }
  assert [(test.best, test.other) for test in compared.tests] == [('a', 'b')]
  assert any(note.startswith('Marked runs') for note in compared.notes)


def test_the_test_is_welchs_with_holms_correction():
  values = {'a': (0.90, 0.92, 0.91), 'b': (0.89, 0.90, 0.905), 'c': (0.6, 0.7, 0.65)}
  compared = compare(
    [
      finished_run(name, i, v)
      for name, row in values.items()
      for i, v in enumerate(row)
    ]
  )
  p = {
    name: stats.ttest_ind(values['a'], values[name], equal_var=False).pvalue
    for name in 'bc'
  }
  first, second = compared.tests
  assert (first.other, second.other) == ('b', 'c')
  assert second.p == pytest.approx(2 * p['c'])
  assert first.p == pytest.approx(max(p['b'], 2 * p['c']))
  assert (first.significant, second.significant) == (False, True)
  assert first.interval[0] < first.difference < first.interval[1]
  said = [report.sentence(compared, test) for test in compared.tests]
  assert said[0].startswith('a and b differ by 1.17 points, which may be chance')
  assert said[1].startswith('a is 26.00 points above c')


def test_of_one_seed_nothing_is_said_about_chance():
  compared = compare([finished_run('a', accuracy=0.9), finished_run('b', accuracy=0.1)])
  assert compared.tests == ()
  assert any('two or more seeds' in note for note in compared.notes)


def test_the_pages_say_the_same_numbers(tmp_path):
  runs = [
    finished_run(f'<{name}>', seed, accuracy + seed / 100, params=params)
    for name, accuracy, params in (('a', 0.8, 1000), ('b', 0.7, 2000))
    for seed in range(2)
  ]
  compared = compare(runs)
  written = report.write_comparison(tmp_path / 'new', compared)
  html = written.read_text()
  assert '80.50% ± 0.71' in html
  assert '<a>' not in html
  assert '&lt;a&gt;' in html
  rows = list(csv.DictReader(io.StringIO(written.with_suffix('.csv').read_text())))
  assert [float(row['test_accuracy']) for row in rows] == [0.8, 0.81, 0.7, 0.71]
  record = json.loads(written.with_suffix('.json').read_text())
  assert record['entries'][0]['test_accuracy'] == pytest.approx(0.805)
  assert record['entries'][1]['params'] == 2000
  for chart in ('ranking', 'curves', 'against_parameters'):
    assert (written.parent / f'{chart}.png').read_bytes().startswith(b'\x89PNG')
  # Both cost the same time and the same FLOPs: nothing to draw.
  assert not (written.parent / 'against_time.png').exists()


def test_a_run_without_a_value_comes_last_and_is_told():
  compared = compare(
    [finished_run('a', accuracy=0.1), finished_run('b', test_accuracy=None)]
  )
  assert [entry.label for entry in compared.groups] == ['a', 'b']
  assert 'b: no test accuracy was measured.' in compared.notes
  assert html.MISSING in report.lines(compared)[1]


def test_one_run_is_not_enough():
  with pytest.raises(UserError, match='two or more'):
    compare([finished_run()])


def test_curves_of_two_batch_sizes_have_the_epochs_in_common():
  runs = [
    finished_run(
      str(steps), accuracy=0.9, steps=steps, fields={'batch_size': 1280 // steps}
    )
    for steps in (20, 40)
  ]
  runs[1].history.append({'step': 40, 'split': 'test', 'accuracy': 0.9})
  compared = compare(runs)
  figure = plots.curves(compared.groups, compared.measure, by_epoch=True)
  axes = figure.axes[0]
  assert axes.get_xlabel() == 'epoch'
  found = {line.get_label(): line.get_xdata() for line in axes.lines}
  chex.assert_trees_all_close(
    {label: np.array(steps) for label, steps in found.items()},
    {'20': np.array([5.0, 10.0]), '40': np.array([2.5, 5.0, 10.0])},
  )


def test_any_two_groups_are_tested_and_pairs_without_spread_are_not():
  groups = {
    'a': (0.5, 0.52, 0.53),
    'b': (0.6, 0.62, 0.65),
    'c': (0.7,),
    'd': (0.6, 0.61),
  }
  compared = compare(
    [
      finished_run(n, seed, v)
      for n, values in groups.items()
      for seed, v in enumerate(values)
    ]
  )
  a, b, c, d = (next(e for e in compared.groups if e.label == n) for n in groups)
  tests = welch([(a, b), (c, b), (a, d)])
  assert [(test.best, test.other) for test in tests] == [('a', 'b'), ('a', 'd')]
  assert tests[0].difference == pytest.approx(-0.32 / 3)
  plain = [stats.ttest_ind(a.values, e.values, equal_var=False).pvalue for e in (b, d)]
  assert min(t.p for t in tests) == pytest.approx(2 * min(plain))


@pytest.mark.parametrize('largest', [1.01, 1.9, 2.5, 7.0, 40.0, 900.0, 3e4])
def test_an_axis_of_costs_can_be_read_whatever_they_span(largest):
  compared = compare([finished_run('a', accuracy=0.9), finished_run('b', accuracy=0.8)])
  costs = [1.3, 1.3 * largest]
  figure = plots.against(compared.groups, costs, 'minutes', compared.measure)
  figure.draw_without_rendering()
  axes = figure.axes[0]
  low, high = axes.get_xlim()
  assert low < costs[0] < costs[1] < high
  assert (axes.get_xscale() == 'log') == ('log scale' in axes.get_xlabel())
  seen = [
    tick.get_text()
    for tick in axes.get_xticklabels()
    if low <= tick.get_position()[0] <= high and tick.get_text()
  ]
  assert 3 <= len(seen) <= 13
  assert len(set(seen)) == len(seen)
