"""Fields with which the models of the table take small images and are soon traced."""

_BY_FAMILY = {
  'vit_': {'patch': 4, 'depth': 1},
  'cct_': {'depth': 1},
  'conv_mixer_': {'depth': 1},
  'convnext_': {'stem_patch': 2, 'widths': (8, 16), 'depths': (1, 1)},
}


def fields_of(name):
  """Returns fields of a model: one or two blocks, patches that divide 16x16 and 24x20."""
  return next((f for start, f in _BY_FAMILY.items() if name.startswith(start)), {})
