"""The seconds of a run by what they were spent for, over interruptions."""

import time

import pytest

import jaxvision
from jaxvision.errors import UserError
from jaxvision.reports.html import time_shares
from jaxvision.training.clock import RunClock
from jaxvision.training.run_directory import RunDirectory


def test_seconds_are_counted_by_kind():
  clock = RunClock(time.perf_counter() - 10.0)
  clock.started(compiling=4.0)
  clock.add('compile', 4.0)
  clock.add('train', 2.0)
  with clock.spent_for('evaluation'):
    time.sleep(0.01)
  found = clock.summary()
  assert found['seconds_start'] == pytest.approx(6.0, abs=0.5)
  assert found['seconds_evaluation'] >= 0.01
  assert found['goodput'] == pytest.approx(0.2, abs=0.02)


def test_what_was_lost_counts_as_repeated():
  """Killed at step 150 after the checkpoint of step 100, then again at 130."""
  now = time.perf_counter
  checkpoint = {'train': 50.0, 'compile': 5.0, 'total': 60.0}
  second = RunClock(now())
  seen = {'step': 150, 'total': 90.0, 'repeated_steps': 0, 'starts': 1}
  second.resume(checkpoint, 100, seen)
  assert (second.repeated, second.repeated_steps, second.starts) == (30.0, 50, 2)
  assert second.total() == pytest.approx(90.0, abs=1.0)
  assert second.seconds['train'] == 50.0
  third = RunClock(now())
  seen = {'step': 130, **second.record(), 'total': 110.0}
  third.resume(checkpoint, 100, seen)
  assert (third.repeated, third.repeated_steps, third.starts) == (50.0, 80, 3)


def test_a_stop_that_saved_loses_nothing():
  clock = RunClock(time.perf_counter())
  record = {'train': 50.0, 'total': 60.0, 'repeated': 3.0, 'repeated_steps': 4}
  seen = {'step': 90, 'total': 55.0, 'repeated_steps': 4, 'starts': 2}
  clock.resume(record, 100, seen)
  assert (clock.repeated, clock.repeated_steps, clock.starts) == (3.0, 4, 3)


def test_a_run_that_goes_on_knows_what_it_repeats(digits_config, tmp_path):
  digits_config.checkpoint.every_steps = 4
  directory = RunDirectory(tmp_path / 'run')

  class Killed(jaxvision.Callback):
    def on_log(self, step, measures):
      if step == 10:
        raise RuntimeError

  with pytest.raises(RuntimeError):
    jaxvision.train(digits_config, directory.path, quiet=True, callbacks=[Killed()])
  # As a run that was seen alive when it logged.
  noted = directory.clock()
  directory.write(directory.clock_file, {**noted, 'step': 10})
  summary = jaxvision.train(digits_config, directory.path, quiet=True)
  assert (summary['starts'], summary['repeated_steps']) == (2, 2)
  assert 'starting' in time_shares(summary)


def test_a_damaged_clock_is_one_line(tmp_path):
  directory = RunDirectory(tmp_path)
  directory.clock_file.write_text('{"step": 1, "total": "x"}')
  with pytest.raises(UserError, match='clock.json is damaged.*delete it'):
    directory.clock()
