"""Semantic directions of a convolutional autoencoder with latents 4 × 2 × 2."""

from types import SimpleNamespace

import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import nn

from kahler_verify import FisherMetric
from kahler_verify.plots import plot_frames


# --8<-- [start:model]
class Autoencoder(nn.Module):
    """Convolutional; ``decode(z).sample`` as diffusers' AutoencoderKL has it."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(32, 8, 1),  # mean and log variance of 4 × 2 × 2 latents
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(4, 32, 3, padding=1),
            nn.SiLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.GroupNorm(4, 32),
            nn.SiLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(32, 1, 3, padding=1),
        )

    def encode(self, x):
        mean, log_variance = self.encoder(x).chunk(2, 1)
        return mean, log_variance.clamp(-8, 4)

    def decode(self, z):
        return SimpleNamespace(sample=self.decoder(z))


# --8<-- [end:model]


# --8<-- [start:training]
torch.manual_seed(0)
digits = load_digits()
x = torch.tensor(digits.images / 16).float()[:, None]
model = Autoencoder()
optimiser = torch.optim.Adam(model.parameters(), 3e-3)
for _ in range(800):
    batch = x[torch.randint(len(x), (64,))]
    mean, log_variance = model.encode(batch)
    z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
    kl = (mean**2 + log_variance.exp() - log_variance - 1).sum((1, 2, 3)) / 2
    error = (model.decode(z).sample - batch).square().sum((1, 2, 3)) / 0.1
    loss = (error + 0.5 * kl).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
model.double().eval().requires_grad_(False)
# --8<-- [end:training]

# --8<-- [start:directions]
metric = FisherMetric(model.decode, output="sample", latent_shape=(4, 2, 2))
z = model.encode(x[3:4].double())[0][0]  # of one digit
top = metric.operator(z).top(4)
print(top)
# --8<-- [end:directions]


# --8<-- [start:pictures]
def along(direction, length):
    """Five latents on both sides of z, ``length`` of the metric's units in all."""
    step = direction / metric.norm(direction, z)
    return z + length * torch.linspace(-0.5, 0.5, 9).reshape(-1, 1, 1, 1) * step


figure = Figure(figsize=(8, 5), layout="constrained")
axes = figure.subplots(5, 1)
random = torch.randn_like(z)
rows = {f"direction {n + 1}": v for n, v in enumerate(top.directions)} | {"random": random}
for row, (name, direction) in zip(axes, rows.items(), strict=True):
    size = metric.norm(direction, z) / direction.norm()
    plot_frames(along(direction, 6.0), lambda z: model.decode(z).sample, axes=row, vmin=0, vmax=1)
    row.set_title(f"{name}: {float(size):.2f} a unit step", loc="left", fontsize=10)
figure.savefig("directions.png", dpi=110)
# --8<-- [end:pictures]
