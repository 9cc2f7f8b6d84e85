"""Derivatives of modules by their inputs, in closed form, through the modules' own code."""

from kahler_verify.jets.outputs import parameters, transform, values
from kahler_verify.jets.propagation import propagate
from kahler_verify.jets.tensor import Jet
from kahler_verify.rules.expansion import Head, Record

__all__ = ["Head", "Jet", "Record", "parameters", "propagate", "transform", "values"]
