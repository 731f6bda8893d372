#!/usr/bin/env python3
"""peers.py -- the nested-spheres step of scripts/bench.lua in PyTorch, for ratios on one machine.

torchdiffeq's direct (odeint), adjoint and seminorm; dopri5, float32, rtol = atol = 1e-3, the paper's model,
batch and learning rates. The project does not need any of this; to run it on Debian 12:

    apt-get install python3-torch python3-scipy python3-venv libopenblas0-openmp
    /usr/bin/python3 -m venv --system-site-packages /tmp/peers
    /tmp/peers/bin/pip install --no-deps torchdiffeq
    export LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu/openblas-openmp OMP_PROC_BIND=true
    /tmp/peers/bin/python scripts/peers.py --widths 5,20,100

The OpenMP build of OpenBLAS with bound threads is the fastest of Debian's for torch, by up to 3 times.

A step is zero_grad, solve, loss, backward and Adam's step, with the batch ready in memory; a fresh model, two
untimed steps, the median over the steps, and the median of that over the runs.
"""
import argparse
import json
import math
import statistics
import time

import torch
from torch import nn
from torchdiffeq import odeint, odeint_adjoint


def nested_spheres(n):
    """n points of the disc of radius 0.4 and n of the ring from 0.7 to 0.9, zero-augmented to 5."""
    def ring(low, high):
        angle = torch.rand(n, 1) * 2 * math.pi
        radius = torch.sqrt(torch.rand(n, 1) * (high**2 - low**2) + low**2)
        return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], 1)

    x = torch.cat([ring(0, 0.4), ring(0.7, 0.9)])
    y = torch.cat([torch.zeros(n), torch.ones(n)]).long()
    return torch.cat([x, torch.zeros(2 * n, 3)], 1), y


class Dynamics(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, width), nn.Softplus(), nn.Linear(width, width), nn.Softplus(),
                                 nn.Linear(width, 5))
        self.nfe = 0

    def forward(self, t, z):
        self.nfe += 1
        return self.net(torch.cat([z, t.expand(len(z), 1)], 1))


def solve(f, z0, t, gradient):
    options = {"rtol": 1e-3, "atol": 1e-3, "method": "dopri5"}
    if gradient == "direct":
        return odeint(f, z0, t, **options)
    extra = {"adjoint_options": {"norm": "seminorm"}} if gradient == "seminorm" else {}
    return odeint_adjoint(f, z0, t, **options, **extra)


def one_run(width, gradient, steps, seed):
    torch.manual_seed(seed)
    x, y = nested_spheres(100)
    f, readout, t = Dynamics(width), nn.Linear(5, 2), torch.tensor([0.0, 1.0])
    rate = 5e-3 if width <= 20 else 1e-3 if width <= 500 else 2e-4
    optimiser = torch.optim.Adam(list(f.parameters()) + list(readout.parameters()), lr=rate)
    times = []
    for i in range(steps + 2):
        started = time.perf_counter()
        optimiser.zero_grad()
        f.nfe = 0
        loss = nn.functional.cross_entropy(readout(solve(f, x, t, gradient)[-1]), y)
        forward, f.nfe = f.nfe, 0
        loss.backward()
        backward = f.nfe
        optimiser.step()
        if i >= 2:
            times.append(time.perf_counter() - started)
    return statistics.median(times), forward, backward


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--widths", default="5,20,100,500,1000,1500")
    parser.add_argument("--gradients", default="direct,adjoint,seminorm")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", help="write the records to this file")
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    print(f"torch {torch.__version__}, {o.threads} threads, median of {o.runs} runs of {o.steps} steps, rtol 0.001")
    print(f"{'width':>6}  {'gradient':<9} {'seconds':>12}  evaluations forward / back")
    records = []
    for width in map(int, o.widths.split(",")):
        for gradient in o.gradients.split(","):
            runs = [one_run(width, gradient, o.steps, o.seed + r) for r in range(o.runs)]
            seconds = statistics.median(r[0] for r in runs)
            forward, backward = runs[-1][1:]
            print(f"{width:6d}  {gradient:<9} {seconds:12.6f}  {forward} / {backward}", flush=True)
            records.append({"work": "nested_spheres", "width": width, "gradient": gradient, "seconds": seconds,
                            "nfe": forward, "nfe_backward": backward, "threads": o.threads})
    if o.json:
        with open(o.json, "w", encoding="utf-8") as file:
            json.dump(records, file)
            file.write("\n")


if __name__ == "__main__":
    main()
