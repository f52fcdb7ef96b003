"""Writes statistics.json: inputs and what SciPy (or, where it has no such function, the published formula written out
in NumPy) makes of them. Run: python generate.py > statistics.json"""

import json

import numpy as np
import scipy
from scipy import stats

rng = np.random.default_rng(20261123)


def listed(values):
    return [round(float(v), 6) for v in values]


def wilson():
    for k, n, level in [(0, 5, 0.95), (5, 5, 0.95), (1, 1, 0.95), (47, 64, 0.95), (3, 200, 0.99), (100, 200, 0.9)]:
        ci = stats.binomtest(k, n).proportion_ci(level, method="wilson")
        yield {"successes": k, "n": n, "confidence": level, "interval": [ci.low, ci.high]}


def wilson_clustered():
    for k, size, p, level in [(12, 5, 0.6, 0.95), (30, 4, 0.9, 0.95), (5, 20, 0.3, 0.99)]:
        rates = rng.beta(4 * p, 4 * (1 - p), k)
        sizes = rng.integers(1, 2 * size, k)
        groups = [(rng.random(m) < r).astype(float) for m, r in zip(sizes, rates)]
        y = np.concatenate(groups)
        n, mean = len(y), y.mean()
        msb = sum(len(g) * (g.mean() - mean) ** 2 for g in groups) / (k - 1)
        msw = sum(((g - g.mean()) ** 2).sum() for g in groups) / (n - k)
        m0 = (n - (sizes**2).sum() / n) / (k - 1)
        icc = min(1, max(0, (msb - msw) / (msb + (m0 - 1) * msw)))
        n_eff = n / (1 + ((sizes**2).sum() / n - 1) * icc)
        c = stats.t.ppf((1 + level) / 2, k - 1)
        centre, scale = (mean + c * c / (2 * n_eff)), 1 + c * c / n_eff
        half = c * np.sqrt(mean * (1 - mean) / n_eff + c * c / (4 * n_eff**2))
        yield {
            "groups": [listed(g) for g in groups],
            "confidence": level,
            "value": mean,
            "interval": [max(0, (centre - half) / scale), min(1, (centre + half) / scale)],
        }


def cluster_t():
    for k, size, level in [(3, 4, 0.95), (12, 5, 0.95), (40, 2, 0.99)]:
        groups = [listed(rng.normal(rng.normal(), 1, size)) for _ in range(k)]
        result = stats.ttest_1samp([np.mean(g) for g in groups], 0)
        ci = result.confidence_interval(level)
        yield {"groups": groups, "confidence": level, "value": np.mean(groups), "interval": [ci.low, ci.high]}


def mcnemar():
    for both, lost, won, neither, level in [(20, 12, 2, 16, 0.95), (50, 0, 0, 14, 0.95), (3, 9, 1, 40, 0.99), (0, 5, 0, 3, 0.95)]:
        n = both + lost + won + neither

        def bounds(k):
            ci = stats.binomtest(k, n).proportion_ci(level, method="wilson")
            return ci.low, ci.high

        p_after, p_before = (both + won) / n, (both + lost) / n
        (la, ua), (lb, ub) = bounds(both + won), bounds(both + lost)
        excess = both * neither - lost * won
        excess = max(0, excess - n / 2) if excess > 0 else excess
        margins = (both + lost) * (won + neither) * (both + won) * (lost + neither)
        phi = excess / np.sqrt(margins) if margins else 0
        d = p_after - p_before
        a, b, c, e = p_after - la, ub - p_before, ua - p_after, p_before - lb
        yield {
            "both": both, "lost": lost, "won": won, "neither": neither, "confidence": level,
            "p": stats.binomtest(min(lost, won), lost + won).pvalue if lost + won else 1.0,
            "value": d,
            "interval": [d - np.sqrt(a * a - 2 * phi * a * b + b * b), d + np.sqrt(c * c - 2 * phi * c * e + e * e)],
        }


def auroc():
    for m, n, shift, digits, level in [(20, 30, 1.0, 6, 0.95), (64, 64, 0.3, 1, 0.95), (8, 9, 0.8, 0, 0.99)]:
        x, y = np.round(rng.normal(shift, 1, m), digits), np.round(rng.normal(0, 1, n), digits)
        psi = (x[:, None] > y[None, :]) + 0.5 * (x[:, None] == y[None, :])
        area = stats.mannwhitneyu(x, y).statistic / (m * n)
        variance = psi.mean(1).var(ddof=1) / m + psi.mean(0).var(ddof=1) / n
        half = stats.norm.ppf((1 + level) / 2) * np.sqrt(variance) / (area * (1 - area))
        logit = np.log(area / (1 - area))
        yield {
            "positive": listed(x), "negative": listed(y), "confidence": level, "value": area,
            "interval": [1 / (1 + np.exp(half - logit)), 1 / (1 + np.exp(-half - logit))],
        }


def t_test():
    for n in [2, 8, 32]:
        sample = np.array(listed(rng.normal(0.1, 0.2, n)))
        for value in [0.1, -0.35, 2.0]:
            t = (value - sample.mean()) / (sample.std(ddof=1) * np.sqrt(1 + 1 / n))
            yield {"sample": listed(sample), "value": value, "p": 2 * stats.t.sf(abs(t), n - 1)}


cases = {f.__name__: list(f()) for f in [wilson, wilson_clustered, cluster_t, mcnemar, auroc, t_test]}
print("{")
print(f'"scipy": "{scipy.__version__}"', end="")
for name, rows in cases.items():
    print(f',\n"{name}": [\n ' + ",\n ".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n]", end="")
print("\n}")
