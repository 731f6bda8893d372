#!/usr/bin/env python3
"""jax_steps.py -- the training steps of scripts/bench.lua in JAX, with diffrax, each one compiled function.

checkpoint is RecursiveCheckpointAdjoint, backsolve is BacksolveAdjoint and seminorm the same without the parameters
in its error norm; ou by them is the paper's ordinary equation over smooth noise, and sde_checkpoint is reversible
Heun over a virtual Brownian tree. The first step compiles; its seconds are told apart.
scripts/peers/setup installs what this needs.
"""
import os

import common

ENGINES = {"ode": ["checkpoint", "backsolve", "seminorm"], "sde": ["sde_checkpoint"]}

if __name__ == "__main__":
    o = common.options(__doc__.split("\n", maxsplit=1)[0], ENGINES)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    # XLA takes a thread for each core that the process may use, and asks once.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:o.threads])

# pylint: disable=wrong-import-position
import diffrax
import jax
import jax.numpy as jnp
import lineax
import numpy as np
import optax


def mlp(key, sizes, timed):
    """[(weights, biases)], uniform within 1 / sqrt(inputs) as PyTorch's."""
    layers = []
    for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
        a = a + (timed and i == 0)
        kw, kb, key = jax.random.split(key, 3)
        bound = a ** -0.5
        layers.append((jax.random.uniform(kw, (a, b), minval=-bound, maxval=bound),
                       jax.random.uniform(kb, (b,), minval=-bound, maxval=bound)))
    return layers


def apply(layers, x):
    for w, b in layers[:-1]:
        x = jax.nn.softplus(x @ w + b)
    w, b = layers[-1]
    return x @ w + b


def convolutions(key, sizes):
    """[(weights, biases)] of 3 x 3 windows, uniform as PyTorch's; channels last."""
    layers = []
    for a, b in zip(sizes, sizes[1:]):
        kw, kb, key = jax.random.split(key, 3)
        bound = (9 * a) ** -0.5
        layers.append((jax.random.uniform(kw, (3, 3, a, b), minval=-bound, maxval=bound),
                       jax.random.uniform(kb, (b,), minval=-bound, maxval=bound)))
    return layers


def with_time(t, z):
    return jnp.concatenate([z, jnp.full((len(z), 1), t, z.dtype)], 1)


# ---- dynamics f(t, z, args), args = parameters and the noise ----

def timed(t, z, args):
    return apply(args[0]["net"], with_time(t, z))


def plain(t, z, args):
    return apply(args[0]["net"], z)


def convolution(z, w):
    """The sum over windows' places, each a product of matrices: nine times as fast as XLA's own convolution inside of
    a loop, where that is a plain one, and as fast outside."""
    _, rows, cols, _ = z.shape
    z = jnp.pad(z, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(z[:, i:i + rows, j:j + cols] @ w[i, j] for i in range(3) for j in range(3))


def convolutional(t, z, args):
    for i, (w, b) in enumerate(args[0]["net"]):
        z = convolution(jax.nn.softplus(z) if i else z, w) + b
    return z


def second_order(t, z, args):
    return jnp.concatenate([z[:, 1:], apply(args[0]["net"], z)], 1)


def flow(t, z, args):
    """z' = net(t, z), and less the trace of its Jacobian, exactly."""
    def point(x):
        return apply(args[0]["net"], jnp.append(x, t))

    x = z[:, :-1]
    trace = jnp.trace(jax.vmap(jax.jacfwd(point))(x), axis1=1, axis2=2)
    return jnp.concatenate([jax.vmap(point)(x), -trace[:, None]], 1)


def drift(t, z, args):
    return apply(args[0]["drift"], with_time(t, z))


def diffusion(t, z, args):
    return apply(args[0]["diffusion"], with_time(t, z))


def noisy(t, z, args):
    frequencies = (np.arange(common.COSINES, dtype=np.float32) + 0.5) * np.pi / common.SPAN
    noise = jnp.cos(frequencies * t) @ args[1] * (2 / common.SPAN) ** 0.5
    return drift(t, z, args) + diffusion(t, z, args) * noise[:, None]


FIELDS = {"flow": flow, "nested_spheres": timed, "crossing": plain, "ou": noisy, "images": convolutional,
          "images256": convolutional}


# ---- losses of the solution z {times, rows, dim} ----

def cross_entropy(p, parameters, z):
    logits = apply(parameters["readout"], z[-1].reshape(len(p.y), -1))
    return optax.softmax_cross_entropy_with_integer_labels(logits, p.y.astype(np.int32)).mean()


def last_component(p, parameters, z):
    return jnp.mean((z[-1, :, :1] - p.y) ** 2)


def likelihood(p, parameters, z):
    x, delta = z[-1, :, :-1], z[-1, :, -1]
    return ((x ** 2).sum(1) / 2 + np.log(2 * np.pi) + delta).mean()


def positions(p, parameters, z):
    return jnp.mean((z[:, :, 0].reshape(-1)[p.pick] - p.y) ** 2)


def gaussian_kl(p, parameters, z):
    """Mean KL of the samples' normals to those of y; the first time, where all samples are equal, counts as 0."""
    x = z.reshape(len(z), common.STARTS, common.SAMPLES)[1:]
    m, s = x.mean(2), x.std(2, ddof=1) + 1e-9
    n, r = p.y[0, 1:], p.y[1, 1:] + 1e-9
    kl = -jnp.log(s / r) + ((s / r) ** 2 + ((m - n) / r) ** 2) / 2 - 0.5
    return kl.sum() / (len(z) * common.STARTS)


LOSSES = {"flow": likelihood, "nested_spheres": cross_entropy, "crossing": last_component, "ou": gaussian_kl, "images": cross_entropy,
          "images256": cross_entropy}


# ---- solves: each a function of (parameters, noise) that gives the solution and its number of steps ----

def ode_solver(work, p, gradient):
    controller = diffrax.PIDController(rtol=common.TOLERANCE, atol=common.TOLERANCE)
    adjoint = diffrax.RecursiveCheckpointAdjoint()
    if gradient == "backsolve":
        adjoint = diffrax.BacksolveAdjoint()
    elif gradient == "seminorm":
        adjoint = diffrax.BacksolveAdjoint(stepsize_controller=diffrax.PIDController(
            rtol=common.TOLERANCE, atol=common.TOLERANCE, norm=diffrax.adjoint_rms_seminorm))
    term = diffrax.ODETerm(FIELDS.get(work, second_order))

    def solve(parameters, noise):
        s = diffrax.diffeqsolve(term, diffrax.Dopri5(), p.times[0], p.times[-1], None, p.z0, (parameters, noise),
                                saveat=diffrax.SaveAt(ts=p.times), stepsize_controller=controller, adjoint=adjoint)
        return s.ys, s.stats["num_steps"]
    return solve


def sde_solver(p):
    # Room for every step, so that none is computed again.
    adjoint = diffrax.RecursiveCheckpointAdjoint(checkpoints=round(common.SPAN / common.SDE_DT) + 2)

    def solve(parameters, key):
        path = diffrax.VirtualBrownianTree(0.0, common.SPAN, common.SDE_DT / 2, p.z0.shape, key)
        term = diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(
            lambda t, z, args: lineax.DiagonalLinearOperator(diffusion(t, z, args)), path))
        s = diffrax.diffeqsolve(term, diffrax.ReversibleHeun(), p.times[0], p.times[-1], common.SDE_DT, p.z0,
                                (parameters, None), saveat=diffrax.SaveAt(ts=p.times), adjoint=adjoint)
        return s.ys, s.stats["num_steps"]
    return solve


def initial(work, p, key):
    one, two = jax.random.split(key)
    if work == "ou":
        return {"drift": mlp(one, p.sizes, True), "diffusion": mlp(two, p.sizes, True)}
    if work.startswith("images"):
        return {"net": convolutions(one, p.sizes), "readout": mlp(two, [p.z0[0].size, 10], False)}
    parameters = {"net": mlp(one, p.sizes, p.timed)}
    if work == "nested_spheres":
        parameters["readout"] = mlp(two, [5, 2], False)
    return parameters


def make_step(work, width, gradient, seed):
    p = common.problem(work, width, seed)
    if work.startswith("images"):
        p.z0 = p.z0.transpose(0, 2, 3, 1)
    is_sde = gradient.startswith("sde")
    solve = sde_solver(p) if is_sde else ode_solver(work, p, gradient)
    optimiser = optax.adam(p.rate(width))
    parameters = initial(work, p, jax.random.key(seed))
    state, count = optimiser.init(parameters), 0

    def objective(parameters, noise):
        z, steps = solve(parameters, noise)
        return LOSSES.get(work, positions)(p, parameters, z), steps

    def train(parameters, state, noise):
        gradients, steps = jax.grad(objective, has_aux=True)(parameters, noise)
        updates, state = optimiser.update(gradients, state)
        return optax.apply_updates(parameters, updates), state, steps

    train = jax.jit(train, donate_argnums=(0, 1))

    def step():
        nonlocal parameters, state, count
        count += 1
        noise = None
        if work == "ou":
            noise = jax.random.key(count) if is_sde else common.cosines(count)
        parameters, state, steps = jax.block_until_ready(train(parameters, state, noise))
        return (None, None) if is_sde else (2 + 6 * int(steps), None)    # what a backward solve takes is not told
    return step


if __name__ == "__main__":
    common.measure(f"jax {jax.__version__}, diffrax {diffrax.__version__}", make_step, o)
