"""How long a run is and when something happens in it, in optimiser steps."""

import dataclasses

from ml_collections import ConfigDict

from jaxvision.errors import UserError


@dataclasses.dataclass(frozen=True)
class RunPlan:
  """The steps of a run.

  Attributes:
    images_per_step: training images that a step takes.
    total_steps: optimiser steps of the run.
    steps_per_epoch: steps in a pass over the training split, a float.
    log_every, eval_every, save_every: steps between log points, evaluations and
      checkpoints.
  """

  images_per_step: int
  total_steps: int
  steps_per_epoch: float
  log_every: int
  eval_every: int
  save_every: int

  @classmethod
  def of(cls, config: ConfigDict, examples: int, batches: int = 1) -> 'RunPlan':
    """Returns the plan of a run.

    Args:
      config: valid.
      examples: in the training split.
      batches: of `batch_size` images that one step takes.

    Raises:
      UserError: a step wants more images than there are, or the run is too long to
        count its images.
    """
    images = config.batch_size * batches
    if images > examples:
      what = (
        f'batch_size {config.batch_size} is'
        if batches == 1
        else (
          f'batch_size {config.batch_size} for each of {batches} steps of the '
          f'discriminator, {images} images, is'
        )
      )
      raise UserError(
        f'config: {what} larger than the training split of {config.data.name}, which has '
        f'{examples} images'
      )
    per_epoch = examples / images
    total = config.steps or max(1, round(config.epochs * per_epoch))
    if total * images >= 2**32:
      raise UserError(
        f'config: {total} steps of {images} images are more than the 4,294,967,295 '
        'images that a run can count: lower steps, epochs or batch_size'
      )
    evaluate = config.eval_every_steps or max(1, round(per_epoch))
    return cls(
      images_per_step=images,
      total_steps=total,
      steps_per_epoch=per_epoch,
      log_every=config.log_every_steps,
      eval_every=evaluate,
      save_every=config.checkpoint.every_steps or evaluate,
    )

  def next_stop(self, step: int) -> int:
    """Returns the first step after `step` at which something happens."""
    intervals = (self.log_every, self.eval_every, self.save_every)
    return min(self.total_steps, *((step // n + 1) * n for n in intervals))
