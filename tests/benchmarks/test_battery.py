"""The battery: what is taken in the minutes there are, and how it goes on."""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jaxvision import config as config_lib

ROOT = Path(__file__).resolve().parents[2]
LOOP = 'import time\nwhile True: time.sleep(0.01)'
# As a training: goes on where it was, saves on SIGTERM and ends with 4.
RESUMING = """
import json, pathlib, signal, sys, time
path = pathlib.Path('{folder}') / 'saved'
if path.exists():
  (path.parent / 'result.json').write_text(json.dumps({{'value': path.read_text()}}))
  sys.exit(0)
def save(*_):
  path.write_text('went on')
  sys.exit(4)
signal.signal(signal.SIGTERM, save)
(path.parent / 'ready').touch()
time.sleep(100)
"""


@pytest.fixture
def battery(module, tmp_path, monkeypatch):
  """Returns a function of entries, as fields by their names: the battery of them."""
  lib = module('battery')
  monkeypatch.setattr(lib, '_SAVE_SECONDS', 7.0)
  monkeypatch.setattr(lib, '_END_SECONDS', 0.4)

  def make(unavailable=lambda entry: '', **entries):
    made = []
    for name, fields in entries.items():
      code = fields.pop('code', None)
      written = "import json; json.dump({'value': 1}, open('%s', 'w'))"
      code = code or written % (tmp_path / 'result.json')
      given = {
        'commands': ((sys.executable, '-c', code),),
        'shown': f'python {name}',
        'result': 'result.json',
        'target': f'benchmarks/results/{name}.json',
        'seconds': 1.0,
        'headline': lambda result: f'value {result["value"]}',
        **fields,
      }
      made.append(lib.Entry(name, **given))
    return lib.Battery(tmp_path, made, dict(os.environ), unavailable)

  return make


def statuses(battery):
  return {name: known['status'] for name, known in battery.state.items()}


def test_what_fits_is_taken_and_what_does_not_is_told(battery, tmp_path):
  made = battery(
    lambda entry: 'PyTorch is not installed' if entry.torch else '',
    without={'torch': True},
    long={'seconds': 100.0},
    short={},
    next={'after': ('long',)},
    wrong={'code': 'raise ValueError("no such thing")'},
  )
  lines = []
  made.run(made.entries, 60, say=lines.append)
  assert lines[0] == '[1/5] without: passed over: PyTorch is not installed'
  assert re.match(
    r'\[2/5\] long: passed over: needs about 1:40 min, and 1:00 min', lines[1]
  )
  assert re.fullmatch(r'\[3/5\] short: done after 0:0\d min: value 1', lines[3])
  assert lines[4] == '[4/5] next: passed over: needs long, which is open'
  assert lines[-1].endswith('exit code 1: ValueError: no such thing')
  assert statuses(made) == {'short': 'done', 'wrong': 'failed'}
  results = json.loads((tmp_path / 'results.json').read_text())
  assert results == {
    'benchmarks/results/short.json': {'value': 1, 'command': 'python short'}
  }
  # The next call has them done, and tries what failed only when it is asked to.
  again = battery(short={}, wrong={})
  again.run(again.entries, 60, say=lines.append)
  assert statuses(again) == {'short': 'done', 'wrong': 'failed'}
  again.run(again.entries, 60, retry=True, say=lines.append)
  assert statuses(again) == {'short': 'done', 'wrong': 'done'}


def test_what_is_cut_off_begins_anew_and_is_thought_to_be_longer(battery):
  made = battery(slow={'code': LOOP, 'seconds': 0.2})
  made.run(made.entries, 2.0)
  assert statuses(made) == {'slow': 'cut off'}
  spent = made.state['slow']['seconds']
  assert made.needed(made.entries[0]) == pytest.approx(1.5 * spent)


def test_a_training_goes_on_where_its_time_was_over(battery, tmp_path, module):
  def code():
    return RESUMING.format(folder=tmp_path)

  fields = {'resumes': True, 'seconds': 1.0}
  made = battery(train={'code': code(), **fields})
  made.run(made.entries, 10)
  assert statuses(made) == {'train': 'cut off'}
  assert (tmp_path / 'saved').read_text() == 'went on'
  again = battery(train={'code': code(), **fields})
  again.run(again.entries, 60)
  assert again.state['train']['why'] == 'value went on'


def test_what_a_stopped_training_makes_of_the_signal_is_no_failure(battery):
  code = (
    'import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(1))'
  )
  made = battery(train={'code': f'{code}\ntime.sleep(100)', 'resumes': True})
  made.run(made.entries, 9)
  assert statuses(made) == {'train': 'cut off'}


def test_a_signal_to_the_battery_saves_the_entry_under_way(battery, tmp_path, module):
  made = battery(train={'code': RESUMING.format(folder=tmp_path), 'resumes': True})

  def interrupt():
    while not (tmp_path / 'ready').exists():
      threading.Event().wait(0.01)
    os.kill(os.getpid(), signal.SIGTERM)

  thread = threading.Thread(target=interrupt)
  with module('battery').interruptible():
    thread.start()
    with pytest.raises(KeyboardInterrupt):
      made.run(made.entries, 60)
  thread.join()
  assert statuses(made) == {'train': 'cut off'}
  assert (tmp_path / 'saved').exists()
  # And where it was killed itself, as it had no time to note it.
  (tmp_path / 'state.json').write_text(
    '{"train": {"status": "running", "seconds": 3.0, "why": ""}}'
  )
  assert statuses(battery(train={})) == {'train': 'cut off'}


class Parsed(Exception):
  """The options of a script, in the place of what it would do with them."""


@pytest.fixture
def parsed(module, monkeypatch):
  """Returns a function of a script's name and arguments: what its parser makes of them."""
  real = argparse.ArgumentParser.parse_args

  def parse(self, arguments=None, namespace=None):
    raise Parsed(real(self, arguments, namespace))

  def options(script, arguments):
    monkeypatch.setattr(sys, 'argv', [script, *arguments])
    main = module(script.removesuffix('.py')).main
    with monkeypatch.context() as patched:
      patched.setattr(argparse.ArgumentParser, 'parse_args', parse)
      with pytest.raises(Parsed) as found:
        main()
    return found.value.args[0]

  return options


def test_every_entry_is_a_command_that_there_is(module, parsed, tmp_path):
  lib = module('battery_entries')
  maker = lib.Maker(tmp_path, peer=tmp_path / 'airbench94_muon.py')
  seen = set()
  for entry in [*lib.entries(maker), *lib.rehearsal(maker)]:
    assert str(tmp_path) not in entry.shown
    assert entry.shown.startswith('python ')
    *_, (python, script, *arguments) = entry.commands
    assert python == sys.executable
    overrides = [a.removeprefix('--config.') for a in arguments if '--config.' in a]
    (config,) = [
      a.partition('=')[2] for a in arguments if a.startswith('--config=')
    ] or ['']
    if config:
      config_lib.load(ROOT / config, overrides)
    if script == '-m':
      assert entry.target.startswith('experiments/results/')
      assert entry.resumes
    else:
      seen.add(Path(script).name)
      options = parsed(Path(script).name, arguments)
      assert options.json == tmp_path / entry.result
      assert options.json.name.removesuffix('.json') in entry.target
  assert seen == {*('speedrun.py', 'train_throughput.py', 'growth.py', 'repeats.py')}


def test_every_training_of_the_battery_has_a_row_in_the_tables(module, monkeypatch):
  monkeypatch.syspath_prepend(ROOT / 'experiments')
  tables = module('results_table')
  rows = {name for name, *_ in tables.ROWS + tables.GAN_ROWS}
  made = module('battery_entries').entries(module('battery_entries').Maker(ROOT))
  trained = [entry.name for entry in made if entry.resumes]
  assert len(trained) >= 5
  assert set(trained) <= rows


@pytest.fixture
def gpu(module, tmp_path, monkeypatch, capsys):
  """Returns a function of arguments: (exit code, standard output) of `gpu.py`."""

  def run(*arguments):
    code = module('gpu').main([*arguments, f'--output={tmp_path / "out"}'])
    return code, capsys.readouterr().out

  return run


def test_what_is_not_there_is_passed_over_with_a_line(
  gpu, module, monkeypatch, tmp_path
):
  monkeypatch.setattr(module('gpu'), 'count_gpus', lambda: 1)
  monkeypatch.setattr(module('gpu'), 'has_module', lambda python, name: False)
  names = 'train_throughput_resnet18_bfloat16,cifar10_resnet18,repeats_processes'
  code, out = gpu(f'--only={names}', f'--peer-python={sys.executable}')
  assert code == 0
  passed = [line.partition('passed over: ')[2] for line in out.splitlines()[:3]]
  assert passed[0] == f'PyTorch is not installed in {sys.executable}'
  assert passed[1].startswith('cifar10 is not in')
  assert passed[2] == 'wants 2 GPU(s), and there are 1'
  assert '| speedrun ' in out
  with pytest.raises(SystemExit, match='there is no entry "nothing"'):
    gpu('--only=nothing')
  with pytest.raises(SystemExit, match='holds measurements: choose another --output'):
    gpu('--rehearse')
  monkeypatch.setattr(module('gpu'), 'count_gpus', lambda: 0)
  with pytest.raises(SystemExit, match='nvidia-smi lists no GPU'):
    gpu()


def test_results_are_collected_where_the_tables_are_made(
  gpu, module, monkeypatch, tmp_path
):
  monkeypatch.setattr(module('gpu'), 'ROOT', tmp_path / 'project')
  target = 'experiments/results/cifar10_resnet18-seed0.json'
  (tmp_path / 'out').mkdir()
  results = {target: {'config_name': 'cifar10_resnet18', 'test_accuracy': 0.95}}
  (tmp_path / 'out' / 'results.json').write_text(json.dumps(results))
  assert gpu('collect') == (0, f'wrote {target}\n')
  assert json.loads((tmp_path / 'project' / target).read_text()) == results[target]
  results[target]['test_accuracy'] = 0.96
  (tmp_path / 'out' / 'results.json').write_text(json.dumps(results))
  code, out = gpu('collect')
  assert code == 1
  assert out.startswith(f'{target} is there already: --replace')
  assert gpu('collect', '--replace')[0] == 0
  assert json.loads((tmp_path / 'project' / target).read_text()) == results[target]


def rehearse(tmp_path, *arguments, minutes=20):
  command = [
    *(sys.executable, 'benchmarks/gpu.py', '--rehearse', f'--minutes={minutes}'),
    *(f'--output={tmp_path / "out"}', *arguments),
  ]
  environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
  return subprocess.run(
    command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200
  )


def test_a_rehearsal_trains_on_what_a_pack_brings(module, tmp_path, monkeypatch):
  monkeypatch.setenv('JAXVISION_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setenv('JAXVISION_ONEDNN', '0')  # which would be built there
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'nothing'))
  lib = module('pack')
  lib.make_up(tmp_path / 'cache', {'cifar10': 10})
  lib.pack(['cifar10'], '', tmp_path / 'pack', 2**20, wheels=False)
  done = rehearse(tmp_path, f'--pack={tmp_path / "pack"}', '--only=cifar10_simcnn')
  assert done.returncode == 0, done.stdout + done.stderr
  assert 'cifar10: unpacked' in done.stdout
  results = json.loads((tmp_path / 'out' / 'results.json').read_text())
  (summary,) = results.values()
  assert summary['dataset'] == 'cifar10'
  assert summary['steps'] == 6
  assert summary['command'].startswith(
    'python -m jaxvision.main --config=configs/cifar10_simcnn.py --config.seed=0 '
    '--workdir=runs/cifar10_simcnn-seed0 '
  )


@pytest.mark.slow
def test_a_rehearsal_goes_through_every_kind_of_entry(tmp_path):
  done = rehearse(tmp_path)
  assert done.returncode == 0, done.stdout + done.stderr
  state = json.loads((tmp_path / 'out' / 'state.json').read_text())
  log = done.stdout + done.stderr
  has_torch = 'PyTorch is not installed' not in log
  assert len(state) == (8 if has_torch else 5), log
  assert {known['status'] for known in state.values()} == {'done'}, log
  assert 'twice: equal to the bit; resumed: equal to the bit' in log
