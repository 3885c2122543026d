"""Scaling on paper: collectives of a program, their time, the tables and the page."""

import json

import jax
import pytest

from jaxvision import config as config_lib
from jaxvision.data.info import DatasetInfo
from jaxvision.models.cpu import portable_operators
from jaxvision.training.mesh import make_mesh
from jaxvision.training.run import Run

# In the layouts of JAX 0.10 to 0.12, for CPUs, GPUs and TPUs.
PROGRAM = """\
HloModule jit_step, is_scheduled=true, num_partitions=16

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%body (carry: (s32[], bf16[100])) -> (s32[], bf16[100]) {
  %carry = (s32[], bf16[100]{0}) parameter(0)
  %item = bf16[100]{0} get-tuple-element(%carry), index=1
  %looped = bf16[100]{0} all-reduce(%item), replica_groups={{0,8},{1,9}}, to_apply=%add
  ROOT %next = (s32[], bf16[100]{0}) tuple(%count, %looped)
}

%wrapped (x: f32[8]) -> f32[8] {
  ROOT %swapped = f32[8]{0} all-to-all(%x), replica_groups=[2,8]<=[16], dimensions={0}
}

ENTRY %main (x: f32[64]) -> f32[64] {
  %x = f32[64]{0:T(128)} parameter(0), metadata={op_name="all-reduce(x)"}
  %all-reduce.1 = (f32[64]{0:T(128)}, /*index=1*/pred[3]{0}) all-reduce(%x, %p), replica_groups=mesh['data'=2,'fsdp'=8] {'data','fsdp'}, to_apply=%add
  %all-reduce-start = ((f32[10]{0}), f32[10]{0}) all-reduce-start(%y), replica_groups=mesh['data'=2,'fsdp'=8] {'fsdp'}, to_apply=%add
  %all-reduce-done = f32[10]{0} all-reduce-done(%all-reduce-start)
  %all-gather-start = (bf16[2,4]{1,0}, bf16[8,4]{1,0}) all-gather-start(%z), replica_groups=[4,4]<=[4,4]T(1,0), dimensions={0}
  %all-gather-done = bf16[8,4]{1,0} all-gather-done(%all-gather-start)
  %scattered = f32[5]{0} reduce-scatter(%w), replica_groups={}, to_apply=%add
  %sent-start = (u8[7]{0}, u8[7]{0}, u32[], u32[]) collective-permute-start(%v), source_target_pairs={{0,0},{1,9},{9,1}}
  %sent-done = u8[7]{0} collective-permute-done(%sent-start)
  %loop = (s32[], bf16[100]{0}) while(%init), condition=%add, body=%body, backend_config={"known_trip_count":{"n":"12"}}
  %started = ((f32[8]{0}), f32[8]{0}) async-start(%x), calls=%wrapped
  %awaited = f32[8]{0} async-done(%started), calls=%wrapped
  %alone = f32[64]{0} all-reduce(%x), replica_groups={{0},{1}}, to_apply=%add
  ROOT %all-reduced = f32[64]{0} add(%x, %alone)
}
"""


def test_collectives_of_every_kind_are_counted_once_and_in_loops_by_turns(module):
  found = module('collectives').collectives(PROGRAM)
  assert [(c.kind, c.dtypes, c.size, c.group, c.times) for c in found] == [
    ('all-reduce', ('f32', 'pred'), 259, tuple(range(16)), 1),
    ('all-reduce', ('f32',), 40, tuple(range(8)), 1),
    ('all-gather', ('bf16',), 64, (0, 4, 8, 12), 1),
    ('reduce-scatter', ('f32',), 320, tuple(range(16)), 1),
    ('collective-permute', ('u8',), 7, (1, 9), 1),
    ('all-reduce', ('bf16',), 200, (0, 8), 12),
    ('all-to-all', ('f32',), 32, tuple(range(8)), 1),
  ]


# A step of two products: what is between them is waited for.
WAITING = """\
HloModule jit_step, is_scheduled=true, num_partitions=8

%multiplied (a: f32[8,8], b: f32[8,8]) -> f32[8,8] {
  %a = f32[8,8] parameter(0)
  %b = f32[8,8] parameter(1)
  ROOT %dot = f32[8,8] dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%called (c: f32[3]) -> f32[3] {
  %c = f32[3] parameter(0)
  ROOT %inner = f32[3] all-reduce(%c), replica_groups={}, to_apply=%add
}

%turn (carry: f32[8,8]) -> f32[8,8] {
  %carry = f32[8,8] parameter(0)
  %looped = f32[4] all-reduce(%carry), replica_groups={}, to_apply=%add
  %squared = f32[8,8] fusion(%carry, %carry), kind=kOutput, calls=%multiplied
  ROOT %next = f32[8,8] add(%squared, %looped)
}

ENTRY %main (x: f32[8,8], w: f32[1,8]) -> f32[8,8] {
  %x = f32[8,8] parameter(0)
  %w = f32[1,8] parameter(1)
  %parameters = f32[1] all-gather(%w), replica_groups={}
  %first = f32[8,8] fusion(%x, %parameters), kind=kOutput, calls=%multiplied
  %start = (f32[2], f32[2]) all-reduce-start(%first), replica_groups={}, to_apply=%add
  %done = f32[2] all-reduce-done(%start)
  %call = f32[3] call(%first), to_apply=%called
  %gradient = f32[5] all-reduce(%first), replica_groups={}, to_apply=%add
  %second = (bf16[8,8], u8[0]) custom-call(%done, %call), custom_call_target="__cudnn$convForward", control-predecessors={%gradient}
  %other = f32[6] all-reduce(%second), replica_groups={}, to_apply=%add
  %loop = f32[8,8] while(%x), condition=%add, body=%turn, backend_config={"known_trip_count":{"n":"2"}}
  ROOT %update = f32[8,8] custom-call(%w, %gradient, %other), custom_call_target="__convert"
}
"""


def test_what_is_between_two_products_is_waited_for(module):
  found = module('collectives').collectives(WAITING)
  assert {c.size // 4: c.waited for c in found} == {
    1: False,
    2: True,
    3: True,
    4: True,
    5: False,
    6: False,
  }


@pytest.mark.parametrize(
  ('old', 'new', 'message'),
  [
    ('known_trip_count', 'unknown', 'a loop over body does not say how often'),
    ("{'fsdp'}", "{'fsdp':(1)2}", 'unknown way to write groups'),
    ('replica_groups={},', '', 'unknown way to write groups'),
  ],
)
def test_what_cannot_be_counted_is_an_error(module, old, new, message):
  assert old in PROGRAM
  with pytest.raises(ValueError, match=message):
    module('collectives').collectives(PROGRAM.replace(old, new))


def test_collectives_that_cost_alike_are_one_row(module):
  lib = module('collectives')
  in_node, across = tuple(range(8)), (0, 8, 16)
  found = [
    lib.Collective('all-reduce', ('f32',), 100, in_node, times=3),
    lib.Collective('all-reduce', ('f32',), 60, in_node),
    lib.Collective('all-reduce', ('f32',), 101, in_node, waited=True),
    lib.Collective('all-reduce', ('bf16', 'f32'), 5, across),
  ]
  rows = [tuple(row.values()) for row in lib.totals(found, 8)]
  assert rows == [
    ('all-reduce', 'bf16+f32', False, 1, 3, 1, 5),
    ('all-reduce', 'f32', False, 8, 1, 4, 360),
    ('all-reduce', 'f32', True, 8, 1, 1, 101),
  ]


# 8 MB over links of 100 and 10 MB/s with messages of 1 and 7 ms, less the start.
@pytest.mark.parametrize(
  ('kind', 'within', 'nodes', 'expected'),
  [
    # 14 messages and 2 * 7/8 * 8 MB in a node.
    ('all-reduce', 8, 1, 0.014 + 0.14),
    # Across four nodes, 2 * 2 messages more, and 2 * 3/4 of the eighth, 1 MB.
    ('all-reduce', 8, 4, 0.014 + 0.14 + 0.028 + 0.15),
    # Of five: a tree of three levels.
    ('all-reduce', 1, 5, 2 * 0.021 + 2 * 4 / 5 * 0.8),
    ('all-gather', 8, 4, (0.014 + 0.14 + 0.028 + 0.15) / 2),
    ('reduce-scatter', 2, 1, 0.001 + 0.04),
    # One of two devices in the node and two beyond, 2 MB for each.
    ('all-to-all', 2, 2, 0.001 + 0.02 + 2 * (0.007 + 0.2)),
    ('collective-permute', 2, 1, 0.001 + 0.08),
    ('collective-permute', 1, 2, 0.007 + 0.8),
  ],
)
def test_the_time_of_a_collective(module, kind, within, nodes, expected):
  links = module('links')
  cluster = links.Cluster('', 'H100', 1e8, 1e7, 1e-3, 7e-3)
  took = links.seconds(kind, 8e6, within, nodes, cluster)
  assert took == pytest.approx(links.START + expected, rel=1e-12)


def collective(count, size, waited):
  return {
    'kind': 'all-gather',
    'dtypes': 'f32',
    'waited': waited,
    'within': 2,
    'nodes': 1,
    'count': count,
    'bytes': size,
  }


def test_a_prediction_hides_what_is_not_waited_for_behind_the_backward_pass(module):
  links = module('links')
  cluster = links.Cluster('', 'H100', within=1e8, across=1, latency_within=1e-3)
  assert cluster.peak == 989.4e12
  flops = 0.5 * 989.4e12 * 3  # three seconds at half of the peak

  def predict(*collectives):
    row = {'flops': flops, 'collectives': collectives}
    return links.predict(row, cluster, mfu=0.5)

  alone = predict()
  assert alone.compute == pytest.approx(3)
  assert alone.without_overlap == alone.with_overlap == 1
  # Ten of 20 MB: each a millisecond and half its bytes.
  hidden = predict(collective(10, 2e8, waited=False))
  assert hidden.moving == pytest.approx(10 * (links.START + 0.001 + 0.1))
  assert hidden.without_overlap == pytest.approx(3 / (3 + hidden.moving))
  assert hidden.with_overlap == 1
  waiting = predict(collective(10, 2e8, waited=True))
  assert waiting.with_overlap == waiting.without_overlap == hidden.without_overlap
  # Four seconds, of which the backward pass hides two.
  both = predict(collective(1, 8e8, waited=False), collective(1, 2e8, waited=True))
  rest = 2 + 1 + 2 * links.START + 2 * 0.001
  assert both.with_overlap == pytest.approx(3 / (3 + rest))


@pytest.fixture
def digits():
  """A config of digits with a small network, and the facts of its images."""
  config = config_lib.load('configs/digits_cnn.py', ['steps=12'])
  config.model = {'name': 'small_filters_cnn', 'features': (4, 6, 8)}
  return config, DatasetInfo(
    name='digits',
    class_names=tuple('0123456789'),
    image_shape=(8, 8, 1),
    mean=(0.3,),
    std=(0.3,),
    examples={'train': 1437, 'test': 360},
  )


@pytest.mark.usefixtures('quick_compile')
def test_a_compiled_step_adds_up_the_gradients_and_nothing_else(module, digits):
  lower = module('ahead_of_time').lower
  collectives = module('collectives').collectives
  config, info = digits
  for devices in (2, 4):
    run = Run.build(config, info, mesh=make_mesh(data=devices))
    found = collectives(lower(run).compile().as_text())
    gradients = sum(
      4 * leaf.size for leaf in jax.tree.leaves(run.abstract_state().params)
    )
    assert gradients > 4 * 500
    assert {c.kind for c in found} == {'all-reduce'}
    assert {c.group for c in found} == {tuple(range(devices))}
    # And three sums for the means that are logged.
    assert sum(c.size * c.times for c in found) == gradients + 3 * 4
    assert not any(c.waited for c in found)


@pytest.mark.usefixtures('quick_compile')
def test_with_norms_of_each_device_a_compiled_step_waits_for_nothing(module, digits):
  lower = module('ahead_of_time').lower
  config, info = digits
  config.model = {'name': 'digits_cnn', 'features': (4, 6)}
  waits, sizes = {}, {}
  for scope in ('global', 'device'):
    config.parallel.norm_scope = scope
    run = Run.build(config, info, mesh=make_mesh(data=2))
    with portable_operators():  # whose products can be told by their names
      lowered = lower(run)
    # What keeps GPUs from waiting for the sums of gradients.
    assert ('optimization_barrier' in lowered.as_text()) == (scope == 'device')
    found = module('collectives').collectives(lowered.compile().as_text())
    waits[scope] = sum(c.waited for c in found)
    sizes[scope] = sum(c.size * c.times for c in found)
  assert waits['global'] >= 3
  assert waits['device'] == 0
  # Gradients, running statistics and three sums for the means that are logged.
  state = run.abstract_state()
  numbers = jax.tree.leaves((state.params, state.batch_stats))
  assert sizes['device'] == 4 * (sum(leaf.size for leaf in numbers) + 3)


@pytest.mark.usefixtures('quick_compile')
def test_a_program_is_counted_whole(module):
  lib = module('ahead_of_time')
  fields = {'depth': 1, 'width': 96}
  counted = lib.count(
    'vit_tiny', device_count=2, fsdp=1, batch_size=2, backend='cpu', fields=fields
  )
  parameters = counted['parameters']
  assert parameters == 301_864
  # Of two images: patches, projections, scores and mixtures of values, MLP, head.
  products = 196 * 768 * 96 + 197 * 96 * (4 + 8) * 96 + 2 * 197**2 * 96 + 96 * 1000
  assert counted['flops'] == 3 * 2 * 2 * products
  assert counted['xla_flops'] == pytest.approx(counted['flops'], rel=0.1)
  # Parameters and two averages of AdamW, and a few scalars.
  assert 12 * parameters <= counted['state_bytes'] < 12 * parameters + 1000
  # On a CPU bfloat16 is summed as float32.
  rows = counted['collectives']
  assert {(c['kind'], c['dtypes'], c['within'], c['nodes']) for c in rows} == {
    ('all-reduce', 'f32', 2, 1)
  }
  assert sum(c['bytes'] for c in rows) == 4 * parameters + 3 * 4
  with pytest.raises(ValueError, match='8 simulated devices, not 16'):
    lib.devices('cpu', 16)


def test_every_program_that_is_asked_for_is_compiled(
  module, monkeypatch, tmp_path, capsys
):
  scaling, asked = module('scaling'), []

  def compile_for(device_count, wanted, batch_size, backend):
    asked.append((device_count, wanted, batch_size, backend))
    sums = {**collective(2, 8e6, waited=False), 'kind': 'all-reduce'}
    row = {
      'flops': 1e12,
      'xla_flops': 1.5e12,
      'state_bytes': 7e6,
      'collectives': [sums] * (device_count > 1),
    }
    return [row] * len(wanted)

  monkeypatch.setattr(scaling, 'compile_for', compile_for)
  path = tmp_path / 'scaling.json'
  options = ['--devices=1,4,8', '--batch-size=10', f'--json={path}']
  assert scaling.main(options) == 0
  alone = [('resnet50', 1, 'global'), ('vit_base', 1, 'global')]
  device = ('resnet50', 1, 'device')
  shared = [('resnet50', 8, 'global'), ('resnet50', 8, 'device')]
  assert asked == [
    (1, alone, 10, 'cpu'),
    (4, [alone[0], device, alone[1]], 10, 'cpu'),
    (8, [alone[0], device, *shared, alone[1], ('vit_base', 8, 'global')], 10, 'cpu'),
    (1, alone, 10, 'cpu'),
  ]
  written = json.loads(path.read_text())
  programs = [(r['layout'], r['norm_scope']) for r in written['rows']]
  assert programs[-6:] == [
    ('replicated', 'global'),
    ('replicated', 'device'),
    ('fsdp', 'global'),
    ('fsdp', 'device'),
    ('replicated', 'global'),
    ('fsdp', 'global'),
  ]
  printed = capsys.readouterr().out
  assert 'ViT-B/16 100.0 GFLOP an image (1.500 times that as XLA counts)' in printed
  cells = (
    '| replicated, norm_scope=device | 4, 8    | 7         | 0          | 2: 8.0     |'
  )
  assert cells in printed
  # The same tables from the JSON; none from one that lacks its end.
  assert scaling.main([f'--results={path}']) == 0
  assert capsys.readouterr().out == printed
  del written['xla_flops']
  path.write_text(json.dumps(written))
  with pytest.raises(SystemExit, match='did not end'):
    scaling.main([f'--results={path}'])


@pytest.fixture
def stored(pytestconfig):
  """The committed result, and the page that is made of it."""
  root = pytestconfig.rootpath
  return root / 'benchmarks' / 'results' / 'scaling.json', root / 'docs' / 'scaling.md'


def test_the_page_is_that_of_the_stored_result(module, stored, tmp_path, capsys):
  scaling, (result, page) = module('scaling'), stored
  text = page.read_text()
  assert 'prediction' in text
  copy = tmp_path / 'page.md'
  copy.write_text(text.replace('|', '-'))
  assert copy.read_text() != text
  scaling.main([f'--results={result}', f'--write={copy}'])
  begin, end = '<!-- scaling: begin -->', '<!-- scaling: end -->'
  assert copy.read_text().split(begin)[1] == text.split(begin)[1]
  # Other assumptions, other numbers; only what is asked for.
  scaling.main([f'--results={result}', '--mfu=0.1', '--clusters=a100'])
  printed = capsys.readouterr().out
  assert 'with 10 % of the peak' in printed
  assert 'DGX A100' in printed
  assert 'DGX H100' not in printed
  assert printed not in text
  copy.write_text(f'{end} {begin}')
  with pytest.raises(SystemExit, match='no markers'):
    scaling.main([f'--results={result}', f'--write={copy}'])


def test_the_stored_programs_sum_the_same_bytes_for_any_number_of_devices(stored):
  result = json.loads(stored[0].read_text())
  of = {
    (r['model'], r['layout'], r['devices']): r
    for r in result['rows']
    if r['norm_scope'] == 'global'
  }
  counts = sorted({devices for *_, devices in of})
  assert counts == [1, 8, 64, 512, 4096]
  for model in ('resnet50', 'vit_base'):
    # XLA's count of operations is ours, but for what is no product, and pads.
    ratio = result['xla_flops'][model] / of[model, 'replicated', 8]['flops']
    assert 0.95 < ratio < 1.05
    assert of[model, 'replicated', 1]['collectives'] == []
    sums = []
    for devices in counts[1:]:
      row = of[model, 'replicated', devices]
      groups = {(c['within'], c['nodes']) for c in row['collectives']}
      assert groups == {(8, devices // 8)}
      assert {c['kind'] for c in row['collectives']} == {'all-reduce'}
      sums.append([(c['dtypes'], c['count'], c['bytes']) for c in row['collectives']])
      shared = of[model, 'fsdp', devices]
      assert shared['state_bytes'] < row['state_bytes'] / 7
    assert sums[0] == sums[1] == sums[2] == sums[3]


def test_the_stored_programs_with_norms_of_each_device_hardly_wait(module, stored):
  scaling = module('scaling')
  rows = json.loads(stored[0].read_text())['rows']
  of = {
    (r['layout'], r['norm_scope'], r['devices']): r
    for r in rows
    if r['model'] == 'resnet50'
  }
  for layout in ('replicated', 'fsdp'):
    for devices in (8, 64, 512, 4096):
      row = of[layout, 'device', devices]
      assert scaling.waited(of[layout, 'global', devices]) > 100
      # At 8 devices XLA moves the last features, where the state is shared.
      assert scaling.waited(row) == (2 if (layout, devices) == ('fsdp', 8) else 0)
      assert sum(c['count'] for c in row['collectives']) < 12


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--devices=1,12'], '--devices takes 1, 2, 4 and multiples of 8'),
    (['--devices=8,-8'], '--devices takes'),
    (['--devices=eight'], '--devices takes'),
    (['--devices=8,4096'], 'at most 2,048 devices, not 4,096'),
    (['--devices=512', '--batch-size=2000'], 'not between 1 and the 1,000,000'),
    (['--batch-size=0'], 'not between 1'),
    (['--models=resnet18'], '--models takes resnet50, vit_base'),
    (['--layouts=pipeline'], '--layouts takes replicated, fsdp'),
    (['--clusters=token-ring'], '--clusters takes h100, a100'),
    (['--mfu=40'], '--mfu takes a share of the peak'),
    (['--results=nowhere.json'], 'nowhere.json cannot be read'),
    (['--results=pyproject.toml'], 'pyproject.toml cannot be read'),
    (
      ['--results=benchmarks/results/latency_cpu.json'],
      'latency_cpu.json is no result of this benchmark',
    ),
  ],
)
def test_a_mistake_is_one_line(module, pytestconfig, monkeypatch, arguments, message):
  monkeypatch.chdir(pytestconfig.rootpath)
  with pytest.raises(SystemExit) as ended:
    module('scaling').main(arguments)
  assert message in ended.value.code
  assert '\n' not in ended.value.code


def test_without_cuda_the_packages_that_it_needs_are_named(module, monkeypatch):
  scaling = module('scaling')
  monkeypatch.setattr(scaling.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(SystemExit, match='pip install'):
    scaling.main(['--backend=cuda'])
