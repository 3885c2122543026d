"""Callbacks: early stopping, its resume, and what a failing callback may cost."""

import json
import logging
import types
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from jaxvision.errors import UserError
from jaxvision.training.callbacks import (
  Callback,
  CallbackList,
  EarlyStopping,
  Logger,
  TrainContext,
  run_status,
)


def make_context(**changes):
  fields = {
    'directory': Path('run'),
    'config': ConfigDict(),
    'info': types.SimpleNamespace(name='digits'),
    'start_step': 0,
    'total_steps': 100,
    'steps_per_epoch': 10.0,
    'params': {'params': 7},
  }
  return TrainContext(**{**fields, **changes})


class Recorder(Callback):
  """Appends (name, hook, arguments) to a list; raises in the hooks named `fails`."""

  def __init__(self, calls, name='a', fails=()):
    self.calls, self.name, self.fails = calls, name, fails

  def _record(self, hook, *arguments):
    self.calls.append((self.name, hook, *arguments))
    if hook in self.fails:
      raise RuntimeError(f'{hook} of {self.name}')

  def on_train_begin(self, context):
    super().on_train_begin(context)
    self._record('begin')

  def on_log(self, step, measures):
    self._record('log', step, measures)

  def on_evaluation(self, step, split, measures):
    self._record('evaluation', step, split, measures)

  def on_image(self, step, name, image):
    self._record('image', step, name)

  def on_checkpoint(self, step):
    self._record('checkpoint', step)

  def on_train_end(self, step, summary):
    self._record('end', step, summary)


class RecordingLogger(Recorder, Logger):
  pass


def evaluate(early, values, first=1, measure='loss'):
  """Reports values at consecutive steps; returns the step that ended the run."""
  for step, value in enumerate(values, first):
    early.on_evaluation(step, 'test', {measure: value})
    if early.context.stop_reason:
      return step
  return None


@pytest.mark.parametrize(
  ('arguments', 'values', 'stopped'),
  [
    ({'patience': 2}, [3.0, 2.0, 2.0, 1.0, 1.5, 1.0, 0.5], 6),
    ({'patience': 1}, [3.0, 2.0, 1.0], None),
    ({'patience': 2, 'mode': 'max'}, [0.5, 0.6, 0.6, 0.5], 4),
    ({'patience': 2, 'min_delta': 0.5}, [3.0, 2.6, 2.5, 1.9], 3),
    ({'patience': 2, 'min_delta': 0.5}, [3.0, 2.6, 2.4, 2.0, 1.8], None),
    ({'patience': 2}, [float('nan'), float('inf')], 2),
    ({'patience': 2}, [float('nan'), 5.0, float('nan'), 4.0], None),
  ],
)
def test_early_stopping_ends_after_patience_evaluations(arguments, values, stopped):
  early = EarlyStopping(**arguments)
  early.on_train_begin(make_context())
  assert evaluate(early, values) == stopped


def test_early_stopping_counts_one_evaluation_per_step():
  early = EarlyStopping(patience=1)
  early.on_train_begin(make_context())
  early.on_evaluation(1, 'validation', {'loss': 1.0})
  early.on_evaluation(1, 'test', {'loss': 2.0})
  assert early.context.stop_reason is None
  early.on_evaluation(2, 'validation', {'loss': 1.0})
  assert early.context.stop_reason == (
    'loss has not improved since step 1 (1), 1 evaluations ago'
  )


def test_early_stopping_counter_survives_a_resume():
  values = [3.0, 2.0, 2.5, 2.2, 2.1, 2.3]
  whole = EarlyStopping(patience=3)
  whole.on_train_begin(make_context())
  stopped = evaluate(whole, values)
  assert stopped == 5
  for cut in range(1, stopped):
    first = EarlyStopping(patience=3)
    first.on_train_begin(make_context())
    assert evaluate(first, values[:cut]) is None
    second = EarlyStopping(patience=3)
    second.restore(json.loads(json.dumps(first.state())))
    second.on_train_begin(make_context(start_step=cut))
    assert evaluate(second, values[cut:], first=cut + 1) == stopped
    assert second.context.stop_reason == whole.context.stop_reason


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'mode': 'least'}, 'mode must be "min" or "max"'),
    ({'patience': 0}, 'patience must be an integer of at least 1'),
    ({'patience': 1.5}, 'patience must be an integer of at least 1'),
    ({'min_delta': -1.0}, 'min_delta must be a number of at least 0'),
    ({'min_delta': float('nan')}, 'min_delta must be a number of at least 0'),
  ],
)
def test_early_stopping_rejects_arguments(arguments, message):
  with pytest.raises(UserError, match=message):
    EarlyStopping(**arguments)


def test_early_stopping_names_the_measures_there_are():
  early = EarlyStopping('acuracy', mode='max')
  early.on_train_begin(make_context())
  with pytest.raises(UserError, match='no measure "acuracy", did you mean "accuracy"'):
    early.on_evaluation(1, 'test', {'loss': 1.0, 'accuracy': 0.5})


def test_context_keeps_the_first_reason_to_stop():
  context = make_context()
  context.stop('first')
  context.stop('second')
  assert context.stop_reason == 'first'


def test_every_hook_of_the_base_class_does_nothing():
  callback = Callback()
  callback.on_train_begin(make_context())
  callback.on_log(1, {'loss': 1.0})
  callback.on_evaluation(1, 'test', {'loss': 1.0})
  callback.on_image(1, 'test/images', None)
  callback.on_checkpoint(1)
  callback.on_train_end(1, None)
  assert callback.state() == {}
  callback.restore({})


def test_callback_list_calls_each_hook_in_order():
  calls = []
  callbacks = CallbackList([Recorder(calls, 'a'), Recorder(calls, 'b')])
  callbacks.on_train_begin(make_context())
  callbacks.on_log(1, {'loss': 1.0})
  callbacks.on_evaluation(2, 'test', {'loss': 2.0})
  callbacks.on_image(2, 'test/images', None)
  callbacks.on_checkpoint(2)
  callbacks.on_train_end(3, {'accuracy': 0.5})
  hooks = [
    ('begin',),
    ('log', 1, {'loss': 1.0}),
    ('evaluation', 2, 'test', {'loss': 2.0}),
    ('image', 2, 'test/images'),
    ('checkpoint', 2),
    ('end', 3, {'accuracy': 0.5}),
  ]
  assert calls == [(name, *hook) for hook in hooks for name in 'ab']


def test_a_logger_that_fails_at_the_end_costs_a_warning(caplog):
  calls = []
  callbacks = CallbackList(
    [RecordingLogger(calls, 'a', fails=('end',)), Recorder(calls, 'b')]
  )
  callbacks.on_train_begin(make_context())
  with caplog.at_level(logging.WARNING, 'jaxvision'):
    callbacks.on_train_end(3, None)
  assert calls[-1] == ('b', 'end', 3, None)
  (record,) = caplog.records
  assert record.name == 'jaxvision'
  assert record.getMessage() == (
    'RecordingLogger failed at the end of the run: end of a'
  )


def test_a_callback_that_fails_at_the_end_raises_after_the_others_ran(caplog):
  calls = []
  callbacks = CallbackList(
    [
      Recorder(calls, 'a', fails=('end',)),
      RecordingLogger(calls, 'b', fails=('end',)),
      Recorder(calls, 'c'),
    ]
  )
  callbacks.on_train_begin(make_context())
  with pytest.raises(RuntimeError, match='end of a'):
    callbacks.on_train_end(3, None)
  assert [call[0] for call in calls if call[1] == 'end'] == ['a', 'b', 'c']
  assert len(caplog.records) == 1


@pytest.mark.parametrize('kind', [Recorder, RecordingLogger])
def test_exceptions_during_training_propagate(kind):
  callbacks = CallbackList([kind([], fails=('log',))])
  callbacks.on_train_begin(make_context())
  with pytest.raises(RuntimeError, match='log of a'):
    callbacks.on_log(1, {})


def test_only_callbacks_that_began_are_ended():
  calls = []
  callbacks = CallbackList(
    [Recorder(calls, 'a'), Recorder(calls, 'b', fails=('begin',)), Recorder(calls, 'c')]
  )
  with pytest.raises(RuntimeError, match='begin of b'):
    callbacks.on_train_begin(make_context())
  callbacks.on_train_end(0, None)
  callbacks.on_train_end(0, None)
  assert [call[:2] for call in calls] == [('a', 'begin'), ('b', 'begin'), ('a', 'end')]


def test_states_find_their_callbacks_when_one_is_added():
  loss, accuracy = EarlyStopping('loss'), EarlyStopping('accuracy', mode='max')
  callbacks = CallbackList([loss, Recorder([]), accuracy])
  callbacks.on_train_begin(make_context())
  callbacks.on_evaluation(1, 'test', {'loss': 2.0, 'accuracy': 0.5})
  state = json.loads(json.dumps(callbacks.state()))
  assert list(state) == ['EarlyStopping', 'EarlyStopping-2']
  resumed = [Logger(), EarlyStopping('loss'), EarlyStopping('accuracy', mode='max')]
  CallbackList(resumed).restore(state)
  assert [early.state()['best'] for early in resumed[1:]] == [2.0, 0.5]


def test_callback_list_rejects_a_class():
  with pytest.raises(UserError, match='give instances'):
    CallbackList([EarlyStopping])


def test_run_status_tells_an_error_from_a_signal():
  assert run_status({}) == 'finished'
  assert run_status(None) == 'stopped'
  for error, status in [(ValueError, 'failed'), (KeyboardInterrupt, 'stopped')]:
    try:
      raise error
    except error:
      assert run_status(None) == status
