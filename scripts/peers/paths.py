"""paths.py torch|jax --paths N --steps N --tol X --threads N -- what paths.lua times, by torchsde or diffrax: prints the
fastest of five passes over increments in order, and at random."""
import argparse
import time

import numpy as np

parser = argparse.ArgumentParser()
parser.add_argument("peer", choices=["torch", "jax"])
for name, kind in (("paths", int), ("steps", int), ("tol", float), ("threads", int)):
    parser.add_argument("--" + name, type=kind)
o = parser.parse_args()
ends = np.sort(np.random.default_rng(2).random((o.steps, 2)), axis=1)
grid = np.arange(o.steps + 1) / o.steps
intervals = [np.stack([grid[:-1], grid[1:]], 1), ends]


def by_torch():
    import torch
    import torchsde
    torch.set_num_threads(o.threads)

    def one(pairs, seed):
        path = torchsde.BrownianInterval(t0=0.0, t1=1.0, size=(o.paths, 1), dtype=torch.float32, entropy=seed,
                                         dt=1 / o.steps, tol=0.0)
        pairs = pairs.tolist()
        started = time.perf_counter()
        for s, t in pairs:
            path(s, t)
        return time.perf_counter() - started
    return one


def by_jax():
    import os
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=%s intra_op_parallelism_threads=%d" % (
        "true" if o.threads > 1 else "false", o.threads)
    import diffrax
    import jax
    import jax.numpy as jnp

    @jax.jit
    def walk(pairs, key):
        path = diffrax.VirtualBrownianTree(0.0, 1.0, o.tol, (o.paths,), key)

        def add(total, pair):
            return total + path.evaluate(pair[0], pair[1]), None
        return jax.lax.scan(add, jnp.zeros(o.paths), pairs)[0]

    def one(pairs, seed):
        pairs, key = jnp.asarray(pairs, jnp.float32), jax.random.key(seed)
        walk(pairs, key).block_until_ready()
        started = time.perf_counter()
        walk(pairs, key).block_until_ready()
        return time.perf_counter() - started
    return one


one = by_torch() if o.peer == "torch" else by_jax()
print(*(min(one(pairs, seed) for seed in range(5)) for pairs in intervals))
