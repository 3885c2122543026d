"""Learning-rate schedules and optimisers, all of them optax's."""

from jaxvision.optim.groups import first_steps
from jaxvision.optim.optimizers import OPTIMIZERS, make_optimizer
from jaxvision.optim.schedules import make_schedule

__all__ = ['OPTIMIZERS', 'first_steps', 'make_optimizer', 'make_schedule']
