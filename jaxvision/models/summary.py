"""What a model is made of: layers, output shapes, parameters and FLOPs.

FLOPs are those of convolutions and matrix products in the forward pass of one input
in evaluation mode, a multiply-add counted as two; norms, activations, poolings and
sums are left out, as papers do (most of which count multiply-adds: half of ours). A
tap of a kernel that falls into the padding counts like any other. They are read off
the traced program, so that a product which belongs to no layer is counted too;
nothing is computed and no array is allocated.
"""

import dataclasses
import math
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.extend.core as jex_core
import jax.numpy as jnp

from jaxvision.models.cpu import plain_convolutions
from jaxvision.models.flow import Flow
from jaxvision.models.generative import GAN

WIDTH = 100  # columns of the rendered table


@dataclasses.dataclass(frozen=True)
class Row:
  """One layer of a model.

  Attributes:
    path: names of the modules from the model down to the layer, joined by '/'; ''
      is the model itself.
    type: class of the layer.
    output: shape for one input, without the batch axis.
    params: number of parameters of the layer itself, not of layers within it.
    flops: floating-point operations of the layer itself, for one input forward.
  """

  path: str
  type: str
  output: tuple[int, ...]
  params: int
  flops: int


@dataclasses.dataclass(frozen=True)
class Summary:
  """Layers of a model in the order of execution, and their totals.

  Attributes:
    model: class of the model.
    input_shape: (H, W, C) of the image it was traced with, (length,) of the noise.
    rows: the layers; their `params` and `flops` add up to the totals.
    params: number of parameters.
    flops: floating-point operations per input forward, see the module.
    input: what it was traced with, 'image', 'noise vector' or 'image at a time'.
  """

  model: str
  input_shape: tuple[int, ...]
  rows: tuple[Row, ...]
  params: int
  flops: int
  input: str = 'image'

  def __str__(self) -> str:
    return self.render()

  def render(self) -> str:
    """Returns a plain-text table, at most `WIDTH` columns wide, without colours."""
    header = ('layer', 'type', 'output', 'parameters', 'FLOPs')
    # Of the layers with nothing of their own, such as blocks, only the outermost.
    body = [
      (
        row.path or '(model)',
        row.type,
        ' x '.join(str(n) for n in row.output),
        f'{row.params:,}' if row.params else '',
        f'{row.flops:,}' if row.flops else '',
      )
      for row in self.rows
      if row.params or row.flops or ('/' not in row.path and row.path)
    ]
    total = ('total', '', '', f'{self.params:,}', f'{self.flops:,}')
    widths = [max(len(cell) for cell in column) for column in zip(header, *body, total)]
    gap = 2
    widths[0] = min(widths[0], WIDTH - sum(widths[1:]) - gap * (len(widths) - 1))

    def line(cells: tuple[str, ...]) -> str:
      path, *texts, params, flops = cells
      if len(path) > widths[0]:  # the end of a path distinguishes layers
        path = '..' + path[2 - widths[0] :]
      cells = [path.ljust(widths[0])]
      cells += [text.ljust(width) for text, width in zip(texts, widths[1:3])]
      cells += [params.rjust(widths[3]), flops.rjust(widths[4])]
      return (' ' * gap).join(cells).rstrip()

    rule = '-' * (sum(widths) + gap * (len(widths) - 1))
    shape = ' x '.join(str(n) for n in self.input_shape)
    title = f'{self.model} on one {self.input} of {shape}'
    note = 'FLOPs: convolutions and matrix products, forward, a multiply-add is two'
    table = [line(header), rule, *(line(cells) for cells in body), rule, line(total)]
    return '\n'.join([title, '', *table, '', note])


def summarize(model: nn.Module, image_shape: tuple[int, int, int]) -> Summary:
  """Traces a model on one image and counts.

  Args:
    model: maps images [B, H, W, C] and a keyword `train` to an array.
    image_shape: (H, W, C).

  Raises:
    UserError: if the model refuses images of that shape.

  Example:
    >>> from jaxvision import models
    >>> summarize(models.create('small_filters_cnn', 100), (32, 32, 3)).params
    57332
  """
  return _summarize(model, image_shape)


def summarize_gan(
  gan: GAN, image_shape: tuple[int, int, int]
) -> tuple[Summary, Summary]:
  """Traces the generator on one noise vector, the discriminator on one image.

  Args:
    gan: the networks.
    image_shape: (H, W, C) of the data.

  Returns:
    (the generator's summary, the discriminator's).

  Raises:
    UserError: if the discriminator refuses images of that shape.

  Example:
    >>> from jaxvision import models
    >>> gan = models.create_gan('dcgan', (32, 32, 3), num_classes=10)
    >>> [table.params for table in summarize_gan(gan, (32, 32, 3))]
    [370624, 167808]
  """
  labels = jax.ShapeDtypeStruct((1,), jnp.int32) if gan.conditional else None
  generator = _summarize(gan.generator, (gan.latent,), labels)
  return (
    dataclasses.replace(generator, input='noise vector'),
    _summarize(gan.discriminator, image_shape, labels),
  )


def summarize_flow(flow: Flow) -> Summary:
  """Traces the network of velocities on one image and its time.

  To draw an image takes `flow.evaluations` times its FLOPs.

  Example:
    >>> from jaxvision import config, models
    >>> settings = config.base_config().flow
    >>> flow = models.create_flow('unet', (16, 16, 1), settings, 10, width=8)
    >>> summarize_flow(flow).params
    25473
  """
  labels = jax.ShapeDtypeStruct((1,), jnp.int32) if flow.classes else None
  times = jax.ShapeDtypeStruct((1,), jnp.float32)
  table = _summarize(flow.network, flow.image_shape, times, labels)
  return dataclasses.replace(table, input='image at a time')


def _summarize(
  model: nn.Module, input_shape: tuple[int, ...], *more: jax.ShapeDtypeStruct | None
) -> Summary:
  inputs = (jax.ShapeDtypeStruct((1, *input_shape), jnp.float32), *more)
  key = jax.eval_shape(lambda: jax.random.key(0))
  variables = jax.eval_shape(
    lambda key, *inputs: model.init(key, *inputs, train=False), key, *inputs
  )
  # Modules in the order they are entered: type, and the shape they return.
  types: dict[str, str] = {}
  outputs: dict[str, tuple[int, ...]] = {}

  def record(call, args, kwargs, context):
    path = '/'.join(context.module.path)
    types.setdefault(path, type(context.module).__name__)
    result = call(*args, **kwargs)
    if context.method_name == '__call__' and isinstance(result, jax.Array):
      outputs[path] = result.shape[1:]
    return result

  # The names of linen scopes identify the layer that a product belongs to.
  with nn.intercept_methods(record), nn.override_named_call(True), plain_convolutions():
    program = jax.make_jaxpr(lambda v, *x: model.apply(v, *x, train=False))(
      variables, *inputs
    )

  params = dict.fromkeys(types, 0)
  for keys, leaf in jax.tree_util.tree_leaves_with_path(variables['params']):
    names = [key.key for key in keys]
    params[_owner(names, types)] += math.prod(leaf.shape)
  flops = dict.fromkeys(types, 0)
  for scope, count in _products(program.jaxpr):
    # The name of a method other than __call__ follows that of its module and a dot.
    names = [name for name in scope.split('/')[1:] if '.' not in name]
    flops[_owner(names, types)] += count
  rows = tuple(
    Row(path, types[path], outputs.get(path, ()), params[path], flops[path])
    for path in types
  )
  return Summary(
    model=type(model).__name__,
    input_shape=tuple(input_shape),
    rows=rows,
    params=sum(params.values()),
    flops=sum(flops.values()),
  )


def _owner(names: list[str], paths: dict[str, str]) -> str:
  """Returns the longest path in `paths` that `names` starts with."""
  for length in range(len(names), 0, -1):
    path = '/'.join(names[:length])
    if path in paths:
      return path
  return ''


def _products(jaxpr: jex_core.Jaxpr, scope: str = '') -> Iterator[tuple[str, int]]:
  """Yields (scope, FLOPs) of every convolution and matrix product in a program."""
  for equation in jaxpr.eqns:
    inner = str(equation.source_info.name_stack)
    path = f'{scope}/{inner}' if scope and inner else scope or inner
    name, params = equation.primitive.name, equation.params
    if name == 'dot_general':
      (contracted, _), _ = params['dimension_numbers']
      left, result = equation.invars[0].aval, equation.outvars[0].aval
      taps = math.prod(left.shape[axis] for axis in contracted)
      yield path, 2 * taps * math.prod(result.shape)
    elif name == 'conv_general_dilated':
      kernel, result = equation.invars[1].aval, equation.outvars[0].aval
      # All axes of the kernel but its output channels; of the taps of a transposed
      # convolution, only those on a pixel and not on a zero between pixels.
      out_axis = params['dimension_numbers'].rhs_spec[0]
      taps = math.prod(kernel.shape) // kernel.shape[out_axis]
      zeros = math.prod(params['lhs_dilation'])
      yield path, 2 * taps * math.prod(result.shape) // zeros
    else:
      times = params['length'] if name == 'scan' else 1
      for inner_jaxpr in jex_core.jaxprs_in_params(params):
        for inner_path, count in _products(inner_jaxpr, path):
          yield inner_path, times * count
