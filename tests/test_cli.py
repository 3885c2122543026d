"""What the command line takes, what it refuses, and what it says was meant."""

from pathlib import Path

import pytest
from command_line import DIGITS, assert_refused

from jaxvision.cli import COMMANDS, parse
from jaxvision.config import FIELDS, walk
from jaxvision.errors import UserError


def refused(*arguments):
  with pytest.raises(UserError) as error:
    parse(arguments)
  message = str(error.value)
  assert '\n' not in message
  return message


def arguments_of(name):
  return [name, DIGITS] if COMMANDS[name].config != 'none' else [name]


@pytest.mark.parametrize('name', [n for n, c in COMMANDS.items() if c.reads != ('',)])
def test_a_command_refuses_the_overrides_that_it_does_not_read(name):
  reads = COMMANDS[name].reads
  taken = [path for path, _ in walk(FIELDS) if path.startswith(reads)]
  assert taken, 'the table names a field that there is not'
  for path in {path.split('.')[0]: path for path, _ in walk(FIELDS)}.values():
    arguments = (*arguments_of(name), f'--config.{path}=1')
    if path in taken or (name, path) == ('eval', 'init.pretrained'):
      assert parse(arguments)[1] == [f'{path}=1']
    else:
      message = refused(*arguments)
      assert path in message
      assert all(field.rstrip('.') in message for field in reads)
  assert 'takes no --config.nosuch' in refused(*arguments_of(name), '--config.nosuch=3')


def test_every_entry_of_the_table_begins_a_field():
  paths = [path for path, _ in walk(FIELDS)]
  for command in COMMANDS.values():
    for field in command.reads:
      exact = not field.endswith('.') and field
      assert any(p == field if exact else p.startswith(field) for p in paths), field


def test_a_run_that_is_named_is_not_looked_for_by_a_config():
  for name in ('predict', 'export', 'sample'):
    message = refused(name, '--workdir=run', '--config.evaluation.tta=flip')
    assert 'evaluation.tta' in message
    assert 'name' in refused(name, '--workdir=run', '--config.name=other')


def test_weights_from_elsewhere_are_evaluated_with_their_model():
  weights = '--config.init.pretrained=weights.pth'
  parse(['eval', DIGITS, weights, '--config.model.name=resnet18'])
  assert 'optimizer.name' in refused(
    'eval', DIGITS, weights, '--config.optimizer.name=adam'
  )


@pytest.mark.parametrize(
  ('arguments', 'wanted'),
  [
    ('--lr=0.1', '--config.optimizer.learning_rate=0.1'),
    ('--epochs=3', '--config.epochs=3'),
    ('--data.dir=x', '--config.data.dir=x'),
    ('--batch-size=3', '--config.batch_size=3'),
    ('train --seed=3', '--config.seed=3'),
    ('sample --seeds=3', '--seed'),
    ('--wrokdir=x', '--workdir'),
    ('--output-dir=x', '--workdir=x'),
    ('--resume', 'goes on with a run by itself'),
    ('--config.seed 1', '--config.seed=1'),
    ('--config.report false', '--config.report=false'),
    ('train configs/digits_cnn.py', 'train --config=configs/digits_cnn.py'),
    ('configs/digits_cnn.py', 'train --config=configs/digits_cnn.py'),
    ('train --nonsense', 'see train --help'),
    ('compare a --lr=3', 'see compare --help'),
  ],
)
def test_what_was_meant(arguments, wanted):
  assert wanted in refused(*arguments.split())


def test_a_folder_that_stands_alone_is_a_workdir(tmp_path):
  assert f'eval --workdir={tmp_path}' in refused('eval', str(tmp_path))


def test_a_boolean_may_stand_before_an_argument():
  options, overrides = parse(['prepare', '--config.data.skip_unreadable', 'mnist'])
  assert (options.inputs, overrides) == (['mnist'], ['data.skip_unreadable'])


def test_arguments_may_stand_before_and_behind_an_option():
  options, _ = parse(['predict', '--workdir=run', 'a.png', '--top=3', 'b.png'])
  assert options.inputs == ['a.png', 'b.png']


@pytest.mark.parametrize(
  'arguments',
  [
    ['predict', '--workdir=run', ''],
    ['predict', '--workdir=', 'a.png'],
    ['train', '--config='],
    ['sample', '--workdir=run', '--output='],
    ['compare', 'run', ''],
  ],
)
def test_nothing_is_no_value(arguments):
  assert 'empty' in refused(*arguments)


def test_home_is_expanded_and_urls_are_refused(monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  options, _ = parse(['train', '--config=~/a.py', '--workdir=~/run'])
  assert options.config == str(tmp_path / 'a.py')
  assert options.workdir == str(tmp_path / 'run')
  assert parse(['compare', '~/a', '~/b'])[0].inputs == [
    str(tmp_path / name) for name in 'ab'
  ]
  assert 'URL' in refused('train', '--config=a.py', '--workdir=gs://bucket/run')
  assert 'URL' in refused('predict', '--workdir=run', 'https://host/a.png')


def test_summary_and_prepare_take_one_of_two(call):
  assert_refused(call('summary', DIGITS, '--workdir=run'), 'not both')
  assert_refused(call('prepare', 'mnist', '--config.data.name=digits'), 'not both')
  assert not Path('run').exists()
