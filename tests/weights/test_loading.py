"""Weights into variables and out again: names, shapes, skips, advice."""

import re

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxvision import weights
from jaxvision.errors import UserError
from jaxvision.weights import naming
from jaxvision.weights.tensors import named


def assert_same(got, expected):
  got, expected = named(got), named(expected)
  assert list(got) == list(expected)
  for name, array in got.items():
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, expected[name], err_msg=name)


def zeros(variables):
  return jax.tree.map(np.zeros_like, variables)


def refused(source, variables, *skip):
  with pytest.raises(UserError) as caught:
    weights.load(source, variables, skip)
  assert '\n' not in str(caught.value)
  return str(caught.value)


def pytorch(variables, style='torchvision'):
  """Weights as a checkpoint of PyTorch would hold them."""
  tensors = {
    naming.to_theirs(name, style): naming.layout_to_theirs(name, array)
    for name, array in named(variables).items()
  }
  return weights.Weights(tensors, 'them')


@pytest.mark.parametrize(
  ('name', 'fields', 'style'),
  [
    ('resnet18', {'stem': 'imagenet'}, 'torchvision'),
    ('resnet18', {}, 'cifar'),
    ('resnet20', {}, 'cifar'),
    ('efficientnet_b0', {}, 'efficientnet'),
    ('efficientnet_b0', {}, 'efficientnet_pytorch'),
    ('efficientnet_lite0', {}, 'timm'),
    ('mobilenet_v2', {}, 'timm'),
    ('basic_cnn', {}, None),
    ('preact_resnet18', {}, None),
    ('airbench94', {}, None),
    ('cct_2_3x2', {}, None),
    ('convnext_atto', {}, None),
    ('vit_tiny', {'depth': 1}, None),
  ],
)
def test_out_and_in_is_exact(name, fields, style, variables, tmp_path):
  path = tmp_path / 'out.safetensors'
  drawn = variables(name, 7, **fields)
  known = weights.Preprocessing((0.1,), (0.2,), 48, 0.9, 'bicubic', tuple('abcdefg'))
  weights.save(path, drawn, known, name)
  read = weights.read(str(path))
  assert (read.preprocessing, read.model) == (known, name)
  result = weights.load(read, zeros(drawn))
  assert_same(result.variables, drawn)
  assert (result.fresh, result.ignored) == ((), ())
  assert [p.name for p in tmp_path.iterdir()] == ['out.safetensors']
  # The same weights make the same file.
  weights.save(tmp_path / 'again.safetensors', drawn, known, name)
  assert (tmp_path / 'again.safetensors').read_bytes() == path.read_bytes()
  if style:
    assert_same(weights.load(pytorch(drawn, style), zeros(drawn)).variables, drawn)
  of = weights.Weights.of_variables(drawn, 'a run', known)
  assert_same(weights.load(of, zeros(drawn)).variables, drawn)


# Names as torchvision, timm and efficientnet_pytorch have them, with the shapes of B0.
EFFICIENTNET = [
  ('stem_conv/kernel', 'features.0.0', 'conv_stem', '_conv_stem', (32, 3, 3, 3)),
  ('stem_bn/scale', 'features.0.1', 'bn1', '_bn0', (32,)),
  (
    'stage1_block1/depthwise_conv/kernel',
    'features.1.0.block.0.0',
    'blocks.0.0.conv_dw',
    '_blocks.0._depthwise_conv',
    (32, 1, 3, 3),
  ),
  (
    'stage1_block1/depthwise_bn/scale',
    'features.1.0.block.0.1',
    'blocks.0.0.bn1',
    '_blocks.0._bn1',
    (32,),
  ),
  (
    'stage1_block1/attention/squeeze/kernel',
    'features.1.0.block.1.fc1',
    'blocks.0.0.se.conv_reduce',
    '_blocks.0._se_reduce',
    (8, 32, 1, 1),
  ),
  (
    'stage1_block1/project_conv/kernel',
    'features.1.0.block.2.0',
    'blocks.0.0.conv_pw',
    '_blocks.0._project_conv',
    (16, 32, 1, 1),
  ),
  (
    'stage1_block1/project_bn/scale',
    'features.1.0.block.2.1',
    'blocks.0.0.bn2',
    '_blocks.0._bn2',
    (16,),
  ),
  (
    'stage3_block2/expand_conv/kernel',
    'features.3.1.block.0.0',
    'blocks.2.1.conv_pw',
    '_blocks.4._expand_conv',
    (240, 40, 1, 1),
  ),
  (
    'stage3_block2/expand_bn/scale',
    'features.3.1.block.0.1',
    'blocks.2.1.bn1',
    '_blocks.4._bn0',
    (240,),
  ),
  (
    'stage3_block2/depthwise_conv/kernel',
    'features.3.1.block.1.0',
    'blocks.2.1.conv_dw',
    '_blocks.4._depthwise_conv',
    (240, 1, 5, 5),
  ),
  (
    'stage3_block2/depthwise_bn/scale',
    'features.3.1.block.1.1',
    'blocks.2.1.bn2',
    '_blocks.4._bn1',
    (240,),
  ),
  (
    'stage3_block2/attention/excite/kernel',
    'features.3.1.block.2.fc2',
    'blocks.2.1.se.conv_expand',
    '_blocks.4._se_expand',
    (240, 10, 1, 1),
  ),
  (
    'stage3_block2/project_conv/kernel',
    'features.3.1.block.3.0',
    'blocks.2.1.conv_pwl',
    '_blocks.4._project_conv',
    (40, 240, 1, 1),
  ),
  (
    'stage3_block2/project_bn/scale',
    'features.3.1.block.3.1',
    'blocks.2.1.bn3',
    '_blocks.4._bn2',
    (40,),
  ),
  ('last_conv/kernel', 'features.8.0', 'conv_head', '_conv_head', (1280, 320, 1, 1)),
  ('last_bn/scale', 'features.8.1', 'bn2', '_bn1', (1280,)),
  ('head/kernel', 'classifier.1', 'classifier', '_fc', (1000, 1280)),
]


@pytest.mark.parametrize('column', [1, 2, 3])
def test_names_of_an_efficientnet(column, variables, tmp_path):
  path = tmp_path / 'some.safetensors'
  drawn = named(variables('efficientnet_b0', 1000))
  # The last block, which says how many there are where they are numbered in a row.
  last = [('', '', '', '_blocks.15._bn2', (320,))] if column == 3 else []
  tensors = {
    f'module.{row[column]}.weight': np.ones(row[4], np.float32)
    for row in EFFICIENTNET + last
  }
  path.write_bytes(safetensors.numpy.save(tensors))
  read = weights.read(str(path)).tensors
  assert len(read) == len(tensors)
  found = {naming.to_ours(name): (name, array) for name, array in read.items()}
  for ours, *_, shape in EFFICIENTNET:
    name, array = found[f'params/{ours}']
    assert array.shape == shape
    here = naming.layout_to_ours(name, array)
    assert here.shape == drawn[f'params/{ours}'].shape
    assert naming.layout_to_theirs(f'params/{ours}', here).shape == shape


@pytest.mark.parametrize('name', ['efficientnet_b1', 'efficientnet_lite0'])
def test_blocks_that_are_numbered_in_a_row(name, variables, tmp_path):
  path = tmp_path / 'some.safetensors'
  drawn = variables(name, 3)
  places, tensors = {}, {}
  for own, array in pytorch(drawn, 'efficientnet_pytorch').tensors.items():
    block = re.match(r'_blocks\.(\d+)\.(\d+)\.', own)
    if block:
      places[tuple(map(int, block.groups()))] = None
      own = f'_blocks.{block[1]}:{block[2]}.{own[block.end() :]}'
    tensors[own] = np.ascontiguousarray(array)
  numbers = {f'{a}:{b}': str(i) for i, (a, b) in enumerate(sorted(places))}
  flat = {
    re.sub(r'\d+:\d+', lambda place: numbers[place[0]], own): array
    for own, array in tensors.items()
  }
  path.write_bytes(safetensors.numpy.save(flat))
  assert_same(weights.load(weights.read(str(path)), zeros(drawn)).variables, drawn)


def test_blocks_that_no_network_has_are_refused_by_name(variables, tmp_path):
  path = tmp_path / 'some.safetensors'
  path.write_bytes(
    safetensors.numpy.save({'_blocks.17._bn1.weight': np.ones(2, np.float32)})
  )
  message = refused(weights.read(str(path)), variables('efficientnet_b0'))
  assert '_blocks.17._bn1.weight' in message


def test_a_network_that_pytorch_has_not_keeps_our_names(variables, tmp_path):
  path = tmp_path / 'out.safetensors'
  # In timm's names conv_pw of the first stage is the last convolution of a block, or,
  # where the block has one, the first: here it would be both.
  drawn = variables('mobilenet_v2', expansions=(6,) * 7)
  weights.save(path, drawn, weights.Preprocessing(), 'mobilenet_v2')
  read = weights.read(str(path))
  assert all(map(naming.is_ours, read.tensors))
  assert_same(weights.load(read, zeros(drawn)).variables, drawn)


def test_nothing_is_assumed_of_weights_that_we_saved(variables, tmp_path):
  path = tmp_path / 'out.safetensors'
  drawn = variables('resnet18', stem='imagenet')
  weights.save(path, drawn, weights.Preprocessing(), 'resnet18')
  assert weights.read(str(path)).preprocessing == weights.Preprocessing()
  with pytest.raises(UserError, match='cannot be written'):
    weights.save(
      tmp_path / 'none' / 'out.safetensors', drawn, weights.Preprocessing(), 'x'
    )


def test_pytorch_takes_what_we_save(variables, tmp_path):
  pytest.importorskip('torch')
  import torch_efficientnet
  import torch_resnet
  from safetensors.torch import load_file

  for name, fields, peer in (
    ('resnet18', {'stem': 'imagenet'}, torch_resnet.resnet18(10)),
    ('resnet50', {'stem': 'imagenet'}, torch_resnet.resnet50(10)),
    ('resnet20', {}, torch_resnet.cifar_resnet20()),
    ('resnet20', {'shortcut': 'B'}, torch_resnet.cifar_resnet20(10, 'shortcut')),
    ('efficientnet_b0', {}, torch_efficientnet.EfficientNet(10)),
  ):
    path = tmp_path / 'out.safetensors'
    weights.save(path, variables(name, **fields), weights.Preprocessing(), name)
    peer.load_state_dict(load_file(path), strict=True)


@pytest.mark.parametrize(
  'skip', [('stage4_.*', 'head'), ('layer4', 'fc'), (r'layer4\..*', 'head')]
)
def test_what_is_skipped_starts_fresh(skip, variables):
  drawn = variables('resnet18', 10)
  fresh = jax.tree.map(lambda leaf: leaf + 1, drawn)
  partial = {k: v for k, v in pytorch(drawn).tensors.items() if 'layer4.1' not in k}
  partial['fc.weight'] = np.zeros([1000, 512], np.float32)
  result = weights.load(weights.Weights(partial, 'them'), fresh, skip)
  got, old, new = (named(tree) for tree in (result.variables, drawn, fresh))
  for name, array in got.items():
    is_fresh = '/stage4_' in name or '/head/' in name
    assert (name in result.fresh) == is_fresh == (name not in result.loaded)
    np.testing.assert_array_equal(array, (new if is_fresh else old)[name])
  assert {name.split('.')[0] for name in result.ignored} == {'layer4', 'fc'}
  # A pattern of what to keep: all that is not the stem.
  result = weights.load(pytorch(drawn), fresh, ('(?!stem_).*',))
  assert {name.split('/')[1] for name in result.loaded} == {'stem_conv', 'stem_bn'}


def test_what_does_not_fit_is_named_with_the_way_out(variables):
  small = variables('resnet18', 10)
  large = variables('resnet18', 1000, stem='imagenet')
  message = refused(pytorch(large), variables('resnet18', 10, stem='imagenet'))
  assert message == (
    'weights them do not fit the model: 2 of another shape: fc.bias (head/bias, [1000], '
    'here [10]), fc.weight (head/kernel, [1000, 512], here [10, 512]); to start these at '
    'random, set --config.init.skip=head'
  )
  message = refused(pytorch(large), small)
  assert 'conv1.weight (stem_conv/kernel, [64, 3, 7, 7], here [64, 3, 3, 3])' in message
  assert message.endswith('--config.model.stem=imagenet and --config.init.skip=head')
  message = refused(pytorch(small), variables('resnet18', 10, stem='imagenet'))
  assert message.endswith('; set --config.model.stem=cifar')

  tensors = pytorch(small).tensors
  beheaded = {k: v for k, v in tensors.items() if not k.startswith(('layer4', 'fc'))}
  message = refused(weights.Weights(beheaded, 'them'), small)
  assert '27 missing in it: ' in message
  assert 'and 24 more' in message
  assert message.endswith("""set --config.init.skip='("stage4_.*", "head")'""")

  extra = {**tensors, 'layer1.0.conv1.bias': np.zeros(64, np.float32)}
  message = refused(weights.Weights(extra, 'them'), small)
  assert '1 not in the model: layer1.0.conv1.bias;' in message
  twice = {**tensors, 'linear.bias': np.zeros(10, np.float32)}
  assert 'linear.bias' in refused(weights.Weights(twice, 'them'), small)


@pytest.mark.parametrize(
  ('source', 'target', 'advice'),
  [
    (
      'resnet34',
      'resnet18',
      'they look like resnet34, set --config.model.name=resnet34',
    ),
    (
      'resnet18',
      'resnet50',
      'they look like resnet18, set --config.model.name=resnet18',
    ),
    (
      'resnet20',
      'resnet18',
      'they look like resnet20, set --config.model.name=resnet20',
    ),
    ('resnet18', 'basic_cnn', 'like resnet18, set --config.model.name=resnet18'),
    *(
      (name, other, f'they look like {name}, set --config.model.name={name}')
      for name, other in [
        ('efficientnet_lite0', 'efficientnet_b0'),
        ('efficientnet_b2', 'efficientnet_b1'),
        ('efficientnet_b0', 'basic_cnn'),
        ('mobilenet_v2', 'resnet20'),
      ]
    ),
  ],
)
def test_the_model_that_weights_look_like(source, target, advice, variables):
  styles = {'resnet20': 'cifar', 'mobilenet_v2': 'timm'}
  family = 'efficientnet' if source.startswith('efficientnet') else 'torchvision'
  drawn = pytorch(variables(source), styles.get(source, family))
  message = refused(drawn, variables(target))
  assert message.endswith(advice)


def test_weights_of_other_models(variables):
  drawn = variables('resnet20', shortcut='B')
  message = refused(pytorch(drawn, 'cifar'), variables('resnet20'))
  assert message.endswith('; set --config.model.shortcut=B')
  of = weights.Weights.of_variables(variables('basic_cnn'), 'a run', model='basic_cnn')
  assert refused(of, drawn).endswith(
    'they look like basic_cnn, set --config.model.name=basic_cnn'
  )
  stranger = weights.Weights({'embed.weight': np.zeros([2, 2], np.float32)}, 'them')
  assert refused(stranger, drawn).endswith('these are the weights of another model')


def test_patterns_that_mean_nothing(variables):
  drawn = variables('resnet20')
  assert 'init.skip: "layer7" matches no' in refused(pytorch(drawn), drawn, 'layer7')
  assert 'no regular expression' in refused(pytorch(drawn), drawn, '(')
  assert 'leaves nothing of them' in refused(pytorch(drawn), drawn, '.*')


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_named(value, variables):
  drawn = variables('resnet20')
  given = dict(pytorch(drawn, 'cifar').tensors)
  given['layer2.1.bn1.running_var'] = given['layer2.1.bn1.running_var'].copy()
  given['layer2.1.bn1.running_var'][5] = value
  message = refused(weights.Weights(given, 'them'), drawn)
  assert 'layer2.1.bn1.running_var is not finite: 1 of its 32 numbers' in message
  result = weights.load(weights.Weights(given, 'them'), drawn, ('stage2_block2/bn1',))
  assert len(result.fresh) == 4  # what is not taken is no matter
