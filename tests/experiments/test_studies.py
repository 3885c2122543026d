"""The studies under experiments/: their variants, runs, records and pages."""

import dataclasses
import json
import os
import re
import signal
import sys
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from jaxvision import config, models
from jaxvision.commands import runner
from jaxvision.training.callbacks import Callback

sys.path.append(str(Path(__file__).resolve().parents[2] / 'experiments'))
import results
import study as study_lib
import study_report
import transfer
from study import Axis, Budget, Study, Variant

ROOT = study_lib.ROOT
STUDIES = [name for name in results.NAMES if name != 'transfer']
CASES = [(name, budget) for name in STUDIES for budget in ('cpu', 'full')]


@pytest.mark.parametrize(('name', 'budget'), CASES)
def test_a_study_is_well_formed(name, budget):
  study = results.load(name)
  assert study.name == name
  assert {b.name for b in study.budgets} == {'cpu', 'full'}
  assert study.budget(budget).seeds >= 2
  labels = [variant.label for variant in study.variants]
  assert len(set(labels)) == len(labels)
  assert len({variant.slug for variant in study.variants}) == len(labels)
  assert study.reference in ('', *labels)
  assert set(study.plots) <= study_report.PLOTS.keys()
  assert f'python experiments/{name}.py' in sys.modules[name].__doc__
  loaded = [study_lib.resolve(v, study.budget(budget), 1) for v in study.variants]
  assert all((c.seed, c.data.split_seed) == (1, 1) for c in loaded)
  # A comparison marks runs of unequal length, and says nothing of them.
  by_length = study.axis and study.axis.field == 'epochs'
  lengths = {(c.steps, not by_length and c.epochs) for c in loaded}
  assert len(lengths) == len({c.data.examples_per_class for c in loaded}) == 1
  for i, one in enumerate(loaded):
    for other in loaded[:i]:
      assert config.differences(one, other)
  if study.axis:
    for path in filter(None, (study.axis.field, study.axis.lines)):
      assert len({dict(config.walk(c))[path] for c in loaded}) > 1


def test_the_variants_of_the_small_cnn_change_one_thing_each():
  study = results.load('smallcnn_activations')
  loaded = {
    v.label: study_lib.resolve(v, study.budget('cpu'), 0) for v in study.variants
  }
  params = {}
  for label, one in loaded.items():
    fields = dict(one.model)
    model = models.create(fields.pop('name'), 100, one.dtype, **fields)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), 'float32')
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)['params']
    params[label] = sum(leaf.size for leaf in jax.tree.leaves(shapes))
  assert params.pop('attention') == 57_332 + 742
  assert set(params.values()) == {57_332}
  base = config.decisive(loaded.pop('ReLU'))
  assert (base['model.activation'], base['augment.flip']) == ('relu', False)
  for label, one in loaded.items():
    own = config.decisive(one)
    groups = {p for p in own | base if own.get(p) != base.get(p)}
    assert len({path.split('.')[0] for path in groups}) == 1 + ('+' in label), groups
  whole = config.load(ROOT / 'configs' / 'cifar100_smallcnn.py')
  best = next(v for v in study.variants if v.label == 'Swish + augmentation')
  assert (
    config.differences(whole, study_lib.resolve(best, study.budget('full'), 0)) == []
  )


RATES = (0.05, 0.001)
TINY = Study(
  name='tiny',
  question='Which rate?',
  variants=(
    *(
      Variant(f'rate {r}', 'digits_cnn', (f'optimizer.learning_rate={r}',))
      for r in RATES
    ),
    Variant('far too high', 'digits_cnn', ('optimizer.learning_rate=1e30',)),
  ),
  budgets=(
    Budget(
      'cpu',
      2,
      (
        'steps=6',
        'eval_every_steps=3',
        'log_every_steps=3',
        'parallel.data=1',
        'report=False',
      ),
    ),
  ),
  reference='rate 0.001',
  axis=Axis('optimizer.learning_rate', 'learning rate', log=True),
  plots=('curves', 'ranking', 'axis', 'time'),
)


@dataclasses.dataclass
class Session:
  """A study that was stopped, went on, and was asked for once more."""

  folder: Path

  def call(self, *arguments):
    where = [f'--workdir={self.folder}/runs', f'--output={self.folder}/studies']
    return study_lib.main(TINY, [*where, *arguments])

  @property
  def file(self):
    return self.folder / 'studies' / 'tiny-cpu.json'


@pytest.fixture(scope='module')
def session(tmp_path_factory):
  """Stops the tiny study in its second run, and has the same command go on."""
  session = Session(tmp_path_factory.mktemp('study'))
  calls, train = [], runner.train

  class Stop(Callback):
    def on_log(self, step, measures):
      os.kill(os.getpid(), signal.SIGTERM)

  def stopped_in_the_second(loaded, workdir, **options):
    calls.append(workdir)
    stop = [Stop()] if len(calls) == 2 else []
    return train(loaded, workdir, callbacks=stop, **options)

  before = jax.config.read('jax_disable_most_optimizations')
  jax.config.update('jax_disable_most_optimizations', True)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(runner, 'train', stopped_in_the_second)
    assert session.call() == 0
    assert len(calls) == 2
    assert not session.file.exists()
    assert session.call() == 0
  jax.config.update('jax_disable_most_optimizations', before)
  # The first is not trained again, the second goes on.
  assert [str(c.name) for c in calls[1:]].count('rate-0.001-seed0') == 2
  assert len(calls) == 2 + 5
  return session


def test_a_stopped_run_goes_on_where_it_was(session):
  points = (session.folder / 'runs/tiny-cpu/rate-0.001-seed0/metrics.jsonl').read_text()
  steps = [json.loads(line)['step'] for line in points.splitlines()]
  assert sorted(set(steps)) == [3, 6]
  assert steps == sorted(steps)


def test_a_finished_study_trains_nothing(session, monkeypatch, capsys):
  before = session.file.read_bytes()
  monkeypatch.setattr(runner, 'train', None)
  assert session.call() == 0
  assert session.file.read_bytes() == before
  assert 'written' in capsys.readouterr().out


def test_the_record_has_every_run_with_what_it_was_measured_with(session):
  measured = json.loads(session.file.read_text())
  found = [(run['label'], run['seed']) for run in measured['runs']]
  assert found == [(v.label, seed) for seed in (0, 1) for v in TINY.variants]
  for run in measured['runs']:
    summary = session.folder / f'runs/tiny-cpu/{run["label"].replace(" ", "-")}'
    summary = summary.with_name(f'{summary.name}-seed{run["seed"]}') / 'summary.json'
    assert run['diverged'] == (run['label'] == 'far too high') != summary.exists()
    assert run['fields'].keys() == {'optimizer.learning_rate'}
    assert run['command'].endswith(f'--seeds={run["seed"]}-{run["seed"]}')
    if run['diverged']:
      continue
    kept = json.loads(summary.read_text())
    assert {k: run[k] for k in study_lib.KEPT} == {k: kept[k] for k in study_lib.KEPT}
    assert None not in [run[k] for k in study_lib.KEPT if k != 'git_commit']
    assert run['history']['step'] == [3, 6]
    assert run['history']['accuracy'][-1] == run['test_accuracy']
  for variant, wanted in zip(measured['variants'], TINY.variants):
    whole = dict(config.walk(study_lib.resolve(wanted, TINY.budget('cpu'), 0)))
    recorded = variant['config']
    assert set(recorded) == set(whole) - {'seed', 'data.split_seed'}
    numbers = {k: v for k, v in whole.items() if isinstance(v, float) and k in recorded}
    chex.assert_trees_all_equal({k: recorded[k] for k in numbers}, numbers)
  assert measured['variants'][0]['flops'] > 1e5


def test_the_record_names_no_path_of_this_machine(session):
  text = session.file.read_text()
  assert str(session.folder) not in text
  assert str(ROOT) not in text
  assert not re.search(r'["= ]/\w', text)


def test_redrawing_needs_the_record_alone(session, tmp_path, monkeypatch, capsys):
  (tmp_path / session.file.name).write_bytes(session.file.read_bytes())
  monkeypatch.setattr(runner, 'train', None)
  assert study_lib.main(TINY, ['--redraw', f'--output={tmp_path}']) == 0
  drawn = {path.name: path.read_bytes() for path in session.file.parent.iterdir()}
  again = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
  assert drawn == again
  assert len(drawn) == 2 + len(TINY.plots)
  assert all(len(content) < 150_000 for content in drawn.values())
  assert capsys.readouterr().out.strip() in drawn['tiny-cpu.md'].decode().replace(
    '](tiny', '](experiments/studies/tiny'
  )


def test_the_page_says_what_the_record_says(session):
  measured = json.loads(session.file.read_text())
  page = session.file.with_suffix('.md').read_text()
  by_label = {
    label: [r['test_accuracy'] for r in measured['runs'] if r['label'] == label]
    for label in ('rate 0.05', 'rate 0.001')
  }
  for label, values in by_label.items():
    mean, deviation = 100 * np.mean(values), 100 * np.std(values, ddof=1)
    assert f'| {label} | {mean:.2f}% ± {deviation:.2f} |' in page
  change = np.subtract(*(100 * np.mean(values) for values in by_label.values()))
  assert f'| {change:+.2f} (p = ' in page
  assert 'The loss became infinite: far too high (2 of 2 seeds).' in page
  assert '2 seeds' in page
  assert '6 steps' in page


def test_runs_of_another_config_are_not_taken_for_the_studys(session, capsys):
  assert session.call('--set', 'batch_size=32') == 2
  assert 'holds a run with another config (batch_size: 64 -> 32' in (
    capsys.readouterr().err
  )


def test_what_another_process_trains_is_left_to_it(tmp_path, capsys):
  budget = TINY.budget('cpu')
  run = study_lib.trials(TINY, budget, [0], tmp_path)[0]
  with run.directory.locked():
    arguments = [f'--workdir={tmp_path}', '--only=rate 0.05', '--seeds=0-0']
    assert study_lib.main(TINY, arguments) == 0
  printed = capsys.readouterr().out
  assert 'another process trains it' in printed
  assert 'still to come' in printed
  assert not run.finished


def test_a_trial_is_not_written_over_the_study(session, tmp_path, monkeypatch):
  monkeypatch.setattr(study_lib, 'STUDIES', tmp_path / 'studies')
  monkeypatch.setattr(study_lib, 'train', lambda runs: True)
  monkeypatch.setattr(study_lib.StudyTrial, 'finished', True)
  monkeypatch.setattr(study_lib, 'record', lambda *_: {})
  monkeypatch.setattr(study_lib, 'redraw', lambda *_: '')
  assert study_lib.main(TINY, [f'--workdir={tmp_path}', '--set', 'steps=2']) == 0
  assert not (tmp_path / 'studies').exists()
  assert (tmp_path / 'tiny-cpu.json').exists()


@pytest.mark.parametrize('wrong', ['--only=rate 0.5', '--seeds=3-1', '--seeds=x'])
def test_a_mistake_on_the_command_line_has_exit_code_2(wrong, capsys):
  try:
    code = study_lib.main(TINY, [wrong])
  except SystemExit as error:  # out of the parser
    code = error.code
  assert code == 2
  assert wrong.split('=')[1] in capsys.readouterr().err


def made_up(study, accuracies, diverged=()):
  """Returns a record with given accuracies, label -> one for each seed."""
  rates = {v.label: v.overrides[:1] for v in study.variants}
  variants, runs = [], []
  for variant in study.variants:
    one = study_lib.resolve(variant, study.budgets[0], 0)
    fields = dict(config.walk(one))
    paths = [text.partition('=')[0] for text in rates[variant.label]]
    paths += [study.axis.field, *filter(None, [study.axis.lines])]
    variants.append({'label': variant.label, 'flops': 7, 'config': fields})
    for seed, accuracy in enumerate(accuracies[variant.label]):
      gone = (variant.label, seed) in diverged
      kept = dict.fromkeys(study_lib.KEPT) | {
        'task': 'classification',
        'dataset': 'digits',
        'params': 10,
        'steps': 100,
        'epochs': 5.0,
        'test_accuracy': None if gone else accuracy,
        'train_accuracy': 0.5,
        'seconds_total': 30.0,
        'device_kind': 'a core',
      }
      own = {path: fields[path] for path in paths}
      runs.append(
        {'label': variant.label, 'seed': seed, 'fields': own, 'diverged': gone}
        | {'history': {'step': [], 'accuracy': [], 'loss': []}}
        | kept
      )
  budget = dataclasses.asdict(study.budgets[0])
  return {'budget': budget, 'variants': variants, 'runs': runs}


def lines_and_rates():
  return dataclasses.replace(
    TINY,
    variants=tuple(
      Variant(
        f'{name} at {rate}',
        'digits_cnn',
        (f'optimizer.name={name}', f'optimizer.learning_rate={rate}'),
      )
      for name, rates in (('sgd', (0.01, 0.1)), ('adam', (0.001, 0.01)))
      for rate in rates
    ),
    axis=Axis('optimizer.learning_rate', 'rate', 'optimizer.name', log=True),
    reference='',
    plots=('axis',),
  )


def test_two_fields_make_a_grid_and_the_best_of_each_line_is_tested():
  study = lines_and_rates()
  accuracies = {
    'sgd at 0.01': (0.5, 0.52, 0.53),
    'sgd at 0.1': (0.6, 0.62, 0.65),
    'adam at 0.001': (0.7, 0.72, 0.71),
    'adam at 0.01': (0.9, 0.9, 0.3),
  }
  gone = {('adam at 0.01', 0), ('adam at 0.01', 1)}
  measured = made_up(study, accuracies, gone)
  page = study_report.section(study, measured)
  assert '| test accuracy by rate | 0.001 | 0.01 | 0.1 |' in page
  assert '| sgd |  | 51.67% ± 1.53 | 62.33% ± 2.52 |' in page
  assert '| adam | 71.00% ± 1.00 | 30.00% (2 of 3 diverged) |  |' in page
  best, other = accuracies['adam at 0.001'], accuracies['sgd at 0.1']
  p = stats.ttest_ind(best, other, equal_var=False).pvalue
  assert 'adam at 0.001 is 8.67 points above sgd at 0.1 (95 % interval' in page
  assert f'p = {p:.2g}' in page
  # Named once, as what it diverged in: it is the best of no line.
  assert page.count('adam at 0.01 ') == 1
  assert '10 parameters, 7 FLOPs, 5 epochs, 100 steps' in page
  assert study_report.pictures(study, measured).keys() == {'axis'}


def test_a_variant_is_held_against_the_reference():
  measured = made_up(
    TINY,
    {
      'rate 0.05': (0.6, 0.62, 0.65),
      'rate 0.001': (0.5, 0.52, 0.53),
      'far too high': (0.4, 0.45, 0.41),
    },
  )
  page = study_report.section(TINY, measured)
  runs = [[0.6, 0.62, 0.65], [0.4, 0.45, 0.41]]
  base = [0.5, 0.52, 0.53]
  found = [stats.ttest_ind(values, base, equal_var=False).pvalue for values in runs]
  # Holm's correction: the smaller of two is doubled, the larger no smaller than that.
  low = 2 * min(found)
  corrected = [low if p == min(found) else max(p, low) for p in found]
  assert f'| +10.67 (p = {corrected[0]:.2g}) |' in page
  assert f'| -9.67 (p = {corrected[1]:.2g}) |' in page


@pytest.mark.parametrize('name', STUDIES)
def test_the_pages_of_a_study_say_what_its_record_says(name):
  study = results.load(name)
  for file in results.measured(name):
    measured = json.loads(file.read_text())
    assert file.with_suffix('.md').read_text() == study_report.page_of(study, measured)
    for plot in study.plots:
      assert file.with_name(f'{file.stem}-{plot}.png').stat().st_size < 150_000
    labels = [variant.label for variant in study.variants]
    assert [variant['label'] for variant in measured['variants']] == labels
    assert not re.search(r'["= ]/\w', file.read_text())


def test_a_measured_study_comes_into_the_readme(session, monkeypatch):
  monkeypatch.setattr(results, 'NAMES', ('tiny',))
  monkeypatch.setattr(results, 'load', lambda name: TINY)
  before = (ROOT / 'README.md').read_text()
  text = before + '<!-- study tiny: begin -->\nold\n<!-- study tiny: end -->\n'
  assert '\nold\n' not in results.readme(text)
  monkeypatch.setattr(results, 'STUDIES', session.file.parent)
  section = study_report.section(TINY, json.loads(session.file.read_text()))
  assert section in results.readme(text)
  with pytest.raises(ValueError, match='no markers'):
    results.results_table.replaced(before, '', 'study tiny')


@pytest.mark.slow
def test_transfer_is_trained_recorded_and_drawn_like_any_study(
  tmp_path, monkeypatch, capsys, quick_compile
):
  rng = np.random.default_rng(0)
  for split in ('train', 'test'):
    for name in ('a', 'b'):
      folder = tmp_path / 'photos' / split / name
      folder.mkdir(parents=True)
      for i in range(4):
        pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f'{i}.png')
  monkeypatch.setattr(transfer, 'METHODS', {'scratch': transfer.METHODS['scratch']})
  arguments = [
    f'--root={tmp_path}/photos',
    f'--pretrained={tmp_path}/weights.pth',
    '--image_size=32',
    '--per_class=2,4',
    '--steps=1',
    '--seeds=2',
    f'--workdir={tmp_path}/runs',
    f'--output={tmp_path}',
  ]
  for change in (
    'model.stages=1',
    'batch_size=4',
    'schedule.warmup_steps=0',
    'parallel.data=1',
    'report=False',
  ):
    arguments += ['--set', change]
  assert transfer.main(arguments) == 0
  file = tmp_path / 'transfer.json'
  measured = json.loads(file.read_text())
  found = [(run['method'], run['per_class'], run['seed']) for run in measured['runs']]
  assert found == [('scratch', n, seed) for seed in (0, 1) for n in (2, 4)]
  assert str(tmp_path) not in file.read_text()
  table = file.with_suffix('.md').read_text()
  assert '| test accuracy, % | 2 per class | 4 per class |' in table
  accuracies = [
    100 * r['test_accuracy'] for r in measured['runs'] if r['per_class'] == 2
  ]
  assert f'| from scratch | {np.mean(accuracies):.1f} ± ' in table
  assert file.with_suffix('.png').stat().st_size > 1000
  capsys.readouterr()
  assert transfer.main(['--redraw', f'--output={tmp_path}']) == 0
  assert capsys.readouterr().out == table


def test_the_stored_transfer_study_is_drawn_from_its_file():
  file = study_lib.STUDIES / 'transfer.json'
  drawn = transfer.table(transfer.STUDY, json.loads(file.read_text())) + '\n'
  assert file.with_suffix('.md').read_text() == drawn
  study = transfer.made(root='photos', pretrained='weights.pth')
  for variant in study.variants:
    study_lib.resolve(variant, study.budget(''), 1)


def test_scripts_of_two_folders_have_different_names():
  # Both folders are looked up by the names of their files alone: of two files of one
  # name the import takes whichever folder comes first.
  folders = (ROOT / 'experiments', ROOT / 'benchmarks')
  experiments, benchmarks = ({file.stem for file in f.glob('*.py')} for f in folders)
  assert not experiments & benchmarks
