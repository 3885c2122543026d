"""The commands as functions: train, evaluate, export, benchmark, load_run."""

from jaxvision.api.evaluating import evaluate, evaluate_weights
from jaxvision.api.exporting import export
from jaxvision.api.measuring import benchmark
from jaxvision.api.training import train
from jaxvision.config import load as load_config
from jaxvision.deploy.predictor import load_run

__all__ = [
  'benchmark',
  'evaluate',
  'evaluate_weights',
  'export',
  'load_config',
  'load_run',
  'train',
]
