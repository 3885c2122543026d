"""Measures what is blank in the tables for want of a GPU, in pieces of some minutes.

    python benchmarks/gpu.py pack --data-dir=~/tensorflow_datasets --output=pack --wheels
    python benchmarks/gpu.py --minutes=9 --pack=pack --peer=airbench94_muon.py
    python benchmarks/gpu.py --minutes=9                  # goes on
    python benchmarks/gpu.py list
    python benchmarks/gpu.py collect                      # then: make results

Each entry has an estimated duration. A call takes, in the order of their worth, those that
fit into the minutes that are left, and ends before they are over. The next call goes on:
trainings at their last step, what else was cut off anew. State, results, runs, logs and caches
are in one folder, `--output`. Entries whose data, PyTorch or second GPU are not there are passed
over with a line.

`pack` writes data sets, and the few small wheels that training needs beside JAX, flax and
optax, as files for a machine without a network; no TFDS and no grain are wanted there. The
parts of a pack may come one after the other: name with --pack what is there.

`collect` puts the results where `make results` and the reports look for them:
experiments/results and benchmarks/results. `--rehearse` goes through an entry of each kind with
tiny models and made-up images, on a CPU.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pack as packing
from battery import ROOT, Battery, count_gpus, has_module, interruptible
from battery_entries import Entry, Maker, chosen, entries, rehearsal
from table import table

_STARTING = 5.0  # seconds that this process takes before and after its entries
# In the rehearsal, where no copy of the peer's script is given.
_MADE_UP_PEER = """\
print('|  run  |  epoch  |  tta_val_acc  |  time_seconds  |')
for run in ('warmup', 0, 1):
  print(f'|  {run}  |  1  |  |  1.0  |')
  print('|  |  eval  |  0.5  |  1.0  |', flush=True)
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
  """Returns the options of a command line."""
  assert __doc__
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  actions = ('run', 'pack', 'list', 'collect')
  parser.add_argument('action', nargs='?', default='run', choices=actions)
  parser.add_argument('--minutes', type=float, default=9.0, help='of this call')
  parser.add_argument(
    '--output', type=Path, help='folder of state and results (runs/gpu), or of a pack'
  )
  parser.add_argument(
    '--pack', type=Path, help='a pack, or the part of it that is here'
  )
  parser.add_argument('--only', default='', help='these entries, in this order')
  parser.add_argument(
    '--retry', action='store_true', help='try entries that failed again'
  )
  parser.add_argument('--peer', type=Path, help="a copy of the peer's speed-run script")
  parser.add_argument(
    '--peer-python', default=sys.executable, help='interpreter that has torch'
  )
  parser.add_argument(
    '--inception', type=Path, help="file of Inception's weights, for FIDs"
  )
  parser.add_argument(
    '--rehearse', action='store_true', help='tiny entries, made-up images, on a CPU'
  )
  group = parser.add_argument_group('pack')
  group.add_argument('--data-dir', default='', help="TFDS's (default: TFDS's own)")
  group.add_argument('--sets', default='cifar10,cifar100', help='to pack')
  group.add_argument('--part-mib', type=float, default=64.0, help='of a part, at most')
  group.add_argument(
    '--wheels', action='store_true', help='download the wheels as well'
  )
  group = parser.add_argument_group('collect')
  group.add_argument(
    '--replace', action='store_true', help='results that are there already'
  )
  return parser.parse_args(arguments)


def make_battery(options: argparse.Namespace, folder: Path) -> Battery:
  """Returns the battery in a folder."""
  peer = options.peer and options.peer.resolve()
  if peer and not peer.is_file():
    raise SystemExit(f'gpu: --peer {options.peer} is not there')
  if options.rehearse and not peer:
    peer = folder / 'made_up_peer.py'
    folder.mkdir(parents=True, exist_ok=True)
    peer.write_text(_MADE_UP_PEER)
  inception = options.inception and options.inception.resolve()
  if inception and not inception.is_file():
    raise SystemExit(f'gpu: --inception {options.inception} is not there')
  maker = Maker(folder, peer, options.peer_python, inception)
  made = rehearsal(maker) if options.rehearse else entries(maker)
  with contextlib.suppress(FileNotFoundError):
    before = json.loads((folder / 'kind.json').read_text())
    if before['rehearsal'] != options.rehearse:
      raise SystemExit(
        f'gpu: {folder} holds {"a rehearsal" if before["rehearsal"] else "measurements"}'
        ': choose another --output'
      )
  gpus, torch = None, None

  def unavailable(entry: Entry) -> str:
    nonlocal gpus, torch
    for name in entry.data:
      if not (folder / 'cache' / name / 'index.json').is_file():
        return f'{name} is not in {folder / "cache"}: bring it with --pack'
    if entry.torch:
      torch = has_module(options.peer_python, 'torch') if torch is None else torch
      if not torch:
        return f'PyTorch is not installed in {options.peer_python}'
    gpus = count_gpus() if gpus is None and entry.gpus else gpus
    if entry.gpus > (gpus or 0):
      return f'wants {entry.gpus} GPU(s), and there are {gpus}'
    return ''

  return Battery(folder, made, environment(folder, options), unavailable)


def environment(folder: Path, options: argparse.Namespace) -> dict[str, str]:
  """Returns the variables of the entries: caches in the folder, wheels on the path."""
  paths = [str(ROOT), str(folder / 'site'), os.environ.get('PYTHONPATH', '')]
  found = {
    **os.environ,
    'PYTHONPATH': os.pathsep.join(filter(None, paths)),
    'JAXVISION_CACHE': str(folder / 'cache'),
    'TFDS_DATA_DIR': str(
      folder / 'no-tfds'
    ),  # the packed images, whatever else is there
    'TORCHINDUCTOR_CACHE_DIR': str(folder / 'cache' / 'inductor'),
    'PYTHONUNBUFFERED': '1',
  }
  if options.rehearse:
    found |= {'JAX_PLATFORMS': 'cpu', 'CUDA_VISIBLE_DEVICES': ''}
    found['JAX_NUM_CPU_DEVICES'] = '1'
  return found


def provide(options: argparse.Namespace, battery: Battery) -> None:
  """Unpacks data and wheels into the battery's folder."""
  folder = battery.folder
  if options.pack:
    if not options.pack.is_dir():
      raise SystemExit(f'gpu: --pack {options.pack} is not there')
    if unzipped := packing.install_wheels(options.pack, folder / 'site'):
      print(f'from the pack: {", ".join(unzipped)}', flush=True)
  made_up = options.rehearse and not options.pack
  if not (options.pack or made_up):
    return
  action = ['make-up'] if made_up else ['unpack', str(options.pack.resolve())]
  done = subprocess.run(
    [sys.executable, 'benchmarks/pack.py', *action, str(folder / 'cache')],
    cwd=ROOT,
    env={**environment(folder, options), 'JAX_PLATFORMS': 'cpu'},
    check=False,
  )
  if done.returncode:
    raise SystemExit(f'gpu: unpacking failed with exit code {done.returncode}')


def run(options: argparse.Namespace, folder: Path) -> int:
  """Works for the minutes that are given."""
  begun = time.monotonic()
  battery = make_battery(options, folder)
  names = options.only.split(',') if options.only else []
  wanted = chosen(battery.entries, names)
  if not (options.rehearse or count_gpus()):
    raise SystemExit('gpu: nvidia-smi lists no GPU; --rehearse needs none')
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'kind.json').write_text(json.dumps({'rehearsal': options.rehearse}) + '\n')
  with interruptible():
    try:
      provide(options, battery)
      left = 60 * options.minutes - (time.monotonic() - begun) - _STARTING
      battery.run(wanted, left, retry=options.retry)
    except KeyboardInterrupt:
      print('gpu: interrupted; the same command goes on', file=sys.stderr)
      return 130
    finally:
      print(listing(battery), flush=True)
  return 0


def listing(battery: Battery) -> str:
  """Returns the table of the entries."""
  rows = []
  for entry in battery.entries:
    known = battery.status(entry)
    spent = round(known['seconds']) or None
    why = known['why'] if len(known['why']) <= 120 else f'{known["why"][:117]}...'
    rows.append((entry.name, round(entry.seconds), known['status'], spent, why))
  return table(('entry', 'estimated, s', 'status', 'spent, s', 'outcome'), rows)


def collect(options: argparse.Namespace, folder: Path) -> int:
  """Puts the results into the project."""
  battery = make_battery(options, folder)
  if options.rehearse:
    raise SystemExit('gpu: a rehearsal has no results')
  if not battery.results:
    raise SystemExit(f'gpu: there are no results in {folder}')
  code = 0
  for target, found in battery.results.items():
    path = ROOT / target
    if path.exists() and not options.replace and json.loads(path.read_text()) != found:
      print(f'{target} is there already: --replace puts the new one in its place')
      code = 1
      continue
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + '\n')
    print(f'wrote {target}')
  return code


def write_pack(options: argparse.Namespace) -> int:
  """Packs data sets and wheels."""
  from jaxvision.errors import UserError

  output = options.output or Path('pack')
  try:
    lines = packing.pack(
      options.sets.split(','),
      options.data_dir,
      output,
      int(options.part_mib * 2**20),
      options.wheels,
    )
  except UserError as error:
    raise SystemExit(f'gpu: {error}') from error
  print(*lines, sep='\n')
  return 0


def main(arguments: list[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  options = parse(arguments)
  if options.action == 'pack':
    return write_pack(options)
  folder = (options.output or Path('runs') / 'gpu').resolve()
  actions: dict[str, Any] = {'run': run, 'collect': collect}
  if options.action == 'list':
    print(listing(make_battery(options, folder)))
    return 0
  return actions[options.action](options, folder)


if __name__ == '__main__':
  sys.exit(main())
