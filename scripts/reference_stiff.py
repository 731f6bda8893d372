#!/usr/bin/env python3
"""Reference values of stiff problems for tests/data/stiff.lua: Radau IIA with five stages (order 9, Hairer &
Wanner IV.5), full Newton, 30 digits, steps chosen by comparing one step with two halves at 1e-14. Needs mpmath.
Prints state and the digits on which tolerances 1e-12 and 1e-14 agree."""
from mpmath import mp, mpf, matrix, lu_solve, polyroots, legendre, taylor, norm, inf

mp.dps = 30
S = 5


def radau():
    # right Radau points: roots of P_s - P_s-1, moved to (0, 1]
    c = [mpf(0)] * (S + 1)
    p, q = taylor(lambda x: legendre(S, x), 0, S), taylor(lambda x: legendre(S - 1, x), 0, S - 1) + [mpf(0)]
    roots = sorted((1 + r.real) / 2 for r in map(mp.mpc, polyroots([a - b for a, b in zip(p, q)][::-1], maxsteps=200)))
    v = matrix(S, S)
    w = matrix(S, S)
    for i, x in enumerate(roots):
        for k in range(S):
            v[i, k] = x ** k
            w[i, k] = x ** (k + 1) / (k + 1)
    return roots, w * v ** -1


C, A = radau()


def step(f, jac, y, h):
    n = len(y)
    z = matrix(S * n, 1)
    for _ in range(40):
        r, m = matrix(S * n, 1), matrix(S * n, S * n)
        stages = [[y[k] + z[i * n + k] for k in range(n)] for i in range(S)]
        fs, js = [f(s) for s in stages], [jac(s) for s in stages]
        for i in range(S):
            for k in range(n):
                r[i * n + k] = z[i * n + k] - h * sum(A[i, j] * fs[j][k] for j in range(S))
                for j in range(S):
                    for l in range(n):
                        m[i * n + k, j * n + l] = (i == j and k == l) - h * A[i, j] * js[j][k][l]
        d = lu_solve(m, -r)
        z += d
        if max(abs(d[i * n + k]) / (abs(y[k]) + mpf(10) ** -12) for i in range(S) for k in range(n)) < mpf(10) ** -24:
            return [y[k] + z[(S - 1) * n + k] for k in range(n)]
    return None


def solve(f, jac, y, ends, h, tol, small):
    t, out = mpf(0), []
    for end in ends:
        while t < end:
            h = min(h, end - t)
            one = step(f, jac, y, h)
            two = one and step(f, jac, y, h / 2)
            two = two and step(f, jac, two, h / 2)
            if not two:
                h /= 4
                continue
            e = max(abs(a - b) / (small + abs(b)) for a, b in zip(one, two)) / tol
            if e <= 1:
                t, y = t + h, two
            h *= min(5, max(mpf(1) / 5, mpf("0.9") * (e + mpf(10) ** -20) ** (-mpf(1) / 10)))
        out.append(y)
    return out


MU = mpf(1000)
PROBLEMS = {
    "van_der_pol": (lambda y: [y[1], MU * (1 - y[0] ** 2) * y[1] - y[0]],
                    lambda y: [[0, 1], [-2 * MU * y[0] * y[1] - 1, MU * (1 - y[0] ** 2)]],
                    [mpf(2), mpf(0)], [2000], mpf(10) ** -8),
    "robertson": (lambda y: [-mpf("0.04") * y[0] + 10 ** 4 * y[1] * y[2],
                             mpf("0.04") * y[0] - 10 ** 4 * y[1] * y[2] - 3 * 10 ** 7 * y[1] ** 2,
                             3 * 10 ** 7 * y[1] ** 2],
                  lambda y: [[-mpf("0.04"), 10 ** 4 * y[2], 10 ** 4 * y[1]],
                             [mpf("0.04"), -10 ** 4 * y[2] - 6 * 10 ** 7 * y[1], -10 ** 4 * y[1]],
                             [0, 6 * 10 ** 7 * y[1], 0]],
                  [mpf(1), mpf(0), mpf(0)], [40, 100000], mpf(10) ** -10),
}

for name, (f, jac, y0, ends, small) in PROBLEMS.items():
    coarse, fine = (solve(f, jac, list(y0), ends, mpf(10) ** -4, mpf(10) ** -k, small) for k in (12, 14))
    for end, a, b in zip(ends, coarse, fine):
        print(name, end, [mp.nstr(x, 16) for x in b], "agree to",
              mp.nstr(max(abs(u - v) / abs(v) for u, v in zip(a, b)), 2), flush=True)
