"""common.py -- what torch_steps.py and jax_steps.py share: the problems' data as numpy arrays, and the timing.

The problems are those of scripts/bench.lua: the paper's models, batches and learning rates, hidden layers of
softplus, dopri5 in float32 at rtol = atol = 1e-3.
"""
import argparse
import json
import statistics
import sys
import time

import numpy as np

TOLERANCE = 1e-3
SDE_DT = 0.01
STARTS, SAMPLES, COSINES, SPAN = 40, 45, 10, 10.0    # of ou; its times are 0, 0.1 ... SPAN


class Problem:
    """z0 {rows, dim}; times {k}; y, the targets; sizes, of the layers; timed: whether they take t as well."""

    def __init__(self, z0, times, y, sizes, timed, rates, pick=None):
        self.z0, self.times, self.y = (np.asarray(a, np.float32) for a in (z0, times, y))
        self.sizes, self.timed, self.rates = sizes, timed, rates
        self.pick = pick    # sines: the rows of the {k * rows} positions that belong to y

    def rate(self, width):
        return next(rate for limit, rate in self.rates if width <= limit)


def augmented(x, dim):
    return np.concatenate([x, np.zeros((len(x), dim - x.shape[1]))], 1)


def nested_spheres(draw, width):
    """100 points of the disc of radius 0.4 and 100 of the ring from 0.7 to 0.9; y is the class, from 0."""
    def ring(low, high, n=100):
        angle, radius = draw.uniform(0, 2 * np.pi, n), np.sqrt(draw.uniform(low**2, high**2, n))
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)

    x = np.concatenate([ring(0, 0.4), ring(0.7, 0.9)])
    return Problem(augmented(x, 5), [0, 1], np.repeat([0, 1], 100), [5, width, width, 5], True,
                   [(20, 5e-3), (500, 1e-3), (np.inf, 2e-4)])


def sines(count, regular):
    """x'' = -x from 15 starts; irregular times are a start's own, and the solve is over all of them."""
    def make(draw, width):
        z0 = draw.uniform(-1, 1, (15, 2))
        own = np.tile(np.linspace(0, 2 * np.pi, count), (15, 1))
        if not regular:
            own = np.sort(draw.uniform(0, 2 * np.pi, (15, count)), 1)
            own[:, 0] = 0
        own = own.astype(np.float32)
        times, position = np.unique(own, return_inverse=True)
        pick = position.reshape(15, count) * 15 + np.arange(15)[:, None]
        y = z0[:, :1] * np.cos(own) + z0[:, 1:] * np.sin(own)
        return Problem(z0, times, y, [2, width, width, 1], False, [(20, 8e-3), (200, 5e-4), (np.inf, 3e-5)], pick)
    return make


def ou(draw, width):
    """Samples of dx = (0.2 t - 0.1 x) dt + (0.6 + 0.15 t) dW; y {2, times, starts}: their means and deviations."""
    z0 = np.repeat(draw.uniform(-3, 3, (STARTS, 1)), SAMPLES, 0)
    times = np.linspace(0, SPAN, 101)
    h, substeps, x, fits = 0.05, 2, z0, []
    for k, _ in enumerate(times):
        fits.append([x.reshape(STARTS, SAMPLES).mean(1), x.reshape(STARTS, SAMPLES).std(1, ddof=1)])
        for i in range(substeps):
            t = times[k] + i * h
            x = x + (0.2 * t - 0.1 * x) * h + (0.6 + 0.15 * t) * np.sqrt(h) * draw.standard_normal(x.shape)
    return Problem(z0, times, np.array(fits).transpose(1, 0, 2), [1, width, width, 1], True,
                   [(5, 1e-3), (20, 5e-4), (np.inf, 1e-4)])


def crossing(draw, width):
    return Problem(augmented(np.array([[1.0], [-1.0]]), 4), [0, 1], [[-1], [1]], [4, width, width, 4], False,
                   [(20, 1e-2), (500, 1e-3), (np.inf, 7e-4)])


def images(batch):
    """What the first layers of the image experiment make of 28 x 28; y is the class, from 0; sizes are channels."""
    def make(draw, width):
        z0 = draw.standard_normal((batch, 10, 11, 11))
        return Problem(z0, [0, 1], draw.integers(0, 10, batch), [10, width, width, 10], False, [(np.inf, 1e-5)])
    return make


def flow(draw, width):
    """Points of two half circles with noise, and a 0 for the trace's integral, from time 1 back to 0."""
    angle, side = draw.uniform(0, np.pi, 250), draw.integers(0, 2, 250) * 2 - 1
    x = np.stack([side * (np.cos(angle) - 0.5), side * (np.sin(angle) - 0.25)], 1) + 0.1 * draw.standard_normal((250, 2))
    return Problem(augmented(x, 3), [1, 0], [0], [2, width, width, 2], True, [(np.inf, 5e-3)])


PROBLEMS = {"nested_spheres": nested_spheres, "sines50": sines(50, True), "sines10": sines(10, True),
            "sines_irregular": sines(10, False), "ou": ou, "crossing": crossing,
            "images": images(16), "images256": images(256), "flow": flow}


def problem(work, width, seed):
    return PROBLEMS[work](np.random.default_rng(seed), width)


def cosines(seed):
    """The draw of a step's noise, {COSINES, rows}."""
    return np.random.default_rng(seed).standard_normal((COSINES, STARTS * SAMPLES), np.float32)


# ---- timing ----

def options(about, engines):
    """The command line; engines: {"ode": [...], "sde": [...]}, of which ou alone has the second."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--work", default="nested_spheres", help="with commas: " + ", ".join(PROBLEMS))
    parser.add_argument("--widths", default="20,100", help="hidden widths, with commas")
    parser.add_argument("--gradients", default="", help="with commas: " + ", ".join(engines["ode"] + engines["sde"]))
    parser.add_argument("--steps", type=int, default=15, help="timed steps a run")
    parser.add_argument("--runs", type=int, default=3, help="runs, of which the median is told")
    parser.add_argument("--limit", type=float, default=60, help="seconds after which the third step or later is last")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", help="write the records to this file")
    o = parser.parse_args()
    o.work = o.work.split(",")
    o.widths = [int(w) for w in o.widths.split(",")]
    every = engines["ode"] + engines["sde"]
    o.gradients = o.gradients.split(",") if o.gradients else every
    for word, known in [(w, PROBLEMS) for w in o.work] + [(g, every) for g in o.gradients]:
        if word not in known:
            parser.error(f"there is no '{word}'; there are: {', '.join(known)}")
    o.engines = engines
    return o


def run(step, o):
    """Seconds of each step after two untimed ones, those of the first, and the last one's evaluations."""
    begun, times = time.perf_counter(), []
    for i in range(o.steps + 2):
        started = time.perf_counter()
        evaluations = step()
        now = time.perf_counter()
        if i == 0:
            first = now - started
            begun = now
        if i >= 2:
            times.append(now - started)
        if i >= 4 and now - begun > o.limit:
            break
    return {"times": times, "first": first, "nfe": evaluations[0], "nfe_backward": evaluations[1]}


def measure(title, make_step, o):
    """make_step(work, width, gradient, seed) gives a function that makes one training step, all of it."""
    print(f"{title}, {o.threads} threads, median of {o.runs} runs of {o.steps} steps, rtol {TOLERANCE:g}")
    print(f"{'work':<16} {'width':>6}  {'gradient':<14} {'seconds':>12} {'minimum':>12} {'first step':>10}"
          "  evaluations forward / back")
    records = []
    for work in o.work:
        known = o.engines["ode"] + (o.engines["sde"] if work == "ou" else [])
        for width in o.widths:
            for gradient in filter(known.__contains__, o.gradients):
                runs = [run(make_step(work, width, gradient, o.seed + r), o) for r in range(o.runs)]
                r = {"work": work, "width": width, "gradient": gradient, "threads": o.threads,
                     "seconds": statistics.median(statistics.median(r["times"]) for r in runs),
                     "minimum": min(min(r["times"]) for r in runs), "first": runs[0]["first"],
                     "nfe": runs[-1]["nfe"], "nfe_backward": runs[-1]["nfe_backward"]}
                counts = " / ".join("-" if n is None else str(n) for n in (r["nfe"], r["nfe_backward"]))
                print(f"{work:<16} {width:6d}  {gradient:<14} {r['seconds']:12.6f} {r['minimum']:12.6f} "
                      f"{r['first']:10.2f}  {counts}")
                sys.stdout.flush()
                records.append(r)
    if o.json:
        with open(o.json, "w", encoding="utf-8") as file:
            json.dump(records, file)
            file.write("\n")
