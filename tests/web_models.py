"""Small ONNX files with the contract of the exporter, made by hand."""

import io

import numpy as np
from PIL import Image

from jaxvision.inference.signature import (
  METADATA_KEY,
  GeneratorSignature,
  Signature,
  to_json,
)


def classifier(signature, seed=0):
  """A convolution, a mean over quarters and a linear layer with fixed random weights."""
  import onnx
  from onnx import TensorProto, helper, numpy_helper

  rng = np.random.default_rng(seed)
  height, width, channels = signature.image_shape
  classes = len(signature.class_names)
  half_height, half_width = (height + 1) // 2, (width + 1) // 2
  features = 8 * -(-height // half_height) * -(-width // half_width)
  tensors = {
    'scale': np.float32(1 / 127.5),
    'one': np.float32(1),
    'kernel': rng.normal(0, 0.5, (8, channels, 3, 3)).astype(np.float32),
    'bias': rng.normal(0, 0.1, 8).astype(np.float32),
    'weight': rng.normal(0, 3, (features, classes)).astype(np.float32),
    'offset': rng.normal(0, 0.1, classes).astype(np.float32),
  }
  node = helper.make_node
  nodes = [
    node('Cast', ['images'], ['float'], to=TensorProto.FLOAT),
    node('Mul', ['float', 'scale'], ['scaled']),
    node('Sub', ['scaled', 'one'], ['centred']),
    node('Transpose', ['centred'], ['planes'], perm=[0, 3, 1, 2]),
    node('Conv', ['planes', 'kernel', 'bias'], ['conv'], pads=[1, 1, 1, 1]),
    node('Relu', ['conv'], ['relu']),
    node(
      'AveragePool',
      ['relu'],
      ['pooled'],
      kernel_shape=[half_height, half_width],
      strides=[half_height, half_width],
      ceil_mode=1,
    ),
    node('Flatten', ['pooled'], ['flat']),
    node('Gemm', ['flat', 'weight', 'offset'], ['logits']),
  ]
  last = {'class': 'Softmax', 'multilabel': 'Sigmoid', 'regression': 'Identity'}
  nodes.append(node(last[signature.kind], ['logits'], [signature.output]))
  graph = helper.make_graph(
    nodes,
    'classifier',
    [_value('images', TensorProto.UINT8, ['N', height, width, channels])],
    [
      _value(name, TensorProto.FLOAT, ['N', classes])
      for name in (signature.output, 'logits')
    ],
    [numpy_helper.from_array(np.asarray(v), k) for k, v in tensors.items()],
  )
  return _serialized(onnx, helper, graph, signature)


def generator(signature, seed=0):
  """A linear layer from noise, and from the class, to pixels."""
  import onnx
  from onnx import TensorProto, helper, numpy_helper

  rng = np.random.default_rng(seed)
  height, width, channels = signature.image_shape
  pixels, classes = height * width * channels, len(signature.class_names)
  smooth = np.exp(-((np.arange(pixels)[:, None] - np.arange(pixels)) ** 2) / 200)
  weight = rng.normal(0, 1, (signature.latent, pixels)) @ smooth
  tensors = {
    'weight': (60 * weight / weight.std()).astype(np.float32)
    / np.float32(np.sqrt(signature.latent)),
    'centre': np.float32(128),
    'low': np.float32(0),
    'high': np.float32(255),
    'shape': np.array([-1, height, width, channels], np.int64),
  }
  node = helper.make_node
  nodes = [node('MatMul', ['noise', 'weight'], ['product'])]
  inputs = [_value('noise', TensorProto.FLOAT, ['N', signature.latent])]
  summed = 'product'
  if classes:
    tensors['embedding'] = rng.normal(0, 40, (classes, pixels)).astype(np.float32)
    inputs.append(_value('labels', TensorProto.INT32, ['N']))
    nodes.append(node('Gather', ['embedding', 'labels'], ['embedded']))
    nodes.append(node('Add', ['product', 'embedded'], ['sum']))
    summed = 'sum'
  nodes += [
    node('Add', [summed, 'centre'], ['shifted']),
    node('Clip', ['shifted', 'low', 'high'], ['clipped']),
    node('Round', ['clipped'], ['rounded']),
    node('Cast', ['rounded'], ['bytes'], to=TensorProto.UINT8),
    node('Reshape', ['bytes', 'shape'], ['images']),
  ]
  graph = helper.make_graph(
    nodes,
    'generator',
    inputs,
    [_value('images', TensorProto.UINT8, ['N', height, width, channels])],
    [numpy_helper.from_array(np.asarray(v), k) for k, v in tensors.items()],
  )
  return _serialized(onnx, helper, graph, signature)


def _value(name, kind, shape):
  from onnx import helper

  return helper.make_tensor_value_info(name, kind, shape)


def _serialized(onnx, helper, graph, signature):
  model = helper.make_model(
    graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8
  )
  helper.set_model_props(model, {METADATA_KEY: to_json(signature)})
  onnx.checker.check_model(model)
  return model.SerializeToString()


CLASSES = (
  'plane',
  'car',
  'bird',
  'cat',
  'deer',
  'dog',
  'frog',
  'horse',
  'ship',
  'truck',
)


def small_signature(**fields):
  """Of a classifier of 32x32 colours in ten classes."""
  return Signature(
    **{
      'image_shape': (32, 32, 3),
      'class_names': CLASSES,
      'model': 'tiny_cnn',
      'facts': {
        'config_name': 'tiny',
        'dataset': 'noise',
        'test_accuracy': 0.9125,
        'step': 500,
      },
    }
    | fields
  )


def generator_signature(**fields):
  """Of a conditional generator of 16x16 colours."""
  return GeneratorSignature(
    **{
      'image_shape': (16, 16, 3),
      'class_names': CLASSES,
      'latent': 11,
      'model': 'tiny_gan',
      'facts': {'config_name': 'tiny_gan', 'dataset': 'noise', 'step': 20},
    }
    | fields
  )


def png(image):
  """Returns uint8 pixels, or a picture of Pillow, as the bytes of a PNG."""
  picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
  file = io.BytesIO()
  picture.save(file, 'PNG')
  return file.getvalue()


def picture(rng, width, height, mode='RGB'):
  """A picture with edges and gradients in every channel, of one of Pillow's modes."""
  coarse = rng.integers(0, 256, (5, 7, 4), dtype=np.uint8)
  smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
  noisy = np.asarray(smooth).astype(int) + rng.integers(-40, 40, (height, width, 4))
  image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8), 'RGBA')
  return image.convert(mode) if mode != 'P' else image.convert('RGB').quantize(64)
