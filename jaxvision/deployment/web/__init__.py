"""A page that runs a network in the browser, or shows one that a server runs."""

from jaxvision.deployment.web.rendering import Example, page
from jaxvision.deployment.web.writing import write_web

__all__ = ['Example', 'page', 'write_web']
