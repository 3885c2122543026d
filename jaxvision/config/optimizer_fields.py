"""The fields of `optimizer` and `schedule`."""

from typing import Any

from jaxvision.config.field import Field, Groups, Open
from jaxvision.config.limits import STEPS, at_least, between

OPTIMIZER_FIELDS: dict[str, Any] = {
  'name': Field(
    'sgd',
    'An optimiser of optax, muon, or a constructor of your own, file.py:optimizer; '
    'optimizer.options.* are its arguments.',
  ),
  'learning_rate': Field(
    0.1, 'Learning rate at the peak of the schedule.', traced=True, **at_least(0)
  ),
  'weight_decay': Field(
    0.0,
    'Weight decay of kernels; biases, normalisation layers and positions have none.',
    traced=True,
    **at_least(0),
  ),
  'momentum': Field(
    0.9,
    'Momentum of sgd, lars and muon; others take it in optimizer.options.',
    traced=True,
    **between(0, 1, open_end=True),
  ),
  'nesterov': Field(
    True,
    'Use Nesterov momentum (sgd, lars, muon); others take it in optimizer.options.',
  ),
  'layer_decay': Field(
    1.0,
    'Learning rate of each layer, as a fraction of that of the next one towards the '
    'head.',
    valid=lambda v: 0 < v <= 1,
    limits='above 0 and at most 1',
  ),
  'sam': Field(
    0.0,
    'Length of the step uphill, rho, at whose end sharpness-aware minimisation takes '
    'the gradient (0.05 is usual); a step costs twice as much; 0: off.',
    traced=True,
    **at_least(0),
  ),
  'schedule_free': Field(
    False,
    'Average the steps of sgd, adam or adamw instead of letting the learning rate fall '
    '(schedule.name constant, a warm-up may precede it); evaluation uses the average.',
  ),
  'options': Open(),
  'groups': Groups(),
}

SCHEDULE_FIELDS: dict[str, Any] = {
  'name': Field(
    'cosine',
    'Learning rate over the run: constant, cosine, step, one_cycle, linear, or a '
    'function of your own, (peak, total_steps) -> optax schedule.',
  ),
  'warmup_steps': Field(0, 'Steps of linear warm-up from 0.', **at_least(0, STEPS)),
  'warmup_epochs': Field(
    0.0,
    'Epochs of linear warm-up, where schedule.warmup_steps is 0.',
    **at_least(0, 1_000_000),
  ),
  'start_factor': Field(
    0.0,
    'Learning rate at the start of the warm-up, as a fraction of the peak.',
    **between(0, 1),
  ),
  'end_factor': Field(
    0.0,
    'Learning rate at the end, as a fraction of the peak (cosine, linear).',
    **between(0, 1),
  ),
  'boundaries': Field(
    (0.3, 0.6, 0.8),
    'Shares of the run at which the schedule step multiplies the learning rate by '
    'schedule.factor.',
    valid=lambda v: (
      all(isinstance(b, int | float) and 0 < b < 1 for b in v) and list(v) == sorted(v)
    ),
    limits='a rising tuple of shares between 0 and 1',
  ),
  'factor': Field(
    0.2,
    'Factor of the learning rate at each of schedule.boundaries (step).',
    **between(0, 1),
  ),
  'peak': Field(
    0.3,
    'Share of the run at which the schedule one_cycle reaches its peak.',
    valid=lambda v: 0 < v < 1,
    limits='between 0 and 1',
  ),
}
