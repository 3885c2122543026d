"""Fields with which the models of the table take small images and are soon traced."""

import pytest

from jaxvision import models

# Deeper or wider forms of networks that are in the table beside them.
_LIKE_OTHERS = (
  'resnet34',
  'resnet101',
  'resnet152',
  'resnet32',
  'resnet44',
  'resnet56',
  'resnet110',
  'preact_resnet34',
  'wide_resnet28_10',
  'wide_resnet40_4',
  'convnext_femto',
  'convnext_tiny',
  'vit_small',
  'vit_base',
  'cct_4_3x2',
  'cct_7_3x1',
  'efficientnet_b1',
  'efficientnet_b2',
  'efficientnet_b3',
  'airbench95',
  'airbench96',
)

_BY_FAMILY = {
  'vit_': {'patch': 4, 'depth': 1},
  'cct_': {'depth': 1},
  'conv_mixer_': {'depth': 1},
  'convnext_': {'stem_patch': 2, 'widths': (8, 16), 'depths': (1, 1)},
}


def fields_of(name):
  """Returns fields of a model: one or two blocks, patches that divide 16x16 and 24x20."""
  return next((f for start, f in _BY_FAMILY.items() if name.startswith(start)), {})


def deeper_slow(names):
  """Returns names of models to parametrize by; those that are like others are slow."""
  return [
    pytest.param(name, marks=[pytest.mark.slow] * (name in _LIKE_OTHERS))
    for name in names
  ]


DEEPER_SLOW = deeper_slow(models.MODELS)
