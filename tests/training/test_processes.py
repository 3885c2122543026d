"""How the processes of one run find each other, and that they train as one does."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxvision.config import base_config
from jaxvision.errors import UserError
from jaxvision.placement import fetch, place
from jaxvision.training import processes
from jaxvision.training.mesh import make_mesh, over_batch, replicated
from jaxvision.training.process_group import Group, check_alone, find, first_host
from jaxvision.training.rendezvous import meet as meet_others

ROOT = Path(__file__).resolve().parents[2]
ALONE = {'coordinator': '', 'processes': 0, 'process_id': -1}
JAX = {
  'JAX_COORDINATOR_ADDRESS': 'a:1234',
  'JAX_NUM_PROCESSES': '4',
  'JAX_PROCESS_ID': '3',
}
SLURM = {
  'SLURM_JOB_ID': '5000',
  'SLURM_STEP_NUM_TASKS': '4',
  'SLURM_PROCID': '2',
  'SLURM_LOCALID': '1',
  'SLURM_STEP_NODELIST': 'gpu[07-09],gpu12',
  'SLURM_NTASKS': '4',
}
MPI = {
  'OMPI_COMM_WORLD_SIZE': '2',
  'OMPI_COMM_WORLD_RANK': '1',
  'OMPI_COMM_WORLD_LOCAL_RANK': '0',
  'OMPI_COMM_WORLD_LOCAL_SIZE': '1',
  'OMPI_MCA_orte_hnp_uri': '1531576320.0;tcp://10.96.0.1,10.148.0.1:34911',
}


@pytest.mark.parametrize(
  ('environ', 'wanted'),
  [
    ({}, None),
    (JAX, ('a:1234', 4, 3, None)),
    ({**JAX, 'JAX_NUM_PROCESSES': '1'}, None),
    ({**SLURM, 'JAX_NUM_PROCESSES': '1'}, None),
    (
      # An indexed job of Kubernetes: one manifest, numbers from its controller.
      {**JAX, 'JAX_PROCESS_ID': '', 'JOB_COMPLETION_INDEX': '2'},
      ('a:1234', 4, 2, None),
    ),
    (
      {
        'COORDINATOR_ADDRESS': 'job-worker-0',
        'COORDINATOR_PORT': '6666',
        'NUM_PROCESSES': '3',
        'PROCESS_ID': '0',
      },
      ('job-worker-0:6666', 3, 0, None),
    ),
    (SLURM, ('gpu07:62344', 4, 2, 1)),
    # Each task has a GPU of its own and sees no other.
    ({**SLURM, 'CUDA_VISIBLE_DEVICES': '0'}, ('gpu07:62344', 4, 2, None)),
    ({**SLURM, 'CUDA_VISIBLE_DEVICES': '0,1'}, ('gpu07:62344', 4, 2, 1)),
    # A shell in an allocation, and a batch script outside of srun.
    ({**SLURM, 'SLURM_STEP_NUM_TASKS': '1'}, None),
    ({k: v for k, v in SLURM.items() if 'STEP' not in k}, None),
    (MPI, ('10.96.0.1:', 2, 1, 0)),
    ({**MPI, 'OMPI_COMM_WORLD_SIZE': '1'}, None),
    (
      {**MPI, 'OMPI_MCA_orte_hnp_uri': '', 'OMPI_COMM_WORLD_LOCAL_SIZE': '2'},
      ('127.0.0.1:', 2, 1, 0),
    ),
  ],
)
def test_a_group_is_found_in_the_environment(environ, wanted):
  found = find(ALONE, environ)
  if wanted is None:
    assert found is None
    return
  assert found.coordinator.startswith(wanted[0])
  assert found[1:4] == wanted[1:]
  assert 0 < int(found.coordinator.rpartition(':')[2]) < 65536


def test_a_group_is_found_in_the_config_first():
  config = {'coordinator': 'b:1', 'processes': 2, 'process_id': 1}
  assert find(config, JAX) == Group('b:1', 2, 1, None, 'config')
  assert find({**ALONE, 'processes': 1}, JAX) is None


@pytest.mark.parametrize(
  ('parallel', 'environ', 'message'),
  [
    ({'processes': 2}, {}, 'go together'),
    ({'coordinator': 'a:1', 'processes': 2}, {}, 'go together'),
    ({'coordinator': 'a', 'processes': 2, 'process_id': 0}, {}, 'no HOST:PORT'),
    ({'coordinator': 'a:1', 'processes': 2, 'process_id': 2}, {}, 'process 2 of 2'),
    ({}, {'JAX_COORDINATOR_ADDRESS': 'a:1'}, 'JAX_NUM_PROCESSES and JAX_PROCESS_ID is'),
    ({}, {**JAX, 'JAX_PROCESS_ID': ''}, 'JAX_PROCESS_ID is not'),
    ({}, {**JAX, 'JAX_NUM_PROCESSES': 'two'}, 'JAX_NUM_PROCESSES="two" is no number'),
    ({}, {**SLURM, 'SLURM_STEP_NODELIST': ''}, 'names no host'),
    ({}, {**MPI, 'OMPI_MCA_orte_hnp_uri': ''}, 'set JAX_COORDINATOR_ADDRESS'),
  ],
)
def test_a_group_that_is_not_whole_is_one_line(parallel, environ, message):
  with pytest.raises(UserError, match=message) as caught:
    find({**ALONE, **parallel}, environ)
  assert '\n' not in str(caught.value)


def test_a_command_of_one_process_is_refused_in_several():
  with pytest.raises(UserError, match='predict runs in one process.*number 3 of 4'):
    check_alone('predict', JAX)
  check_alone('predict', {})
  check_alone('predict', {'JAX_COORDINATOR_ADDRESS': 'a:1'})  # as a script exports it


def test_first_hosts_of_nested_lists():
  assert first_host('r[2,4]n[1-3],x') == 'r2n1'


@pytest.fixture
def address():
  with socket.socket() as found:
    found.bind(('127.0.0.1', 0))
    return f'127.0.0.1:{found.getsockname()[1]}'


def meet(address, indices, count, seconds=5.0, **different):
  """Returns what each of some processes says of meeting: None, or a message."""

  def one(index):
    group = Group(address, count, index, None, 'test')
    facts = processes._facts(group, base_config())
    facts |= different if index == max(indices) else {}
    try:
      for connection in meet_others(group, facts, seconds).values():
        connection.close()
    except UserError as error:
      return str(error)
    return None

  with ThreadPoolExecutor(len(indices)) as pool:
    return list(pool.map(one, indices))


def test_all_meet_in_any_order(address):
  assert meet(address, [2, 1, 0], 3) == [None] * 3


def test_who_did_not_come_is_named_in_every_process(address):
  found = meet(address, [0, 2], 4, seconds=1.0)
  assert found[0] == found[1]
  assert '2 of 4 processes did not come' in found[0]
  assert 'number 1, 3' in found[0]


def test_a_coordinator_that_is_not_there_is_named(address):
  (found,) = meet(address, [1], 2, seconds=0.5)
  assert f'process 1 of 2 did not reach process 0 at {address}' in found
  assert 'Connection refused' in found


@pytest.mark.parametrize(
  ('different', 'message'),
  [
    ({'config': 'abc'}, 'the config of process 1 is abc, and that of process 0'),
    ({'version of jaxvision': '0.0'}, 'version of jaxvision of process 1 is 0.0'),
    ({'number of processes': 3}, 'number of processes of process 1 is 3'),
    ({'index': 0}, 'two processes have number 0 of 2'),
  ],
)
def test_processes_that_differ_are_told(address, different, message):
  found = meet(address, [0, 1], 2, **different)
  assert found[0] == found[1]
  assert message in found[0]


def test_a_stranger_at_the_port_is_passed_over(address):
  host, _, port = address.partition(':')

  def stranger():
    for _ in range(100):
      try:
        with socket.create_connection((host, int(port))) as connection:
          connection.sendall(b'GET / HTTP/1.1\r\n\r\n')
          return
      except OSError:
        time.sleep(0.01)

  talking = threading.Thread(target=stranger)
  talking.start()
  assert meet(address, [0, 1], 2) == [None, None]
  talking.join()


def test_a_port_that_is_taken_is_told(address):
  host, _, port = address.partition(':')
  with socket.socket() as taken:
    taken.bind((host, int(port)))
    taken.listen()
    (found,) = meet(address, [0], 2, seconds=0.5)
  assert f'process 0 cannot listen at port {port} (Address already in use)' in found


def test_alone_nothing_waits():
  assert processes.is_writer()
  with processes.together('anything'):
    pass
  event = threading.Event()
  stop = processes.SharedStop(event)
  assert not stop()
  event.set()
  assert stop()


def test_values_are_placed_and_fetched():
  mesh = make_mesh()
  values = {'x': np.arange(16.0).reshape(8, 2), 'n': np.int32(3)}
  placed = place(values, replicated(mesh))
  assert placed['x'].is_fully_replicated
  split = place(values['x'], over_batch(mesh))
  assert split.addressable_shards[0].data.shape == (8 // mesh.size, 2)
  np.testing.assert_array_equal(fetch(split), values['x'])
  key = place(jax.random.key(3), replicated(mesh))
  assert jax.random.bits(key) == jax.random.bits(jax.random.key(3))


class Runs:
  """Trains with the command line, in one process or several of one device each."""

  def __init__(self, folder):
    self.folder = folder

  def command(self, name, count, *options):
    """Returns a command line that trains digits for some steps."""
    train = [
      'train',
      f'--config={ROOT / "configs" / "digits_cnn.py"}',
      *('--config.steps=12', '--config.log_every_steps=4', '--config.report=False'),
      f'--workdir={self.folder / name}',
      *options,
    ]
    launch = ['launch', f'--processes={count}', '--devices-per-process=1', '--']
    return [
      *(sys.executable, '-m', 'jaxvision.main'),
      *(launch if count > 1 else []),
      *train,
    ]

  def train(self, name, count, *options, devices=1):
    """Trains; returns its exit code and what it printed."""
    environ = {
      **os.environ,
      'JAX_NUM_CPU_DEVICES': str(devices),
      'PYTHONPATH': str(ROOT),
    }
    found = subprocess.run(
      self.command(name, count, *options),
      env=environ,
      capture_output=True,
      text=True,
      timeout=300,
    )
    return found.returncode, found.stdout + found.stderr

  def call(self, count, *arguments):
    """Runs a command; returns its exit code and what it printed, without prefixes."""
    launch = ['launch', f'--processes={count}', '--devices-per-process=1', '--']
    found = subprocess.run(
      [
        *(sys.executable, '-m', 'jaxvision.main'),
        *(launch if count > 1 else []),
        *arguments,
      ],
      env={**os.environ, 'PYTHONPATH': str(ROOT)},
      capture_output=True,
      text=True,
      timeout=300,
    )
    lines = (found.stdout + found.stderr).splitlines()
    return found.returncode, [re.sub(r'^\[\d\] ', '', line) for line in lines]

  def saved(self, name):
    """Returns the steps that have a whole checkpoint."""
    names = [path.name for path in (self.folder / name / 'checkpoints').glob('*')]
    return [int(name) for name in names if name.isdigit()]

  def points(self, name):
    """Returns the log points of a run, without what depends on time."""
    lines = (self.folder / name / 'metrics.jsonl').read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [{k: v for k, v in p.items() if k != 'images_per_second'} for p in found]


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  return Runs(tmp_path_factory.mktemp('runs'))


@pytest.fixture(scope='module')
def one(runs):
  """A run of one process with two devices."""
  code, printed = runs.train('one', 1, devices=2)
  assert code == 0, printed
  return runs.points('one')


def check_same(found, wanted, rtol=1e-5):
  assert [p.keys() for p in found] == [p.keys() for p in wanted]
  for mine, theirs in zip(found, wanted):
    for name, value in theirs.items():
      assert mine[name] == (
        value if isinstance(value, str) else pytest.approx(value, rtol)
      )


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


def started(runs, name, *options):
  """Starts two processes that train for long; returns (the launcher, theirs)."""
  environ = {**os.environ, 'PYTHONPATH': str(ROOT)}
  launcher = subprocess.Popen(
    runs.command(name, 2, '--config.steps=100000', *options),
    env=environ,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  printed = []
  for line in launcher.stdout:
    printed.append(line)
    if re.match(r'\[0\] step +\d+/', line):
      break
  return launcher, children_of(launcher), printed


def children_of(launcher):
  """Returns number -> process id of those that a launcher has started and that run."""
  children = {}
  for path in Path('/proc').glob('[0-9]*'):
    try:
      text = (path / 'environ').read_bytes()
      state, parent = (path / 'stat').read_text().rpartition(')')[2].split()[:2]
    except OSError:
      continue
    if int(parent) == launcher.pid and state != 'Z' and b'JAX_PROCESS_ID=' in text:
      number = text.partition(b'JAX_PROCESS_ID=')[2].split(b'\0')[0]
      children[int(number)] = int(path.name)
  return children


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
@pytest.mark.parametrize(
  ('which', 'number', 'said'),
  [
    (0, signal.SIGKILL, 'process 0 of 2 has ended'),
    (1, signal.SIGKILL, 'process 1 of 2 has ended'),
    (0, signal.SIGSTOP, 'process 0 of 2 has given no sign of life for 5 s'),
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


def kill_at_random(runs, name, count, kills, seed, *options):
  """Trains under `launch --restarts` and kills a process of those, at random, again and again.

  Each time after at least one new checkpoint. Returns (exit code, kills, what was printed).
  """
  command = runs.command(name, count, *options)
  command.insert(command.index('--'), f'--restarts={kills}')
  random, printed = np.random.default_rng(seed), []
  launcher = subprocess.Popen(
    command,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  reader = threading.Thread(target=lambda: printed.extend(launcher.stdout))
  reader.start()
  killed, before = 0, -1
  while launcher.poll() is None and killed < kills:
    saved = max(runs.saved(name), default=-1)
    if saved > before:
      time.sleep(random.uniform(0, 0.3))
      children = children_of(launcher)
      if len(children) == count:
        os.kill(children[int(random.integers(count))], signal.SIGKILL)
        killed, before = killed + 1, saved
    time.sleep(0.01)
  code = launcher.wait(600)
  reader.join()
  return code, killed, ''.join(printed)


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
