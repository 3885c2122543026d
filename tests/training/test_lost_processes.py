"""A process of a run dies or hangs: the others say so and end, and the run goes on."""

import json
import os
import signal
import time

import pytest
from launched import Runs, kill_at_random, started


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  return Runs(tmp_path_factory.mktemp('runs'))


@pytest.mark.slow
@pytest.mark.parametrize(
  ('which', 'number', 'said'),
  [
    (0, signal.SIGKILL, 'process 0 of 2 has ended'),
    (1, signal.SIGSTOP, 'process 1 of 2 has given no sign of life for 5 s'),
  ],
)
def test_a_process_that_is_lost_ends_the_others_and_the_run_goes_on(
  runs, which, number, said
):
  name = f'lost{which}{number.name}'
  launcher, children, printed = started(
    runs,
    name,
    '--config.checkpoint.every_steps=4',
    '--config.parallel.heartbeat_timeout=5',
  )
  while not runs.saved(name):
    time.sleep(0.05)
  os.kill(children[which], number)
  rest, _ = launcher.communicate(timeout=120)
  assert launcher.returncode in (1, 137), ''.join(printed) + rest
  assert [line for line in rest.splitlines() if 'error: ' in line] == [
    f'[{1 - which}] error: {said}'
    + ' (parallel.heartbeat_timeout)' * (number == signal.SIGSTOP)
    + '; start all again: training goes on from the last checkpoint'
  ]
  assert 'Traceback' not in rest
  assert 'Terminating process' not in rest  # by JAX, with a trace of its own
  steps = max(runs.saved(name)) + 4
  code, again = runs.train(name, 2, f'--config.steps={steps}', '--extend')
  assert code == 0, again


@pytest.mark.slow
def test_a_run_that_is_killed_at_random_ends_as_one_that_is_not(runs):
  options = ('--config.steps=60', '--config.checkpoint.every_steps=2')
  code, printed = runs.train('whole', 2, *options)
  assert code == 0, printed
  code, killed, printed = kill_at_random(runs, 'often', 2, 3, 0, *options)
  assert code == 0, printed
  assert killed == 3
  assert 'Traceback' not in printed
  assert runs.points('often') == runs.points('whole')
  summaries = [
    json.loads((runs.folder / name / 'summary.json').read_text())
    for name in ('often', 'whole')
  ]
  assert summaries[0]['test_loss'] == summaries[1]['test_loss']
  assert (summaries[0]['starts'], summaries[1]['starts']) == (4, 1)
