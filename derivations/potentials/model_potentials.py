"""Potentials with known geometry, in any dimension: flat space, Fubini-Study, the complex ball."""

from sympy import log

from kahler_verify.calculus import coordinates, dimension, potential

z = coordinates("z", dimension("d"))
radius2 = z.H * z

flat = potential(
    "flat",
    radius2,
    title="Flat space, Φ = |z|²",
    positive=True,
    known={"holomorphic_sectional_curvature": 0},
)
fubini_study = potential(
    "fubini_study",
    log(1 + radius2),
    title="Fubini-Study, Φ = log(1 + |z|²)",
    source="holomorphic sectional curvature 2, Ric = (d+1) g, Chern scalar curvature d(d+1)",
    positive=True,
    known={"holomorphic_sectional_curvature": 2},
)
complex_ball = potential(
    "complex_ball",
    -log(1 - radius2),
    title="Bergman ball, Φ = -log(1 - |z|²)",
    source="holomorphic sectional curvature -2, Ric = -(d+1) g, Chern scalar curvature -d(d+1)",
    assumptions=("|z| < 1",),
    domain=1 - radius2,
    positive=True,
    known={"holomorphic_sectional_curvature": -2},
)
