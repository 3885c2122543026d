"""`train --extend`: a run goes on for longer, or with other numbers, from its last step."""

import json
import shutil

import chex
import pytest

import jaxvision
from jaxvision import config as config_lib
from jaxvision.commands.compare import compare
from jaxvision.errors import UserError
from jaxvision.training import segments
from jaxvision.training.loop import TrainLoop
from jaxvision.training.run_directory import RunDirectory, read_history, write_json


def with_fields(config, **fields):
  changed = config_lib.thaw(config)
  for path, value in fields.items():
    config_lib.put(changed, path.replace('__', '.'), value)
  return changed


def files_of(workdir):
  """Returns path -> content, but for the lock."""
  return {
    path.relative_to(workdir): path.read_bytes()
    for path in workdir.rglob('*')
    if path.is_file() and not path.name.startswith('.')
  }


def measures(workdir):
  return [
    {k: v for k, v in point.items() if k != 'images_per_second'}
    for point in read_history(workdir / 'metrics.jsonl')
  ]


@pytest.fixture(scope='module')
def short(tmp_path_factory, short_run):
  """A finished run of 6 steps."""
  workdir = tmp_path_factory.mktemp('short') / 'run'
  config = with_fields(
    short_run(),
    steps=6,
    schedule__name='constant',
    log_every_steps=3,
    checkpoint__keep=5,
  )
  jaxvision.train(config, workdir, quiet=True)
  return config, workdir


@pytest.fixture
def copied(short, tmp_path):
  """The same, to be changed: (config, workdir)."""
  config, workdir = short
  return config, shutil.copytree(workdir, tmp_path / 'copied')


@pytest.mark.parametrize(
  'fields',
  [{}, pytest.param({'data__pipeline': 'streaming'}, marks=pytest.mark.slow)],
  ids=['resident', 'streaming'],
)
def test_an_extended_run_equals_one_of_that_length(short_run, tmp_path, fields):
  config = with_fields(
    short_run(), schedule__name='constant', log_every_steps=3, **fields
  )
  jaxvision.train(with_fields(config, steps=6), tmp_path / 'run', quiet=True)
  extended = jaxvision.train(config, tmp_path / 'run', extend=True, quiet=True)
  whole = jaxvision.train(config, tmp_path / 'whole', quiet=True)
  chex.assert_trees_all_equal(
    jaxvision.load_run(tmp_path / 'run').state,
    jaxvision.load_run(tmp_path / 'whole').state,
  )
  after = [point for point in measures(tmp_path / 'run') if point['step'] > 6]
  assert after == [p for p in measures(tmp_path / 'whole') if p['step'] > 6]
  assert extended['steps'] == whole['steps'] == 12
  assert extended['test_accuracy'] == whole['test_accuracy']


def test_the_summary_holds_the_segments(copied, capsys):
  config, workdir = copied
  before = RunDirectory(workdir).summary()
  longer = with_fields(config, steps=9, optimizer__learning_rate=0.02)
  first = jaxvision.train(longer, workdir, extend=True)
  said = capsys.readouterr().out
  assert 'extended at step 6: optimizer.learning_rate' in said
  assert 'steps 6 -> 9; learning rate' in said
  assert 'now by constant over all 9 steps: 0.02 at step 7, 0.02 at step 9' in said
  assert first['segments'] == [
    {
      'first_step': 0,
      'last_step': 6,
      'changes': {},
      'result': {'test_accuracy': before['test_accuracy']},
    },
    {
      'first_step': 6,
      'last_step': 9,
      'changes': {
        'optimizer.learning_rate': [config.optimizer.learning_rate, 0.02],
        'steps': [6, 9],
      },
      'result': None,
    },
  ]
  assert RunDirectory(workdir).segments()[0]['summary'] == before
  # The same call again has nothing to do; a further one adds a segment.
  assert jaxvision.train(longer, workdir, extend=True, quiet=True) == first
  third = jaxvision.train(
    with_fields(longer, steps=12), workdir, extend=True, quiet=True
  )
  ends = [(s['first_step'], s['last_step']) for s in third['segments']]
  assert ends == [(0, 6), (6, 9), (9, 12)]


@pytest.mark.slow
def test_an_extended_run_says_so_in_its_report_and_is_compared_apart(
  copied, short_run, tmp_path
):
  config, workdir = copied
  longer = with_fields(config, steps=9)
  jaxvision.train(longer, workdir, extend=True, quiet=True)
  jaxvision.evaluate(workdir, quiet=True)
  report = json.loads((workdir / 'report' / 'report.json').read_text())
  assert 'Extended at step 6: steps 6 -> 9.' in report['notes']
  jaxvision.train(longer, tmp_path / 'whole', quiet=True)
  compared, _ = compare([workdir, tmp_path / 'whole'], tmp_path / 'comparison')
  assert compared.fields == ('extended',)


def test_an_extension_that_is_killed_goes_on_by_the_same_call(copied, monkeypatch):
  config, workdir = copied
  longer = with_fields(config, steps=9, schedule__name='linear')

  def killed(*args):
    raise KeyboardInterrupt

  moments = [
    (RunDirectory, 'write_segments'),
    (RunDirectory, 'open'),
    (TrainLoop, 'run'),
  ]
  for owner, name in moments:
    monkeypatch.setattr(owner, name, killed)
    with pytest.raises(KeyboardInterrupt):
      jaxvision.train(longer, workdir, extend=True, quiet=True)
    monkeypatch.undo()
  summary = jaxvision.train(longer, workdir, quiet=True)
  assert summary['steps'] == 9
  assert [s['first_step'] for s in summary['segments']] == [0, 6]
  assert summary['segments'][1]['changes'].keys() == {'steps', 'schedule.name'}


def test_a_run_that_has_not_begun_is_changed_alone(short_run, tmp_path):
  directory = RunDirectory(tmp_path)
  directory.open(with_fields(short_run(), steps=6))
  summary = jaxvision.train(short_run(), tmp_path, extend=True, quiet=True)
  assert (summary['steps'], summary['segments']) == (12, [])


def test_a_run_that_a_callback_ended_goes_on(short_run, tmp_path):
  stopping = with_fields(
    short_run(),
    eval_every_steps=2,
    early_stopping__patience=1,
    early_stopping__min_delta=2.0,
  )
  ended = jaxvision.train(stopping, tmp_path, quiet=True)
  assert ended['stopped_by']
  assert ended['steps'] < 12
  patient = with_fields(stopping, early_stopping__patience=0)
  # Free fields: without --extend an ended run stays ended.
  assert jaxvision.train(patient, tmp_path, quiet=True)['steps'] == ended['steps']
  directory = RunDirectory(tmp_path)
  directory.open(stopping)
  summary = jaxvision.train(patient, tmp_path, extend=True, quiet=True)
  assert (summary['steps'], summary['stopped_by']) == (12, None)
  assert summary['segments'][1]['changes'] == {'early_stopping.patience': [1, 0]}


def test_a_damaged_checkpoint_moves_the_segment_back(copied):
  config, workdir = copied
  longer = with_fields(config, steps=9)
  jaxvision.train(longer, workdir, extend=True, quiet=True)
  (workdir / 'summary.json').unlink()
  for step in (6, 8, 9):
    shutil.rmtree(workdir / 'checkpoints' / str(step) / 'record')
  summary = jaxvision.train(longer, workdir, quiet=True)
  assert [s['first_step'] for s in summary['segments']] == [0, 4]


@pytest.mark.parametrize(
  ('fields', 'words'),
  [
    ({'batch_size': 8}, r'--extend cannot change batch_size 64 -> 8 in .*only steps, '),
    ({'model__width': 8, 'steps': 9}, r'cannot change model.width None -> 8 in'),
    ({'seed': 3}, r'cannot change seed 0 -> 3 in'),
    ({'steps': 5}, r'stands at step 6, and would end at step 5: give it more'),
  ],
)
def test_what_cannot_be_extended_is_refused_and_nothing_is_changed(
  copied, fields, words
):
  config, workdir = copied
  before = files_of(workdir)
  with pytest.raises(UserError, match=words):
    jaxvision.train(with_fields(config, **fields), workdir, extend=True, quiet=True)
  assert files_of(workdir) == before


def test_another_shape_of_the_state_is_refused(copied):
  config, workdir = copied
  before = files_of(workdir)
  changed = with_fields(config, steps=9, optimizer__momentum=0.0)
  with pytest.raises(UserError, match='shape|another'):
    jaxvision.train(changed, workdir, extend=True, quiet=True)
  assert files_of(workdir) == before


def test_extend_wants_a_run(digits_config, tmp_path):
  with pytest.raises(UserError, match='no run in .* to extend: train it without'):
    jaxvision.train(digits_config, tmp_path / 'none', extend=True, quiet=True)
  assert not (tmp_path / 'none').exists()
  with pytest.raises(UserError, match='--extend goes on with a run, and --overwrite'):
    jaxvision.train(digits_config, tmp_path, extend=True, overwrite=True, quiet=True)


def test_another_config_is_told_of_extend_where_that_helps(copied):
  config, workdir = copied
  with pytest.raises(UserError, match='go on with that run and these values by --ext'):
    jaxvision.train(with_fields(config, steps=9), workdir, quiet=True)
  with pytest.raises(UserError) as told:
    jaxvision.train(with_fields(config, batch_size=8), workdir, quiet=True)
  assert '--extend' not in str(told.value)


@pytest.mark.parametrize(
  'entries',
  [
    3,
    [{}],
    [{'first_step': 1}],
    [{'first_step': 1, 'changes': {'a': 1}, 'summary': None}],
    [{'first_step': 1, 'changes': {}, 'summary': 3}],
    [{'first_step': 1, 'changes': {}, 'summary': None, 'wings': 2}],
  ],
)
def test_damaged_segments_are_told(tmp_path, entries):
  directory = RunDirectory(tmp_path)
  write_json(directory.segments_file, {'segments': entries})
  with pytest.raises(UserError, match=r'segments\.json is damaged'):
    segments.read(directory)


@pytest.mark.slow
def test_seeds_are_extended(call, tmp_path, short_run):
  config = tmp_path / 'config.json'
  config.write_text(
    config_lib.to_json(with_fields(short_run(), steps=6, checkpoint__every_steps=3))
  )
  arguments = [f'--config={config}', f'--workdir={tmp_path / "run"}', '--seeds=2']
  code, _, errors = call('train', *arguments)
  assert code == 0, errors
  code, said, errors = call('train', *arguments, '--extend', '--config.steps=9')
  assert code == 0, errors
  assert said.count('extended at step 6') == 2
  code, said, _ = call('train', *arguments, '--extend', '--config.steps=9')
  assert (code, said.count('extended')) == (0, 0)
  assert '2 seeds' in said
