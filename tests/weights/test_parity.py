"""Our networks beside PyTorch's, on the same random weights: logits and gradients.

In train mode the reference is PyTorch in float64. Where a value before a ReLU, or two
that compete in the max pool, lie within float32's rounding of each other, the two may
take different branches, and the gradient jumps: by up to a tenth of a tensor's largest
value, as much between PyTorch in float32 and in float64 as between PyTorch and us. So
the reference takes the branches that ours took, and then float32 is all that differs.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import models, weights
from jaxvision.weights import naming
from jaxvision.weights.tensors import named

torch = pytest.importorskip('torch')

import torch_efficientnet  # noqa: E402
import torch_resnet  # noqa: E402

pytestmark = pytest.mark.long

PEERS = {
  'resnet18': torch_resnet.resnet18,
  'resnet50': torch_resnet.resnet50,
  'resnet20': torch_resnet.cifar_resnet20,
}
LABELS = np.array([3, 7])


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  before = jax.config.read('jax_disable_most_optimizations')
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', before)


def weights_of(peer):
  """The state dict as `weights.read` returns it."""
  tensors = {
    name: tensor.numpy().astype(np.float32)
    for name, tensor in peer.state_dict().items()
    if not name.endswith('num_batches_tracked')
  }
  return weights.Weights(tensors, 'PyTorch')


def fitted(model, peer):
  shapes = jax.eval_shape(
    lambda: model.init(jax.random.key(0), jnp.zeros([1, 64, 64, 3]))
  )
  return weights.load(weights_of(peer), shapes).variables


@functools.partial(jax.jit, static_argnums=0)
def evaluated(model, variables, images):
  return model.apply(variables, images, train=False)


@functools.partial(jax.jit, static_argnums=0)
def trained(model, variables, images):
  """Returns logits, the gradient of the mean cross-entropy, and all layers' outputs."""

  def loss(params):
    logits, state = model.apply(
      {**variables, 'params': params},
      images,
      train=True,
      mutable=['batch_stats', 'intermediates'],
      capture_intermediates=True,
    )
    chosen = jax.nn.log_softmax(logits)[jnp.arange(len(LABELS)), LABELS]
    return -chosen.mean(), (logits, state)

  gradients, (logits, state) = jax.grad(loss, has_aux=True)(variables['params'])
  return logits, gradients, state


class Branches:
  """Stands for the ReLUs and the max pool of the peer, and decides as ours did."""

  def __init__(self, model, captured):
    outputs = [captured['stem_bn']]
    for i, size in enumerate(model.stage_sizes):
      for j in range(size):
        block = captured[f'stage{i + 1}_block{j + 1}']
        inner = ('bn1', 'bn2') if 'bn3' in block else ('bn1',)
        outputs += [block[name] for name in inner] + [block]
    # What goes into a ReLU or, at the end of a block, comes out of one.
    self.outputs = [
      torch.from_numpy(np.array(out['__call__'][0])).permute(0, 3, 1, 2)
      for out in outputs
    ]
    self.stem = torch.relu(self.outputs[0])

  def relu(self, x):
    return x * (self.outputs.pop(0) > 0)

  def max_pool2d(self, x, *window):
    _, indices = torch.nn.functional.max_pool2d(self.stem, *window, return_indices=True)
    return x.flatten(2).gather(2, indices.flatten(2)).view(indices.shape)


def relative(got, expected):
  return np.abs(np.asarray(got) - np.asarray(expected)).max() / np.abs(expected).max()


# Where all strides divide, and where they do not. ResNet-50's gradients take the longest
# to compile, and once: its shapes add nothing to ResNet-18's.
@pytest.mark.parametrize(
  ('name', 'size', 'gradients'),
  [
    pytest.param('resnet18', (96, 64), True, marks=pytest.mark.slow),
    ('resnet18', (97, 81), False),
    pytest.param('resnet50', (97, 81), True, marks=pytest.mark.slow),
    ('resnet20', (32, 32), True),
  ],
)
def test_logits_and_gradients_are_those_of_pytorch(name, size, gradients, monkeypatch):
  peer = torch_resnet.drawn(PEERS[name]())
  fields = {} if name == 'resnet20' else {'stem': 'imagenet'}
  classes = getattr(peer, peer.head).out_features
  model = models.create(name, classes, **fields)
  variables = fitted(model, peer)
  random = np.random.default_rng(0)
  images = random.standard_normal((2, *size, 3)).astype(np.float32)
  theirs = torch.from_numpy(images).permute(0, 3, 1, 2)
  with torch.no_grad():
    expected = peer(theirs).numpy()
  assert relative(evaluated(model, variables, images), expected) < 1e-5
  if not gradients:
    return

  logits, found, state = trained(model, variables, images)
  exact = peer.double().train()
  branches = Branches(model, state['intermediates'])
  with monkeypatch.context() as patch:
    patch.setattr(torch_resnet, 'relu', branches.relu)
    patch.setattr(torch_resnet, 'max_pool2d', branches.max_pool2d)
    expected = exact(theirs.double())
  assert not branches.outputs
  assert relative(logits, expected.detach().numpy()) < 1e-4
  torch.nn.functional.cross_entropy(expected, torch.from_numpy(LABELS)).backward()
  style = 'cifar' if name == 'resnet20' else 'torchvision'
  check_gradients(found, state, exact, style)


def check_gradients(found, state, exact, style):
  """Compares gradients and running means with those that `exact` holds."""
  parameters = dict(exact.named_parameters())
  for path, gradient in named({'params': found}).items():
    expected = parameters.pop(naming.to_theirs(path, style)).grad.numpy()
    gradient = naming.layout_to_theirs(path, gradient)
    if np.abs(expected).max() < 1e-12:  # a shift that the next norm takes away again
      assert np.abs(gradient).max() < 1e-5, path
      continue
    assert relative(gradient, expected) < 1e-4, path
  assert not parameters
  # Not the variances: PyTorch keeps the unbiased one of the batch, linen the biased.
  buffers = dict(exact.named_buffers())
  for path, mean in named({'batch_stats': state['batch_stats']}).items():
    if path.endswith('/mean'):
      expected = buffers[naming.to_theirs(path, style)].numpy()
      assert relative(mean, expected) < 1e-4, path


def torch_images(*size):
  random = np.random.default_rng(0)
  images = random.standard_normal((2, *size, 3)).astype(np.float32)
  return images, torch.from_numpy(images).permute(0, 3, 1, 2)


def test_efficientnet_has_the_logits_of_pytorch():
  peer = torch_resnet.drawn(torch_efficientnet.EfficientNet(10))
  model = models.create('efficientnet_b0', 10)
  images, theirs = torch_images(97, 65)
  with torch.no_grad():
    expected = peer(theirs).numpy()
  variables = fitted(model, peer)
  assert relative(evaluated(model, variables, images), expected) < 1e-5


# Of two stages: those of B0 take half a minute to compile. Swish has no branches to take.
@pytest.mark.slow
def test_efficientnet_has_the_gradients_of_pytorch():
  stages = ((1, 1, 16, 1, 3), (2, 6, 24, 2, 5))
  fields = ('depths', 'expansions', 'widths', 'strides', 'kernels')
  peer = torch_resnet.drawn(torch_efficientnet.EfficientNet(10, stages))
  model = models.create(
    'efficientnet_b0', 10, dropout=0.0, drop_path=0.0, **dict(zip(fields, zip(*stages)))
  )
  images, theirs = torch_images(33, 50)
  logits, found, state = trained(model, fitted(model, peer), images)
  exact = peer.double().train()
  expected = exact(theirs.double())
  assert relative(logits, expected.detach().numpy()) < 1e-4
  torch.nn.functional.cross_entropy(expected, torch.from_numpy(LABELS)).backward()
  check_gradients(found, state, exact, 'efficientnet')
