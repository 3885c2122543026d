"""The files in examples/launch say to each process what `process_group.find` reads."""

import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
import yaml

from jaxvision.training.process_group import Group, find

ROOT = Path(__file__).resolve().parent.parent
LAUNCH = ROOT / 'examples' / 'launch'
ALONE = {'coordinator': '', 'processes': 0, 'process_id': -1}

# Starts two tasks as Slurm does, with its variables; the code is the first that is not 0.
SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do shift; done
export SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NODELIST=localhost
for i in 0 1; do SLURM_PROCID=$i SLURM_LOCALID=$i "$@" & tasks[$i]=$!; done
code=0
for task in "${tasks[@]}"; do wait $task || code=$?; done
exit $code
"""
SAYS = """#!/bin/bash
echo "$JAX_COORDINATOR_ADDRESS $JAX_NUM_PROCESSES $JAX_PROCESS_ID $*"
"""


def program(folder, name, text):
  path = folder / name
  path.write_text(text)
  path.chmod(0o755)


def environ_with(folder, **more):
  """Returns the environment with a folder before all others, and no group of its own."""
  own = {
    k: v for k, v in os.environ.items() if not k.startswith(('JAX_COORD', 'SLURM'))
  }
  scripts = Path(sys.executable).parent
  path = f'{folder}:{scripts}:{own["PATH"]}'
  return {**own, 'PATH': path, 'PYTHONPATH': str(ROOT), **more}


def test_every_file_is_short_and_says_how_it_is_used():
  files = sorted(path.name for path in LAUNCH.iterdir() if path.is_file())
  assert files == ['jobset.yaml', 'ray_cluster.py', 'skypilot.yaml', 'slurm.sh']
  for name in files:
    text = (LAUNCH / name).read_text()
    assert f'examples/launch/{name}' in text
    assert len(text.splitlines()) < 70


def test_slurm_asks_for_a_task_for_each_gpu():
  text = (LAUNCH / 'slurm.sh').read_text()
  asked = dict(re.findall(r'^#SBATCH --([a-z-]+)=(\S+)$', text, re.MULTILINE))
  assert asked['ntasks-per-node'] == asked['gpus-per-node']
  assert asked['signal'].startswith('TERM@')
  subprocess.run(['bash', '-n', LAUNCH / 'slurm.sh'], check=True)


@pytest.mark.parametrize('code', [0, 2, 4])
def test_slurm_queues_what_was_stopped_again(tmp_path, code):
  program(tmp_path, 'srun', f'#!/bin/bash\necho "$@"; exit {code}\n')
  program(tmp_path, 'scontrol', '#!/bin/bash\necho "scontrol $*"\n')
  found = subprocess.run(
    [LAUNCH / 'slurm.sh', '--config=a.py'],
    env=environ_with(tmp_path, SLURM_JOB_ID='77'),
    capture_output=True,
    text=True,
  )
  assert found.returncode == code
  lines = found.stdout.splitlines()
  assert lines[0] == '--kill-on-bad-exit=1 jaxvision train --config=a.py'
  assert lines[1:] == ['scontrol requeue 77'] * (code == 4)


@pytest.mark.slow
def test_slurm_trains_one_run(tmp_path):
  program(tmp_path, 'srun', SRUN)
  found = subprocess.run(
    [
      LAUNCH / 'slurm.sh',
      f'--config={ROOT / "configs" / "digits_cnn.py"}',
      *('--config.steps=6', '--config.report=False', f'--workdir={tmp_path / "run"}'),
    ],
    env=environ_with(tmp_path, SLURM_JOB_ID='77', JAX_NUM_CPU_DEVICES='1'),
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert found.returncode == 0, found.stdout + found.stderr
  assert 'process 0 of 2, which meet at localhost:61517 (Slurm)' in found.stdout
  summary = json.loads((tmp_path / 'run' / 'summary.json').read_text())
  assert summary['process_count'] == 2


def test_jobset_numbers_its_pods():
  job = yaml.safe_load((LAUNCH / 'jobset.yaml').read_text())
  assert (job['apiVersion'], job['kind']) == ('jobset.x-k8s.io/v1alpha2', 'JobSet')
  (replicated,) = job['spec']['replicatedJobs']
  spec = replicated['template']['spec']
  assert spec['completionMode'] == 'Indexed'
  assert spec['parallelism'] == spec['completions']
  (container,) = spec['template']['spec']['containers']
  names = {v['name'] for v in spec['template']['spec']['volumes']}
  assert {m['name'] for m in container['volumeMounts']} == names
  environ = {one['name']: one['value'] for one in container['env']}
  name = job['metadata']['name']
  # Of a pod: NAME-JOB-NUMBER-INDEX, in the subdomain NAME.
  address = f'{name}-{replicated["name"]}-0-0.{name}:1234'
  for index in range(spec['completions']):
    found = find(ALONE, {**environ, 'JOB_COMPLETION_INDEX': str(index)})
    assert found[:3] == (address, spec['completions'], index)


def test_skypilot_numbers_its_nodes(tmp_path):
  task = yaml.safe_load((LAUNCH / 'skypilot.yaml').read_text())
  assert {'name', 'num_nodes', 'resources', 'setup', 'run'} <= task.keys()
  program(tmp_path, 'jaxvision', SAYS)
  environ = environ_with(
    tmp_path,
    SKYPILOT_NODE_IPS='10.0.0.1\n10.0.0.2',
    SKYPILOT_NUM_NODES=str(task['num_nodes']),
    SKYPILOT_NODE_RANK='1',
  )
  found = subprocess.run(
    ['bash', '-c', task['run']], env=environ, capture_output=True, text=True, check=True
  )
  address, count, index, *command = found.stdout.split()
  assert (address, count, index) == ('10.0.0.1:1234', '2', '1')
  assert command[0] == 'train'


def test_ray_starts_a_process_on_each_node(monkeypatch, capsys):
  import importlib.util

  started = []

  class Remote:
    def __init__(self, function, options=None):
      self.function, self.given = function, options

    def options(self, **options):
      return Remote(self.function, options)

    def remote(self, *arguments):
      started.append((self.function.__name__, self.given, arguments))
      return 'h:1234' if self.function.__name__ == 'address' else {'test_accuracy': 1.0}

  def module(name, **contents):
    made = types.ModuleType(name)
    vars(made).update(contents)
    monkeypatch.setitem(sys.modules, name, made)
    return made

  group = types.SimpleNamespace(ready=lambda: None)
  module('ray', init=lambda: None, get=lambda value: value, remote=Remote)
  module('ray.util')
  module('ray.util.placement_group', placement_group=lambda *a, **k: group)
  module(
    'ray.util.scheduling_strategies',
    PlacementGroupSchedulingStrategy=lambda g, placement_group_bundle_index: (
      placement_group_bundle_index
    ),
  )
  spec = importlib.util.spec_from_file_location(
    'ray_cluster', LAUNCH / 'ray_cluster.py'
  )
  example = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(example)
  monkeypatch.setattr(
    sys, 'argv', ['x', '--config=c.py', '--workdir=w', '--nodes=3', '--gpus=4']
  )
  example.main()
  assert 'test_accuracy' in capsys.readouterr().out
  trained = [
    (given, arguments) for name, given, arguments in started if name == 'train'
  ]
  assert [a for _, a in trained] == [(i, 3, 'h:1234', 'c.py', 'w') for i in range(3)]
  assert [g['scheduling_strategy'] for g, _ in trained] == [0, 1, 2]
  assert {g['num_gpus'] for g, _ in trained} == {4}
  import jaxvision

  for name in ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID'):
    monkeypatch.setenv(name, '')  # put back after the test
  seen = {}

  def train(config, workdir):
    seen['group'] = find(ALONE, os.environ)
    return {}

  monkeypatch.setattr(jaxvision, 'train', train)
  monkeypatch.setattr(jaxvision, 'load_config', lambda file: file)
  example.train(2, 3, 'h:1234', 'c.py', 'w')
  assert seen['group'] == Group('h:1234', 3, 2, None, 'JAX_COORDINATOR_ADDRESS')
