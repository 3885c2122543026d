"""Runs that are killed, stopped or damaged end as if nothing had happened."""

import os
import shutil
import signal
import time

import chex
import numpy as np
import pytest

import jaxvision
from jaxvision.errors import UserError
from jaxvision.training.checkpoints import Checkpoints
from jaxvision.training.run_directory import read_history

ARGUMENTS = (
  '--config=configs/digits_cnn.py',
  '--config.steps=120',
  '--config.checkpoint.every_steps=7',
  '--config.log_every_steps=10',
  '--config.eval_every_steps=60',
  '--config.report=False',
)


def final_state(workdir):
  return jaxvision.load_run(workdir).state


def log_without_speed(workdir):
  return [
    {k: v for k, v in point.items() if k != 'images_per_second'}
    for point in read_history(workdir / 'metrics.jsonl')
  ]


def wait_for(process, condition):
  """Waits until the condition holds; False if the process ended before."""
  deadline = time.monotonic() + 120
  while time.monotonic() < deadline:
    if condition():
      return True
    if process.poll() is not None:
      return False
    time.sleep(0.01)
  raise TimeoutError(process.stdout.read())


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory, command):
  # By the same command: with another number of devices XLA adds in another order.
  workdir = tmp_path_factory.mktemp('uninterrupted') / 'run'
  process = command(*ARGUMENTS, f'--workdir={workdir}')
  output, _ = process.communicate(timeout=300)
  assert process.returncode == 0, output
  return workdir


@pytest.mark.slow
def test_killed_run_resumes_bit_identical(command, tmp_path, uninterrupted):
  workdir = tmp_path / 'run'
  arguments = [*ARGUMENTS, f'--workdir={workdir}']
  checkpoints = workdir / 'checkpoints'
  # Before the first checkpoint is whole; while one is being written; in mid-training.
  moments = [
    lambda: checkpoints.exists(),
    lambda: any('tmp' in p.name for p in checkpoints.iterdir()),
    lambda: len(read_history(workdir / 'metrics.jsonl')) >= 5,
  ]
  for moment in moments:
    process = command(*arguments)
    assert wait_for(process, moment), process.stdout.read()
    process.send_signal(signal.SIGKILL)
    process.communicate()
  process = command(*arguments)
  output, _ = process.communicate(timeout=300)
  assert process.returncode == 0, output
  assert 'resumed at step' in output
  chex.assert_trees_all_equal(final_state(workdir), final_state(uninterrupted))
  assert log_without_speed(workdir) == log_without_speed(uninterrupted)


def test_sigterm_saves_and_exits_4(command, tmp_path, uninterrupted):
  workdir = tmp_path / 'run'
  # Only the signal makes a checkpoint.
  arguments = [*ARGUMENTS, '--config.checkpoint.every_steps=100000']
  process = command(*arguments, f'--workdir={workdir}')
  assert wait_for(process, lambda: read_history(workdir / 'metrics.jsonl'))
  process.send_signal(signal.SIGTERM)
  output, _ = process.communicate(timeout=120)
  assert process.returncode == 4, output
  assert 'stopped by a signal at step' in output
  assert not (workdir / 'summary.json').exists()
  step = int(output.split('stopped by a signal at step ')[1].split()[0])
  assert (workdir / 'checkpoints' / str(step)).is_dir()
  process = command(*arguments, f'--workdir={workdir}')
  output, _ = process.communicate(timeout=300)
  assert process.returncode == 0, output
  assert f'resumed at step {step}' in output
  chex.assert_trees_all_equal(final_state(workdir), final_state(uninterrupted))


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
  ('until', 'codes'),
  [
    ('devices:', {130}),
    ('data:', {130}),
    ('model:', {130}),  # it compiles
    ('compiled ', {130, 4}),
    ('step  30/', {4}),
    ('step 120/120  test:', {4, 0}),
  ],
)
def test_a_signal_at_any_moment_costs_nothing(
  command, tmp_path, uninterrupted, number, until, codes
):
  arguments = [*ARGUMENTS, f'--workdir={tmp_path / "run"}']
  process = command(*arguments)
  for line in process.stdout:
    if line.startswith(until):
      break
  process.send_signal(number)
  output, _ = process.communicate(timeout=120)
  assert process.returncode in codes, output
  assert 'Traceback' not in output
  assert 'Exception ignored' not in output
  process = command(*arguments)
  output, _ = process.communicate(timeout=300)
  assert process.returncode == 0, output
  chex.assert_trees_all_equal(final_state(tmp_path / 'run'), final_state(uninterrupted))


def truncate(step_dir):
  files = [p for p in (step_dir / 'state').rglob('*') if p.is_file()]
  largest = max(files, key=lambda p: p.stat().st_size)
  os.truncate(largest, largest.stat().st_size // 2)


def flip_bits(step_dir):
  files = [p for p in (step_dir / 'state').rglob('*') if p.is_file()]
  largest = max(files, key=lambda p: p.stat().st_size)
  raw = bytearray(largest.read_bytes())
  raw[len(raw) // 2] ^= 0xFF
  largest.write_bytes(raw)


def lose_the_record(step_dir):
  shutil.rmtree(step_dir / 'record')


def empty(step_dir):
  shutil.rmtree(step_dir)
  step_dir.mkdir()


@pytest.fixture(scope='module')
def good(tmp_path_factory, short_run):
  """The directory of a short run, with the checkpoints of steps 8 and 12."""
  workdir = tmp_path_factory.mktemp('good') / 'run'
  jaxvision.train(short_run(), workdir, quiet=True)
  return workdir


@pytest.mark.parametrize('damage', [truncate, flip_bits, lose_the_record, empty])
def test_damaged_checkpoint_is_skipped_with_a_warning(
  digits_config, good, tmp_path, capsys, caplog, damage
):
  workdir = shutil.copytree(good, tmp_path / 'run')
  # As if it had been killed after the save of step 12: that one is damaged, 8 is whole.
  (workdir / 'summary.json').unlink()
  damage(workdir / 'checkpoints' / '12')
  jaxvision.train(digits_config, workdir)
  assert 'checkpoint of step 12 is damaged' in caplog.text
  assert 'resumed at step 8' in capsys.readouterr().out
  assert (workdir / 'checkpoints' / 'damaged-12').is_dir()
  chex.assert_trees_all_equal(final_state(workdir), final_state(good))


def test_run_without_a_whole_checkpoint_stops(digits_config, good, tmp_path):
  workdir = shutil.copytree(good, tmp_path / 'run')
  before = sorted(path.name for path in (workdir / 'checkpoints').iterdir())
  for step in before:
    lose_the_record(workdir / 'checkpoints' / step)
  for _ in range(2):
    with pytest.raises(UserError, match='no checkpoint is whole.*--overwrite'):
      jaxvision.train(digits_config, workdir, quiet=True)
    after = sorted(path.name for path in (workdir / 'checkpoints').iterdir())
    assert after == before
  jaxvision.train(digits_config, workdir, quiet=True, overwrite=True)
  chex.assert_trees_all_equal(final_state(workdir), final_state(good))


def test_half_written_checkpoint_is_ignored(good, tmp_path):
  workdir = shutil.copytree(good, tmp_path / 'run')
  before = final_state(workdir)
  half = workdir / 'checkpoints' / '99.orbax-checkpoint-tmp'
  shutil.copytree(workdir / 'checkpoints' / '12', half)
  run = jaxvision.load_run(workdir)
  assert run.step == 12
  chex.assert_trees_all_equal(run.state, before)


def test_newest_and_best_are_kept(tmp_path):
  checkpoints = Checkpoints(tmp_path, keep=2)
  for step, accuracy in enumerate([0.1, 0.9, 0.2, 0.3, 0.4], start=1):
    assert checkpoints.save(
      step, {'w': np.full(3, step, np.float32)}, {}, {'accuracy': accuracy}
    )
    checkpoints.wait()
  assert checkpoints.steps() == [2, 4, 5]
  assert checkpoints.best_step() == 2
  checkpoints.close()


def test_checkpoint_of_a_state_that_is_not_finite_is_refused(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  assert not checkpoints.save(1, {'w': np.array([1.0, np.nan], np.float32)}, {})
  assert checkpoints.steps() == []
  checkpoints.close()


def test_finished_run_is_evaluated_again(digits_config, tmp_path, capsys):
  first = jaxvision.train(digits_config, tmp_path / 'run', quiet=True)
  again = jaxvision.train(digits_config, tmp_path / 'run')
  assert again == first
  output = capsys.readouterr().out
  assert 'is finished (12 steps)' in output
  assert f'{first["test_accuracy"]:.2%}' in output
