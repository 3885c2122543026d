"""Knowledge distillation: a trained run whose outputs another one learns from.

Hinton et al., "Distilling the knowledge in a neural network", 2015. The teacher sees the
same augmented, mixed images as its student, normalised and resized as it was trained
(Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", 2022).
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxvision.errors import UserError
from jaxvision.inference.loading import load_run
from jaxvision.models.resized import resize
from jaxvision.weights.tensors import fingerprint, named

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Teacher:
  """A trained run that teaches.

  Attributes:
    task: its `SupervisedTask`.
    variables: its weights, in inference mode.
    origin: where they come from, for the run directory and the summary: the `source` as
      the config has it, `step`, and `sha256` of the weights.
  """

  task: Any
  variables: PyTree
  origin: dict[str, Any]

  def outputs(self, variables: PyTree, inputs: jax.Array, normalization: Any) -> Any:
    """Returns what the teacher says of the images that its student sees.

    Args:
      variables: `self.variables`, on the devices.
      inputs: normalised, float [B, H, W, C].
      normalization: per-channel (mean, std) that they were normalised with.

    Returns:
      float32 [B, K]; no gradient goes through it.
    """
    (mean, std), (own_mean, own_std) = map(
      _arrays, (normalization, self.task.normalization)
    )
    shown = (inputs.astype(jnp.float32) * std + mean - own_mean) / own_std
    shown = resize(shown, self.task.info.image_shape[0]).astype(self.task.dtype)
    outputs = self.task.model.apply(variables, shown, train=False)
    return jax.lax.stop_gradient(outputs.astype(jnp.float32))


def _arrays(normalization: Any) -> tuple[jax.Array, jax.Array]:
  mean, std = normalization
  return jnp.array(mean, jnp.float32), jnp.array(std, jnp.float32)


def load(source: str, student: Any) -> Teacher:
  """Returns the teacher of a run.

  Args:
    source: `init.teacher`, the workdir of a trained run, whose last checkpoint counts.
    student: the `SupervisedTask` that learns from it.

  Raises:
    UserError: there is no such run, it predicts something else, or it takes other images.
  """
  field = 'config: init.teacher'
  path = Path(source).expanduser()
  if not path.is_dir():
    raise UserError(f'{field}: {source} is no workdir of a trained run')
  run = load_run(path)
  task = getattr(run, 'task', None)
  kind = type(student).distillation_losses
  if getattr(type(task), 'distillation_losses', None) is not kind:
    raise UserError(
      f'{field}: {path} is a run of task {run.config.task}, and a student of task '
      f'{student.config.task} learns from one of its own kind'
    )
  if task.output_names != student.output_names:
    theirs, ours = (
      f'{len(names)} ({", ".join(names[:3])}{", ..." if len(names) > 3 else ""})'
      for names in (task.output_names, student.output_names)
    )
    raise UserError(
      f'{field}: {path} knows other classes, {theirs}, than these data have, {ours}'
    )
  channels, own = task.info.image_shape[-1], student.info.image_shape[-1]
  if channels != own:
    raise UserError(
      f'{field}: {path} takes images of {channels} channels, these have {own}: set '
      'data.channels'
    )
  variables = jax.device_get(run.state.eval_variables)
  sha256 = fingerprint(named(variables), run.config.model.name)
  origin = {'source': source, 'step': run.step, 'sha256': sha256}
  return Teacher(task, variables, origin)


def check_same(path: Any, began_with: dict[str, Any], teacher: Teacher) -> None:
  """Raises UserError where a run in `path` goes on with another teacher than it had.

  Args:
    path: the run directory.
    began_with: `SupervisedTask.sources` of the run when it began; {} if it begins.
    teacher: that it has now.
  """
  known = began_with.get('teacher')
  if known and known['sha256'] != teacher.origin['sha256']:
    raise UserError(
      f'init.teacher: {teacher.origin["source"]} is not what the run in {path} learns '
      f'from (sha256 {teacher.origin["sha256"][:12]}, then {known["sha256"][:12]}): start '
      'anew with --overwrite'
    )
