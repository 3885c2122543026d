"""A model beside PyTorch's network on the same random weights: logits and gradients.

The logits are those of its two parts one after the other, `features` and `classify`.
PyTorch computes in float64, so that what differs is the rounding of ours.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip('torch')  # doctests are looked for in this file too

# Names of leaves here and there.
_LEAVES = {
  'kernel': 'weight',
  'scale': 'weight',
  'mean': 'running_mean',
  'var': 'running_var',
}


def drawn(peer, seed=0):
  """Returns `peer` in float64 and eval mode, all its weights random and of use."""
  generator = torch.Generator().manual_seed(seed)
  tensors = {**dict(peer.named_parameters()), **dict(peer.named_buffers())}
  with torch.no_grad():
    for name, tensor in tensors.items():
      if name.endswith('num_batches_tracked'):
        continue
      noise = torch.randn(tensor.shape, generator=generator)
      if name.endswith('running_var'):
        noise = (0.3 * noise).exp()
      elif name.endswith('weight') and tensor.ndim > 1:
        noise *= (2 / tensor[0].numel()) ** 0.5
      elif name.endswith('weight'):
        noise = 1 + 0.2 * noise
      else:
        noise *= 0.3
      tensor.copy_(noise)
  return peer.double().eval()


def check(model, peer, names, images, labels=(1, 0)):
  """Compares the logits, and the gradients of the mean cross-entropy in train mode.

  Args:
    model: one of ours, nothing of which is random.
    peer: out of `drawn`.
    names: (pattern, replacement) pairs for `re.sub`, one after the other, that make the
      path of a variable here, but for the last name, the one there, with / for a dot.
    images: float32 [2, H, W, C].
    labels: of the images.
  """
  shapes = jax.eval_shape(
    lambda images: model.init(jax.random.key(0), images, train=False), images
  )
  tensors = {name: tensor.numpy() for name, tensor in peer.state_dict().items()}
  variables = _ours(tensors, names, shapes)
  rest = [name for name in tensors if not name.endswith('num_batches_tracked')]
  assert not rest
  theirs = torch.from_numpy(images).double().permute(0, 3, 1, 2).requires_grad_()
  labels = np.array(labels)

  @jax.jit
  def run(variables, images):
    def loss(params, images):
      logits, _ = model.apply(
        {**variables, 'params': params}, images, train=True, mutable=['batch_stats']
      )
      chosen = jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels]
      return -chosen.mean()

    gradients = jax.grad(loss, argnums=(0, 1))(variables['params'], images)
    features = model.apply(variables, images, method='features')
    return model.apply(variables, features, method='classify'), gradients

  logits, (gradients, by_images) = run(variables, images)
  expected = peer(theirs).detach().numpy()
  assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()
  torch.nn.functional.cross_entropy(
    peer.train()(theirs), torch.from_numpy(labels)
  ).backward()
  found = {name: leaf.grad.numpy() for name, leaf in peer.named_parameters()}
  found = _ours(found, names, {'params': shapes['params']})['params']
  found['images'] = theirs.grad.permute(0, 2, 3, 1).numpy()
  gradients['images'] = by_images
  # What is nothing but rounding, such as the gradient of a bias before a softmax, is
  # compared with the others.
  largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(found))
  for (path, got), wanted in zip(
    jax.tree_util.tree_leaves_with_path(gradients), jax.tree.leaves(found), strict=True
  ):
    scale = max(np.abs(wanted).max(), 1e-3 * largest)
    assert np.abs(got - wanted).max() < 1e-4 * scale, jax.tree_util.keystr(path)


def _ours(tensors, names, shapes):
  """Returns the tree of our variables; takes what is used out of `tensors`."""

  def find(keys, shape):
    path = '/'.join(key.key for key in keys[1:])
    for pattern, replacement in names:
      path = re.sub(pattern, replacement, path)
    *layers, leaf = path.split('/')
    tensor = tensors.pop('.'.join([*layers, _LEAVES.get(leaf, leaf)]))
    if keys[-1].key == 'kernel':
      tensor = tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T
      assert tensor.shape == shape.shape
    return np.ascontiguousarray(tensor.reshape(shape.shape), np.float32)

  return jax.tree_util.tree_map_with_path(find, shapes)
