"""Signs of failing GAN training in the log: a saturated discriminator, mode collapse."""

from collections.abc import Sequence
from typing import Any

# D(x) and D(G(z)) beyond which the discriminator counts as saturated.
_WON = (0.98, 0.02)
_POINTS = 3  # consecutive log points that must be beyond
# Diversity relative to real images below which the generator counts as collapsed.
_COLLAPSED = 0.35
_EVALUATIONS = 2  # consecutive ones: at the start of a run all samples are alike


def diagnose(history: Sequence[dict[str, Any]], loss: str) -> dict[str, str]:
  """Diagnoses the end of a log.

  Args:
    history: log points; training logs 'd_real' and 'd_fake', evaluations 'diversity'.
    loss: `gan.loss`; only the outputs of 'bce' and 'hinge' can saturate.

  Returns:
    A message for each of 'saturated' and 'collapsed' that applies.

  >>> point = {'step': 100, 'split': 'train', 'd_real': 0.999, 'd_fake': 0.001}
  >>> list(diagnose([point] * 3, 'bce'))
  ['saturated']
  """
  found = {}
  training = [p for p in history if p['split'] == 'train'][-_POINTS:]
  high, low = _WON
  if loss in ('bce', 'hinge') and len(training) == _POINTS:
    pairs = [(p.get('d_real') or 0.0, p.get('d_fake') or 0.0) for p in training]
    if all(real > high and fake < low for real, fake in pairs):
      real, fake = pairs[-1]
      found['saturated'] = (
        f'step {training[-1]["step"]}: the discriminator is saturated (D(x) '
        f'{real:.3f}, D(G(z)) {fake:.3f}), so that the generator learns little: lower '
        'gan.d_learning_rate, or set label_smoothing, gan.r1 or gan.diffaugment'
      )
  evaluations = [p for p in history if 'diversity' in p][-_EVALUATIONS:]
  values = [p['diversity'] for p in evaluations]
  if len(values) == _EVALUATIONS and max(values) < _COLLAPSED:
    found['collapsed'] = (
      f'step {evaluations[-1]["step"]}: the diversity of the samples is '
      f'{values[-1]:.2f} of that of real images: the generator may have collapsed; set '
      'model.minibatch=stddev or gan.r1, or lower the learning rate'
    )
  return found
