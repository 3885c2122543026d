"""Predicts how training scales to thousands of devices, from the compiled programs.

    python benchmarks/scaling.py                                # simulated CPU devices
    python benchmarks/scaling.py --backend=cuda --json=scaling.json
    python benchmarks/scaling.py --results=scaling.json --write=docs/scaling.md

Nothing runs and no accelerator is needed: XLA compiles the train step of `jaxvision
train` for devices that are not there (`ahead_of_time.py`), ResNet-50 and ViT-B on images
of 224x224 in bfloat16, with the same batch on each device. What the programs communicate
is read off their text (`collectives.py`), and what that takes follows from the speed of
links (`links.py`). The operations of a step are three times those of a forward pass, as
`jaxvision summary` counts them; XLA's own count for a CPU is beside them.

  replicated   every device has the whole state and a part of the batch
  fsdp         the eight devices of a node share the state, see `parallel.fsdp`

Both are compiled a second time where a model has batch norms, with
`parallel.norm_scope=device`.

An efficiency is the share of a step that computes. It is a prediction: docs/scaling.md
says what it leaves out. With `--results` the tables are made anew of a JSON, with other
assumptions if you like, and nothing is compiled.
"""

import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from collectives import KINDS
from links import CLUSTERS, DEVICES_PER_NODE, START, Cluster, Prediction, predict
from sides import Side, SideFailed
from table import Result, parser, table

TITLES = {'resnet50': 'ResNet-50', 'vit_base': 'ViT-B/16'}
LAYOUTS = ('replicated', 'fsdp')
NORM_SCOPES = ('global', 'device')
_WITH_BATCH_NORM = ('resnet50',)
_MARKERS = '<!-- scaling: begin -->', '<!-- scaling: end -->'

_DEVICES = {'cpu': '1,8,64,512,2048', 'cuda': '1,8,64,512,4096'}
_MOST_SIMULATED = 2048  # XLA takes devices of higher numbers for another process's
_LARGEST_BATCH = 1_000_000  # of a config


def compile_for(
  device_count: int,
  wanted: Sequence[tuple[str, int, str]],
  batch_size: int,
  backend: str,
) -> list[dict[str, Any]]:
  """Compiles in a new process, as the devices of one are there from its start.

  Args:
    device_count: that share each batch.
    wanted: model, `fsdp` and `norm_scope` of each program.
    batch_size, backend: see `ahead_of_time.count`.

  Returns:
    What `ahead_of_time.count` returns, for each program.
  """
  print(f'compiling for {device_count:,} x {backend}', file=sys.stderr, flush=True)
  environment = {'JAX_PLATFORMS': 'cpu'}
  if backend == 'cpu':
    environment['JAX_NUM_CPU_DEVICES'] = str(device_count)
  else:  # there is no device to time kernels on
    flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_gpu_autotune_level=0'
    environment['XLA_FLAGS'] = flags.strip()
  with Side('ahead_of_time.py', sys.executable, environment) as side:
    return [
      side.ask(
        'count',
        model=model,
        device_count=device_count,
        fsdp=fsdp,
        norm_scope=norm_scope,
        batch_size=batch_size,
        backend=backend,
      )
      for model, fsdp, norm_scope in wanted
    ]


def measure(options: Any) -> dict[str, Any]:
  """Compiles all programs that are asked for; returns the result, as in the JSON."""
  result = Result(
    'scaling',
    options.json,
    timed=False,
    backend=options.backend,
    batch_size=options.batch_size,
  )
  for device_count in options.devices:
    wanted = [
      (model, layout, norm_scope)
      for model in options.models
      for layout in options.layouts
      for norm_scope in NORM_SCOPES
      if layout == 'replicated' or device_count % DEVICES_PER_NODE == 0
      # The share of one device is the global batch.
      if norm_scope == 'global' or (model in _WITH_BATCH_NORM and device_count > 1)
    ]
    programs = [
      (model, 1 if layout == 'replicated' else DEVICES_PER_NODE, norm_scope)
      for model, layout, norm_scope in wanted
    ]
    counts = compile_for(device_count, programs, options.batch_size, options.backend)
    for (model, layout, norm_scope), counted in zip(wanted, counts):
      program = {'model': model, 'layout': layout, 'norm_scope': norm_scope}
      result.add({**program, 'devices': device_count, **counted})
  # What has no device has no count of operations either, but for a CPU's.
  alone = [(model, 1, 'global') for model in options.models]
  counts = compile_for(1, alone, options.batch_size, 'cpu')
  result.note(
    xla_flops={
      model: counted['xla_flops'] for (model, *_), counted in zip(alone, counts)
    }
  )
  result.write()
  return result.content


def _in_order(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  """Returns rows by model, layout, scope of batch norms and number of devices."""

  def place(row: dict[str, Any]) -> tuple[int, ...]:
    return (
      list(TITLES).index(row['model']),
      LAYOUTS.index(row['layout']),
      NORM_SCOPES.index(row['norm_scope']),
      row['devices'],
    )

  return sorted(rows, key=place)


def per_kind(row: dict[str, Any]) -> dict[str, tuple[int, int]]:
  """Returns the number of collectives of a program and their bytes, by kind."""
  return {
    kind: tuple(
      sum(one[what] for one in row['collectives'] if one['kind'] == kind)
      for what in ('count', 'bytes')
    )
    for kind in KINDS
  }


def waited(row: dict[str, Any]) -> int:
  """Returns how many of a program's collectives are waited for."""
  return sum(one['count'] for one in row['collectives'] if one['waited'])


def layout_title(row: dict[str, Any]) -> str:
  """Returns how a program shares the state, and its batch norms if not all the batch."""
  scope = row['norm_scope']
  return row['layout'] + (f', norm_scope={scope}' if scope != 'global' else '')


def traffic(rows: Sequence[dict[str, Any]]) -> str:
  """Returns the table of what a step communicates; programs that agree share a line."""
  lines: dict[tuple, list[int]] = {}
  for row in _in_order(rows):
    if not row['collectives']:
      continue
    state = f'{row["state_bytes"] / 1e6:,.0f}'
    title = layout_title(row)
    key = (row['model'], title, state, waited(row), *per_kind(row).values())
    lines.setdefault(key, []).append(row['devices'])
  made = []
  for (model, layout, state, waits, *kinds), devices in lines.items():
    cells = [f'{n:,}: {size / 1e6:,.1f}' if n else None for n, size in kinds]
    made.append(
      (
        TITLES[model],
        layout,
        ', '.join(f'{n:,}' for n in devices),
        state,
        waits,
        *cells,
      )
    )
  header = ('model', 'layout', 'devices', 'state, MB', 'waited for', *KINDS)
  shown = [i for i in range(len(header)) if i < 5 or any(line[i] for line in made)]
  return table([header[i] for i in shown], [[line[i] for i in shown] for line in made])


def _span(prediction: Prediction) -> str:
  shares = prediction.without_overlap, prediction.with_overlap
  # Of two that read alike one.
  return ' to '.join(dict.fromkeys(f'{100 * share:.0f}' for share in shares)) + ' %'


def efficiencies(
  rows: Sequence[dict[str, Any]], clusters: Sequence[Cluster], mfu: float
) -> str:
  """Returns the table of efficiencies, a line for each model, layout and cluster."""
  counts = sorted({row['devices'] for row in rows if row['devices'] > 1})
  lines: dict[tuple[str, str, str], dict[int, str]] = {}
  for cluster in clusters:
    for row in _in_order(rows):
      if row['devices'] == 1:
        continue
      key = (cluster.title, TITLES[row['model']], layout_title(row))
      lines.setdefault(key, {})[row['devices']] = _span(predict(row, cluster, mfu))
  made = [(*key, *(cells.get(n) for n in counts)) for key, cells in lines.items()]
  header = ('devices of', 'model', 'layout', *(f'{n:,} devices' for n in counts))
  return table(header, made)


def assumptions(clusters: Sequence[Cluster]) -> str:
  """Returns the table of what is assumed of devices and links."""
  header = (
    'devices of',
    'peak, TFLOP/s',
    'in a node, GB/s',
    'across, GB/s',
    'message in a node, us',
    'across, us',
  )
  return table(
    header,
    [
      (
        cluster.title,
        cluster.peak / 1e12,
        cluster.within / 1e9,
        cluster.across / 1e9,
        cluster.latency_within * 1e6,
        cluster.latency_across * 1e6,
      )
      for cluster in clusters
    ],
  )


def report(result: dict[str, Any], clusters: Sequence[Cluster], mfu: float) -> str:
  """Returns the tables in Markdown, with what is assumed.

  Args:
    result: see `measure`.
    clusters: to predict for.
    mfu: see `links.predict`.
  """
  rows = result['rows']
  compiler = {'cpu': 'simulated CPU devices', 'cuda': 'NVIDIA H100'}[result['backend']]
  work = [
    f'{TITLES[model]} {row["flops"] / 1e9 / result["batch_size"]:.1f} GFLOP an image '
    f'({result["xla_flops"][model] / row["flops"]:.3f} times that as XLA counts)'
    for model, row in {row['model']: row for row in rows}.items()
  ]
  return '\n'.join(
    [
      f'Programs of JAX {result["versions"]["jax"]} for {compiler}, '
      f'{result["batch_size"]} images on each device: {", ".join(work)}.',
      '',
      'What a step communicates, as number: MB of the whole values.',
      '',
      traffic(rows),
      '',
      f'Predicted efficiency, with {100 * mfu:.0f} % of the peak in the computation: from '
      'that without any overlap to that with all that the backward pass can hide.',
      '',
      efficiencies(rows, clusters, mfu),
      '',
      f'Assumed, with {START * 1e6:.1f} us for the start of a collective:',
      '',
      assumptions(clusters),
    ]
  )


def replaced(page: str, tables: str) -> str:
  """Returns a page with what stands between its markers replaced.

  Raises:
    ValueError: it has no markers.
  """
  begin, end = _MARKERS
  before, found, rest = page.partition(begin)
  _, closed, after = rest.partition(end)
  if not (found and closed):
    raise ValueError(f'no markers {begin} ... {end}')
  return f'{before}{begin}\n{tables}\n{end}{after}'


def _choices(option: str, text: str, known: Sequence[str]) -> list[str]:
  chosen = text.split(',')
  if not set(chosen) <= set(known):
    raise SystemExit(f'--{option} takes {", ".join(known)}')
  return chosen


def _check(options: Any) -> None:
  """Turns the options into lists; ends the command where they make no sense."""
  options.models = _choices('models', options.models, list(TITLES))
  options.layouts = _choices('layouts', options.layouts, LAYOUTS)
  options.clusters = [
    CLUSTERS[name] for name in _choices('clusters', options.clusters, list(CLUSTERS))
  ]
  if not 0 < options.mfu <= 1:
    raise SystemExit('--mfu takes a share of the peak, above 0 and at most 1')
  if options.results:
    return
  texts = (options.devices or _DEVICES[options.backend]).split(',')
  options.devices = [int(text) if text.isdecimal() else 0 for text in texts]
  for count in options.devices:
    # As in nodes of eight, all of them full, or a part of one.
    if count < 1 or (count % DEVICES_PER_NODE and DEVICES_PER_NODE % count):
      raise SystemExit('--devices takes 1, 2, 4 and multiples of 8, as in 1,8,64')
  most = max(options.devices)
  if options.backend == 'cpu' and most > _MOST_SIMULATED:
    raise SystemExit(
      f'a CPU simulates at most {_MOST_SIMULATED:,} devices, not {most:,}: take '
      '--backend=cuda'
    )
  if not 1 <= options.batch_size * most <= _LARGEST_BATCH:
    raise SystemExit(
      f'--batch-size: {options.batch_size:,} images on each of {most:,} devices are '
      f'not between 1 and the {_LARGEST_BATCH:,} that a step can take'
    )
  plugins = ('jax_cuda12_plugin', 'jax_cuda13_plugin')
  if options.backend == 'cuda' and not any(map(importlib.util.find_spec, plugins)):
    raise SystemExit(
      "JAX has no CUDA here: pip install 'jax[cuda12]', which needs no GPU, or take "
      '--backend=cpu'
    )


def _read(path: Path) -> dict[str, Any]:
  try:
    result = json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise SystemExit(f'{path} cannot be read: {error}') from error
  if not isinstance(result, dict) or result.get('benchmark') != 'scaling':
    raise SystemExit(f'{path} is no result of this benchmark')
  if 'xla_flops' not in result:  # noted last
    raise SystemExit(f'{path} is of a run that did not end')
  return result


def main(arguments: Sequence[str] | None = None) -> int:
  """Compiles or reads what is asked for, and prints or writes the tables."""
  made = parser(__doc__)
  made.add_argument('--backend', choices=tuple(_DEVICES), default='cpu')
  made.add_argument('--devices', help='by default ' + ' or '.join(_DEVICES.values()))
  made.add_argument('--models', default=','.join(TITLES), help='any of them')
  made.add_argument('--layouts', default=','.join(LAYOUTS), help='any of them')
  made.add_argument('--clusters', default=','.join(CLUSTERS), help='any of them')
  made.add_argument('--batch-size', type=int, default=128, help='of a device')
  made.add_argument('--mfu', type=float, default=0.4, help='share of the peak, 0.4')
  made.add_argument(
    '--results', metavar='FILE', type=Path, help='a JSON to read; compile nothing'
  )
  made.add_argument(
    '--write', metavar='PAGE', type=Path, help='replace the tables of a page'
  )
  options = made.parse_args(arguments)
  _check(options)
  try:
    result = _read(options.results) if options.results else measure(options)
  except SideFailed as error:
    raise SystemExit(f'a program does not compile: {error}') from error
  tables = report(result, options.clusters, options.mfu)
  if not options.write:
    print(tables)
    return 0
  try:
    page = replaced(options.write.read_text(), tables)
  except (OSError, ValueError) as error:
    raise SystemExit(f'{options.write} cannot be written: {error}') from error
  options.write.write_text(page)
  return 0


if __name__ == '__main__':
  sys.exit(main())
