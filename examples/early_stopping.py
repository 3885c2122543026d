"""A callback of one's own that stops a run early:

    jaxvision --config=configs/digits_cnn.py --config.epochs=50 \
      '--config.callbacks=("tensorboard", "examples/early_stopping.py:Patience")'

jaxvision.training.callbacks.EarlyStopping is a fuller one.
"""

from jaxvision.training.callbacks import Callback


class Patience(Callback):
  """Stops when the loss has not fallen in three evaluations."""

  best, since = float('inf'), 0

  def on_evaluation(self, step: int, split: str, measures: dict[str, float]) -> None:
    self.since += 1
    if measures['loss'] < self.best:
      self.best, self.since = measures['loss'], 0
    if self.since == 3:
      self.context.stop(f'the loss of {split} was best three evaluations ago')

  def state(self) -> dict[str, float]:  # kept in checkpoints, so that a resume goes on
    return {'best': self.best, 'since': self.since}

  def restore(self, state: dict[str, float]) -> None:
    self.best, self.since = state['best'], state['since']
