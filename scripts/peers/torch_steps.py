#!/usr/bin/env python3
"""torch_steps.py -- the training steps of scripts/bench.lua in PyTorch, with torchdiffeq and torchsde.

direct is odeint, adjoint and seminorm are odeint_adjoint; ou by them is the paper's ordinary equation over smooth
noise, and sde_direct, sde_adjoint are torchsde's reversible Heun, which its adjoint retraces.
scripts/peers/setup installs what this needs; a step is zero_grad, solve, loss, backward and Adam's step.
"""
import numpy as np
import torch
import torchsde
from torch import nn
from torchdiffeq import odeint, odeint_adjoint

import common


def mlp(sizes, timed):
    layers = []
    for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
        layers += [nn.Linear(a + (timed and i == 0), b), nn.Softplus()]
    return nn.Sequential(*layers[:-1])


def with_time(net, t, z):
    return net(torch.cat([z, t.expand(len(z), 1)], 1))


class Dynamics(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.net, self.timed, self.nfe = mlp(p.sizes, p.timed), p.timed, 0

    def forward(self, t, z):
        self.nfe += 1
        return with_time(self.net, t, z) if self.timed else self.net(z)


class Convolutional(Dynamics):
    def __init__(self, p):
        super().__init__(p)
        layers = []
        for a, b in zip(p.sizes, p.sizes[1:]):
            layers += [nn.Conv2d(a, b, 3, padding=1), nn.Softplus()]
        self.net = nn.Sequential(*layers[:-1])


class SecondOrder(Dynamics):
    def forward(self, t, z):
        self.nfe += 1
        return torch.cat([z[:, 1:], self.net(z)], 1)


class Flow(Dynamics):
    """z' = net(t, z), and less the trace of its Jacobian, exactly."""

    def forward(self, t, z):
        self.nfe += 1
        with torch.enable_grad():
            x = z[:, :-1]
            x = x if x.requires_grad else x.requires_grad_()
            y, trace = with_time(self.net, t, x), 0
            for i in range(x.shape[1]):
                trace = trace + torch.autograd.grad(y[:, i].sum(), x, create_graph=True)[0][:, i:i + 1]
        return torch.cat([y, -trace], 1)


class Noisy(nn.Module):
    """Drift and diffusion; as an ordinary equation over the cosines xi, and as torchsde wants them."""
    noise_type, sde_type = "diagonal", "stratonovich"

    def __init__(self, p):
        super().__init__()
        self.drift, self.diffusion, self.nfe = mlp(p.sizes, True), mlp(p.sizes, True), 0
        self.frequencies = (torch.arange(common.COSINES) + 0.5) * np.pi / common.SPAN

    def redraw(self, seed):
        self.xi = torch.from_numpy(common.cosines(seed)) * (2 / common.SPAN) ** 0.5

    def f(self, t, z):
        return with_time(self.drift, t, z)

    def g(self, t, z):
        return with_time(self.diffusion, t, z)

    def forward(self, t, z):
        self.nfe += 1
        noise = torch.cos(self.frequencies * t) @ self.xi
        return self.f(t, z) + self.g(t, z) * noise[:, None]


def solve(f, z0, t, gradient):
    if gradient == "sde_direct":
        return torchsde.sdeint(f, z0, t, method="reversible_heun", dt=common.SDE_DT)
    if gradient == "sde_adjoint":
        return torchsde.sdeint_adjoint(f, z0, t, method="reversible_heun", adjoint_method="adjoint_reversible_heun",
                                       dt=common.SDE_DT)
    options = {"rtol": common.TOLERANCE, "atol": common.TOLERANCE, "method": "dopri5"}
    if gradient == "direct":
        return odeint(f, z0, t, **options)
    extra = {"adjoint_options": {"norm": "seminorm"}} if gradient == "seminorm" else {}
    return odeint_adjoint(f, z0, t, **options, **extra)


def gaussian_kl(z, y):
    """Mean KL of the samples' normals to those of y; the first time, where all samples are equal, counts as 0."""
    x = z.reshape(len(z), common.STARTS, common.SAMPLES)[1:]
    m, s = x.mean(2), x.std(2) + 1e-9
    n, r = y[0, 1:], y[1, 1:] + 1e-9
    kl = (s / r).log().neg() + ((s / r) ** 2 + ((m - n) / r) ** 2) / 2 - 0.5
    return kl.sum() / (len(z) * common.STARTS)


def likelihood(z):
    """Mean negative log-likelihood of the points that flow to z[-1], normal there."""
    x, delta = z[-1, :, :-1], z[-1, :, -1]
    return (x.square().sum(1) / 2 + np.log(2 * np.pi) + delta).mean()


def model(work, p):
    """The dynamics, the loss of a solution, and the parameters."""
    y = torch.from_numpy(p.y)
    if work == "ou":
        f = Noisy(p)
        return f, lambda z: gaussian_kl(z, y), list(f.parameters())
    if work == "nested_spheres":
        f, readout, labels = Dynamics(p), nn.Linear(5, 2), y.long()
        return (f, lambda z: nn.functional.cross_entropy(readout(z[-1]), labels),
                list(f.parameters()) + list(readout.parameters()))
    if work.startswith("images"):
        f, readout, labels = Convolutional(p), nn.Linear(p.z0[0].size, 10), y.long()
        return (f, lambda z: nn.functional.cross_entropy(readout(z[-1].flatten(1)), labels),
                list(f.parameters()) + list(readout.parameters()))
    if work == "flow":
        f = Flow(p)
        return f, likelihood, list(f.parameters())
    if work == "crossing":
        f = Dynamics(p)
        return f, lambda z: nn.functional.mse_loss(z[-1, :, :1], y), list(f.parameters())
    f, pick = SecondOrder(p), torch.from_numpy(p.pick)
    return f, lambda z: nn.functional.mse_loss(z[:, :, 0].flatten()[pick], y), list(f.parameters())


def make_step(work, width, gradient, seed):
    torch.manual_seed(seed)
    p = common.problem(work, width, seed)
    f, loss, parameters = model(work, p)
    z0, t, count = torch.from_numpy(p.z0), torch.from_numpy(p.times), 0
    optimiser = torch.optim.Adam(parameters, lr=p.rate(width))

    def step():
        nonlocal count
        count += 1
        optimiser.zero_grad()
        if work == "ou" and not gradient.startswith("sde"):
            f.redraw(count)
        f.nfe = 0
        value = loss(solve(f, z0, t, gradient))
        forward, f.nfe = f.nfe, 0
        value.backward()
        backward = f.nfe
        optimiser.step()
        return (None, None) if gradient.startswith("sde") else (forward, backward)
    return step


def main():
    o = common.options(__doc__.split("\n", maxsplit=1)[0],
                       {"ode": ["direct", "adjoint", "seminorm"], "sde": ["sde_direct", "sde_adjoint"]})
    torch.set_num_threads(o.threads)
    common.measure(f"torch {torch.__version__}", make_step, o)


if __name__ == "__main__":
    main()
