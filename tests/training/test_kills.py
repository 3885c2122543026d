"""Runs that are killed again and again end with the bits of one that never was.

Of every task and pipeline, at moments spread over the whole command: start, compilation,
training, saving, evaluation, report. `make test ARGS='-m slow tests/training/test_kills.py'`.
"""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import chex
import jax
import pytest

import jaxvision
from jaxvision.training.run_directory import RunDirectory, read_history

pytestmark = pytest.mark.slow

KILLS = 6  # of each run; the moments are drawn anew each time
EXAMPLES = Path(__file__).resolve().parents[2] / 'examples'
OFTEN = ('checkpoint.every_steps=10', 'log_every_steps=10', 'eval_every_steps=40')
DIGITS = ('configs/digits_cnn.py', 'steps=200', *OFTEN)
GAN = (
  'configs/digits_dcgan.py',
  'model.width=8',
  'data.image_size=8',
  'batch_size=16',
  'steps=200',
  *OFTEN,
)
DATA = """
import numpy as np
from jaxvision import data

def digits(targets):
  splits = data.load('digits').splits
  return {name: (s.images, targets(s.labels)) for name, s in splits.items()}

def several():
  return digits(lambda y: np.stack([y % 2, y % 3 == 0, y > 4], 1).astype(np.uint8))

def number():
  return digits(lambda y: (y / 10).astype(np.float32)[:, None])
"""
STREAMING = 'data.pipeline=streaming'
AVERAGED = ('lookahead.every=5', 'grad_accumulation=2', 'data.balanced=True')
SCHEDULE_FREE = (
  'optimizer.schedule_free=True',
  'schedule.name=constant',
  'schedule.warmup_steps=5',
  'optimizer.sam=0.05',
)
RUNS = {
  'classification': DIGITS,
  'streaming': (*DIGITS, STREAMING),
  'workers': (*DIGITS, STREAMING, 'data.workers=1'),
  'averaged': (*DIGITS, *AVERAGED),
  'schedule-free': (*DIGITS, *SCHEDULE_FREE),
  'multilabel': (*DIGITS, 'task=multilabel', 'data.name={data}:several'),
  'regression': (
    *DIGITS,
    'task=regression',
    'data.name={data}:number',
    'optimizer.learning_rate=0.001',
    STREAMING,
  ),
  'gan': GAN,
  'gan-streaming': (*GAN, STREAMING),
  'rotation': (*DIGITS, f'task={EXAMPLES}/rotation_task.py:Rotation'),
  'denoising': (*DIGITS, f'task={EXAMPLES}/denoising_task.py:Denoising', STREAMING),
}


def without_speed(workdir):
  return [
    {k: v for k, v in point.items() if k != 'images_per_second'}
    for point in read_history(workdir / 'metrics.jsonl')
  ]


def measured(workdir):
  """Returns the numbers of a summary, but for those that time, memory or kills decide."""
  return {
    key: value
    for key, value in RunDirectory(workdir).summary().items()
    if isinstance(value, int | float)
    and not key.startswith(('seconds_', 'images_per', 'peak_memory'))
    and key not in ('goodput', 'starts', 'repeated_steps')
  }


def end(process):
  output, _ = process.communicate(timeout=600)
  assert process.returncode == 0, output
  return output


def assert_same(workdir, whole):
  states = [jax.device_get(jaxvision.load_run(path).state) for path in (workdir, whole)]
  chex.assert_trees_all_equal(*states)
  assert without_speed(workdir) == without_speed(whole)
  assert measured(workdir) == measured(whole)
  for picture in (whole / 'samples').glob('*.png'):
    assert (workdir / 'samples' / picture.name).read_bytes() == picture.read_bytes()


def kill_at(process, seconds):
  """Kills a process and its children after so many seconds; False if it had ended."""
  try:
    process.wait(seconds)
  except subprocess.TimeoutExpired:
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return True
  return False


@pytest.mark.parametrize('name', RUNS)
def test_killed_runs_end_bit_identical(name, command, tmp_path):
  (tmp_path / 'data.py').write_text(DATA)
  config, *fields = (field.format(data=tmp_path / 'data.py') for field in RUNS[name])
  arguments = [f'--config={config}', *(f'--config.{field}' for field in fields)]
  end(command(*arguments, f'--workdir={tmp_path / "whole"}'))  # with a cold cache
  begun = time.monotonic()
  end(command(*arguments, f'--workdir={tmp_path / "again"}'))
  seconds = time.monotonic() - begun
  assert_same(tmp_path / 'again', tmp_path / 'whole')
  seed = int(os.environ.get('KILLS_SEED', time.time_ns() % 1_000_000))
  moments, kills = random.Random(seed), 0
  print(f'KILLS_SEED={seed}')
  workdir = tmp_path / 'killed'
  while kills < KILLS:
    process = command(*arguments, f'--workdir={workdir}')
    if kill_at(process, moments.uniform(0.2, 1.0) * seconds):
      kills += 1
    else:  # it has come to its end in parts
      assert process.returncode == 0, process.stdout.read()
      process.communicate()
      assert_same(workdir, tmp_path / 'whole')
      workdir = tmp_path / f'killed-{kills}'
  end(command(*arguments, f'--workdir={workdir}'))
  assert_same(workdir, tmp_path / 'whole')


def test_a_killed_extension_ends_bit_identical(command, tmp_path):
  arguments = ['--config=configs/digits_cnn.py', *(f'--config.{f}' for f in OFTEN)]
  longer = [*arguments, '--config.steps=200', '--extend']
  for name in ('whole', 'killed'):
    end(command(*arguments, '--config.steps=100', f'--workdir={tmp_path / name}'))
  begun = time.monotonic()
  end(command(*longer, f'--workdir={tmp_path / "whole"}'))
  seconds = time.monotonic() - begun
  for _ in range(KILLS):
    process = command(*longer, f'--workdir={tmp_path / "killed"}')
    kill_at(process, random.uniform(0.2, 1.0) * seconds)
  end(command(*longer, f'--workdir={tmp_path / "killed"}'))
  assert_same(tmp_path / 'killed', tmp_path / 'whole')
  segments = [
    [(s['first_step'], s['last_step'], s['changes']) for s in summary['segments']]
    for summary in (RunDirectory(tmp_path / n).summary() for n in ('whole', 'killed'))
  ]
  assert segments[0] == segments[1]
  assert len(segments[0]) == 2
