"""Your own VAE: any module that returns a torch distribution has a geometry."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.distributions import Bernoulli, Independent

from kahler_verify import FisherMetric
from kahler_verify.plots import Plane, plot_codes, plot_field


class Decoder(nn.Sequential):
    def forward(self, z):
        return Independent(Bernoulli(logits=super().forward(z)), 1)


torch.manual_seed(0)
digits = load_digits()
x = torch.tensor(digits.data > 7).float()
encoder = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4))
decoder = Decoder(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64))
optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 3e-3)
for _ in range(1200):
    batch = x[torch.randint(len(x), (128,))]
    mean, log_variance = encoder(batch).chunk(2, -1)
    z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
    kl = (mean**2 + log_variance.exp() - log_variance - 1).sum(-1) / 2
    loss = (kl - decoder(z).log_prob(batch)).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()

metric = FisherMetric(decoder.double().requires_grad_(False))  # the geometry: from here
codes = encoder(x[:400])[:, :2].double().detach()
plane = Plane.of(codes)
print("median curvature at the codes:", float(metric.scalar_curvature(codes).median()))
axes = plot_field(metric, "log_volume", plane=plane, cmap="Greys_r")
plot_codes(codes, digits.target[:400], axes=axes, plane=plane, s=20)
axes.figure.savefig("own_vae.png", dpi=110)
