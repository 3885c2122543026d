"""The command `train`."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import DIGITS, assert_refused

from jaxvision.training.run_directory import RunDirectory


@pytest.mark.parametrize(
  ('overrides', 'wanted'),
  [
    (['--config.batch_sise=3'], ['batch_sise', 'did you mean "batch_size"']),
    (['--config.batch_size=many'], ['batch_size', 'type int', "'many'"]),
    (['--config.batch_size=-4'], ['batch_size must be at least 1']),
    (['--config.batch_size=100000'], ['100000 is larger than', '1438 images']),
    (['--config.optimizer.name=sdg'], ['sdg', 'did you mean "sgd"']),
    (['--config.model.name=resnet'], ['resnet', 'did you mean "resnet']),
    (['--config.model.widht=3'], ['widht']),
    (['--config.dtype=float16'], ['dtype must be one of float32, bfloat16']),
    (['--config.data.name=cifar11', '--config.data.dir=NOWHERE'], ['cifar11']),
    (['--config.data.name=folder'], ['--config.data.root=DIR']),
    (['--config.data.name=folder', '--config.data.root=NOWHERE'], ['NOWHERE']),
    (['--config.augment.crop_padding=9'], ['crop_padding']),
    (['--confg.seed=1'], ['--confg.seed=1']),
    (['--config.parallel.data=64'], ['parallel.data=64']),
  ],
)
def test_usage_error_is_one_line_with_exit_code_2(call, tmp_path, overrides, wanted):
  workdir = tmp_path / 'run'
  assert_refused(call(DIGITS, f'--workdir={workdir}', *overrides), *wanted)
  assert not workdir.exists()


def test_help_config_lists_every_field(call):
  from jaxvision.config import FIELDS, walk

  code, output, _ = call('train', '--help-config')
  assert code == 0
  for name, _ in walk(FIELDS):
    assert f'{name} = ' in output


def test_workdir_with_other_config_is_refused_and_overwrite_replaces_it(call, tmp_path):
  workdir = tmp_path / 'run'
  short = [
    DIGITS,
    f'--workdir={workdir}',
    '--config.steps=2',
    '--config.parallel.data=1',
    '--config.report=False',
  ]
  assert call(*short)[0] == 0
  before = (workdir / 'config.json').read_text()
  other = [*short, '--config.seed=1', '--config.model.dropout=0.3']
  assert_refused(
    call(*other), 'seed: 0 -> 1', 'model.dropout', '--workdir=DIR', '--overwrite'
  )
  assert (workdir / 'config.json').read_text() == before
  assert call(*other, '--overwrite')[0] == 0
  assert json.loads((workdir / 'summary.json').read_text())['seed'] == 1


def test_folder_without_run_is_left_untouched(call, tmp_path):
  (tmp_path / 'thesis.tex').write_text('years of work')
  for extra in ([], ['--overwrite']):
    assert_refused(call(DIGITS, f'--workdir={tmp_path}', *extra), 'thesis.tex')
  assert [p.name for p in tmp_path.iterdir()] == ['thesis.tex']
  assert_refused(call(DIGITS, f'--workdir={tmp_path / "thesis.tex"}'), 'is a file')


def test_diverged_training_has_exit_code_3(call, tmp_path):
  code, _, errors = call(
    DIGITS,
    f'--workdir={tmp_path / "run"}',
    '--config.optimizer.learning_rate=1e30',
    '--config.steps=30',
    '--config.parallel.data=1',
  )
  assert code == 3
  assert 'diverged' in errors
  assert 'Traceback' not in errors


@pytest.mark.parametrize('extra', [(), ('--seeds=2',)])
def test_training_that_a_signal_has_stopped_has_exit_code_4(
  call, tmp_path, monkeypatch, extra
):
  started = []

  def stopped(config, workdir, **options):
    started.append(workdir)

  # The runner first: imported later, it would take and keep the other's stand-in.
  monkeypatch.setattr('jaxvision.commands.runner.train', stopped)
  monkeypatch.setattr('jaxvision.commands.train.train', stopped)
  assert call(DIGITS, f'--workdir={tmp_path / "run"}', *extra)[0] == 4
  assert len(started) == 1  # the second seed is left


def test_training_imports_neither_tensorflow_nor_pytorch(tmp_path):
  check = (
    'import sys; from jaxvision.main import main; '
    f"code = main(['{DIGITS}', '--config.steps=2', "
    f"'--config.parallel.data=1', '--workdir={tmp_path / 'run'}']); "
    "sys.exit(code or {'tensorflow', 'torch'} & set(sys.modules) or 0)"
  )
  subprocess.run([sys.executable, '-c', check], check=True, stdout=subprocess.DEVNULL)


def test_seeds_are_runs_of_their_own_and_their_spread_is_printed(
  call, tmp_path, quick_compile
):
  arguments = (
    DIGITS,
    '--seeds=3',
    f'--workdir={tmp_path / "run"}',
    '--config.steps=4',
    '--config.parallel.data=1',
    '--config.report=False',
  )
  code, output, errors = call(*arguments)
  assert code == 0, errors
  runs = [RunDirectory(tmp_path / f'run-seed{seed}') for seed in range(3)]
  assert [run.config().seed for run in runs] == [0, 1, 2]
  values = [run.summary()['test_accuracy'] for run in runs]
  each = ', '.join(f'{value:.2%}' for value in values)
  spread = (
    f'test accuracy: {statistics.mean(values):.2%} ± {100 * statistics.stdev(values):.2f}'
    f' (3 seeds: {each})'
  )
  assert output.splitlines()[-1] == spread
  logs = [run.metrics_file.read_text() for run in runs]

  code, output, _ = call(*arguments)
  assert code == 0
  assert output == f'{spread}\n'  # nothing was trained
  assert [run.metrics_file.read_text() for run in runs] == logs
  assert_refused(call(*arguments[:1], '--seeds=-1'), '--seeds must be at least 1')


def test_what_is_no_part_of_a_run_may_change_and_the_rest_is_told_in_order(
  call, tmp_path
):
  workdir = f'--workdir={tmp_path / "run"}'
  short = ['--config.steps=2', '--config.parallel.data=1', '--config.report=False']
  assert call(DIGITS, workdir, *short)[0] == 0
  renamed = tmp_path / 'renamed.py'
  renamed.write_text(Path('configs/digits_cnn.py').read_text())
  free = ['--config.log_every_steps=1', '--config.eval_every_steps=1']
  free += ['--config.checkpoint.every_steps=1', '--config.callbacks=']
  code, output, errors = call(f'--config={renamed}', workdir, *short, *free)
  assert code == 0, errors
  assert 'is finished' in output
  # Without a config the run's own holds, and overrides are of that.
  code, output, errors = call('train', workdir, '--config.report=False')
  assert code == 0, errors
  assert_refused(call('train', workdir, '--config.seed=4'), 'seed: 0 -> 4')
  # A name that nothing has is told before what differs from the run.
  assert_refused(
    call('train', workdir, '--config.model.name=resnet19'), 'did you mean "resnet18"'
  )
  assert_refused(
    call(DIGITS, workdir, *short, '--config.init.skip=head'), 'init.skip', 'workdir'
  )


def test_init_skip_without_weights_is_refused(call, tmp_path):
  assert_refused(
    call(DIGITS, f'--workdir={tmp_path / "run"}', '--config.init.skip=head'),
    'init.skip',
    'init.pretrained is empty',
  )
  assert not (tmp_path / 'run').exists()
