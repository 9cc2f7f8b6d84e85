"""Derivatives of modules by their inputs: in closed form through their own code, else by autograd.

A decoder is any callable from z [..., d] to a distribution. ``propagate`` differentiates modules as
they stand; ``decoder_jets`` gives what kernels take of a decoder at complex latents, and
``check_decoder`` makes sure that autograd is right about it.
"""

from kahler_verify.jets.checks import check_decoder
from kahler_verify.jets.decoders import routes
from kahler_verify.jets.fields import LikelihoodStructure, decoder_jets, likelihood_structure
from kahler_verify.jets.outputs import parameters, transform, values
from kahler_verify.jets.propagation import propagate
from kahler_verify.jets.tensor import Jet
from kahler_verify.rules.expansion import Head
from kahler_verify.rules.frame import Record

__all__ = [
    "Head",
    "Jet",
    "LikelihoodStructure",
    "Record",
    "check_decoder",
    "decoder_jets",
    "likelihood_structure",
    "parameters",
    "propagate",
    "routes",
    "transform",
    "values",
]
