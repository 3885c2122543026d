"""The error of an operator that only some uses of a primitive have."""


class Uncovered(Exception):
  """A primitive is used in a way that no operator here computes; the text says which."""
