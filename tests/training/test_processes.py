"""Several processes train one run as one process does."""

import json
import os
import signal
import threading

import pytest
from launched import ROOT, Runs, check_same, started

from jaxvision.training import processes


def test_alone_nothing_waits():
  assert processes.is_writer()
  with processes.together('anything'):
    pass
  event = threading.Event()
  stop = processes.SharedStop(event)
  assert not stop()
  event.set()
  assert stop()


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  return Runs(tmp_path_factory.mktemp('runs'))


@pytest.fixture(scope='module')
def one(runs):
  """A run of one process with two devices."""
  code, printed = runs.train('one', 1, devices=2)
  assert code == 0, printed
  return runs.points('one')


@pytest.mark.long
def test_two_processes_train_as_one_does(runs, one):
  code, printed = runs.train('two', 2)
  assert code == 0, printed
  check_same(runs.points('two'), one)
  assert '[0] devices: 2 x' in printed
  assert '2 processes' in printed
  assert '[1] step' not in printed  # one of them prints
  summary = json.loads((runs.folder / 'two' / 'summary.json').read_text())
  assert summary['process_count'] == 2
  # Nothing of it is bound to two processes.
  code, printed = runs.train('two', 1, '--config.parallel.data=1')
  assert code == 0, printed
  assert 'is finished (12 steps)' in printed


@pytest.mark.slow
@pytest.mark.parametrize(
  'options',
  [
    ('--config.data.pipeline=streaming', '--config.data.workers=0'),
    ('--config.steps_per_dispatch=4', '--config.grad_accumulation=2'),
    ('--config.parallel.fsdp=2', '--config.parallel.data=1', '--config.ema_decay=0.9'),
    # Another config and task, with samples drawn on the way and at the end.
    (f'--config={ROOT / "configs" / "digits_dcgan.py"}', '--config.data.image_size=16'),
  ],
)
def test_two_processes_train_as_one_does_otherwise(runs, options):
  name = options[-1].rpartition('.')[2]
  for kind, count, devices in (('one', 1, 2), ('two', 2, 1)):
    code, printed = runs.train(f'{name}-{kind}', count, *options, devices=devices)
    assert code == 0, printed
  found, wanted = runs.points(f'{name}-two'), runs.points(f'{name}-one')
  if 'dcgan' in options[0]:
    # Biases before a batch norm have gradients of rounding alone, which Adam makes steps of
    # full length of: norms of gradients tell, losses hardly, more with every step.
    assert [p.keys() for p in found] == [p.keys() for p in wanted]
    first = [
      {k: p[0][k] for k in p[0] if 'grad_norm' not in k} for p in (found, wanted)
    ]
    check_same(first[:1], first[1:], 1e-3)
  else:
    check_same(found, wanted)


@pytest.mark.slow
def test_two_processes_evaluate_as_one_does(runs, one):
  found = []
  for count in (1, 2):
    code, lines = runs.call(count, 'eval', f'--workdir={runs.folder / "one"}')
    assert code == 0, lines
    found.append([line for line in lines if line.startswith(('test: ', 'report: '))])
  assert len(found[0]) == 2
  assert found[1] == found[0]
  # What one process does says so.
  code, lines = runs.call(2, 'predict', f'--workdir={runs.folder / "one"}', 'x.png')
  assert code == 2
  assert sum('predict runs in one process' in line for line in lines) == 2


@pytest.mark.slow
def test_two_processes_measure_samples_as_one_does(runs):
  code, printed = runs.train('judge', 1, '--config.data.image_size=16')
  assert code == 0, printed
  options = (
    f'--config={ROOT / "configs" / "digits_dcgan.py"}',
    f'--config.evaluation.features={runs.folder / "judge"}',
    '--config.evaluation.samples=250',  # not of one size in all batches
    '--config.steps=2',
  )
  measured = []
  for kind, count, devices in (('one', 1, 2), ('two', 2, 1)):
    code, printed = runs.train(f'samples-{kind}', count, *options, devices=devices)
    assert code == 0, printed
    summary = json.loads((runs.folder / f'samples-{kind}' / 'summary.json').read_text())
    assert summary['fd'] > 0
    measured.append({k: summary[k] for k in ('fd', 'fd_floor', 'class_confidence')})
  assert measured[1] == pytest.approx(measured[0], rel=1e-3)


@pytest.mark.slow
def test_a_report_of_two_processes_is_written_once(runs):
  code, printed = runs.train('report', 2, '--config.report=True')
  assert code == 0, printed
  assert printed.count('report: ') == 1
  assert (runs.folder / 'report' / 'report' / 'report.html').exists()


@pytest.mark.slow
@pytest.mark.parametrize('which', [0, 1])
def test_a_signal_at_one_process_saves_in_all_at_the_same_step(runs, which):
  name = f'signal{which}'
  launcher, children, printed = started(runs, name)
  os.kill(children[which], signal.SIGTERM)
  rest, _ = launcher.communicate(timeout=120)
  assert launcher.returncode == 4, ''.join(printed) + rest
  assert 'stopped by a signal at step' in rest
  steps = max(runs.saved(name)) + 5
  code, again = runs.train(name, 1, f'--config.steps={steps}', '--extend')
  assert code == 0, again
  assert 'resumed at step' in again or 'goes on' in again


@pytest.mark.slow
def test_a_run_goes_on_with_any_number_of_processes(runs):
  """And with its parameters whole or in parts, as one that one process has trained."""
  options = ('--config.schedule.name=constant', '--config.schedule.warmup_steps=0')
  whole, parts = '--config.parallel.fsdp=1', '--config.parallel.fsdp=2'
  stages = [(2, whole), (1, whole), (2, parts), (1, whole)]
  for number, (count, fsdp) in enumerate(stages, 1):
    more = (f'--config.steps={4 * number}', fsdp, *['--extend'] * (number > 1))
    code, printed = runs.train('elastic', count, *options, *more)
    assert code == 0, printed
    assert number == 1 or f'at step {4 * (number - 1)}' in printed
  code, printed = runs.train('steady', 1, *options, f'--config.steps={4 * len(stages)}')
  assert code == 0, printed
  found, wanted = (
    [point for point in runs.points(name) if point['split'] == 'train']
    for name in ('elastic', 'steady')
  )
  check_same(found, wanted, 1e-3)


@pytest.mark.slow
def test_what_stops_one_process_stops_all_at_the_same_step(runs):
  own = runs.folder / 'own.py'
  own.write_text(
    'import jax, jaxvision\n'
    'class Impatient(jaxvision.Callback):\n'
    '  def on_log(self, step, measures):\n'
    '    if jax.process_index() == 1 and step == 8:\n'
    '      self.context.stop("out of patience")\n'
  )
  code, printed = runs.train('own', 2, f'--config.callbacks=("{own}:Impatient",)')
  assert code == 0, printed
  assert '[0] stopped at step 8 of 12: out of patience' in printed
  summary = json.loads((runs.folder / 'own' / 'summary.json').read_text())
  assert summary['stopped_by'] == 'out of patience'


@pytest.mark.slow
def test_a_workdir_that_cannot_be_written_is_one_line_in_every_process(runs):
  (runs.folder / 'file').touch()
  code, printed = runs.train('file/run', 2)
  assert code == 2
  lines = [line for line in printed.splitlines() if 'error: ' in line]
  assert len(lines) == 2
  assert all('workdir' in line for line in lines)


@pytest.mark.slow
def test_a_mistake_is_one_line_in_every_process(runs):
  code, printed = runs.train('mistake', 2, '--config.parallel.data=1')
  assert code == 2
  assert printed.count('error: ') == 2
  assert 'leaves out some of the 2 devices' in printed
  assert not (runs.folder / 'mistake' / 'config.json').exists()
