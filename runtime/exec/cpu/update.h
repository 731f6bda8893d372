/*
** update.h -- the update loops, for one type and one instruction set. Included by update.c once
** for each, with T (float or double), SQRT, TARGET and FN(name) defined; a text of CUDA's kernels, too. The formulas are
** PyTorch's single-tensor ones, operation for operation, so that trajectories agree to rounding;
** coefficients are computed in double and rounded to T once, as there.
*/

/* Adam (Kingma & Ba, ICLR 2015, Algorithm 1). `decay` is AdamW's factor 1 - lr wd on the
** parameters (Loshchilov & Hutter, ICLR 2019, Algorithm 2), 1 for Adam, whose weight decay
** goes into the gradient. */
TARGET static void FN(adam)(size_t n, void *vp, const void *vg, void *const *s, const gq_opt_coef *k) {
  T *restrict p = (T *)vp, *restrict m = (T *)s[0], *restrict v = (T *)s[1];
  const T *restrict g = (const T *)vg;
  const T b1 = (T)k->beta1, c1 = (T)(1 - k->beta1), b2 = (T)k->beta2, c2 = (T)(1 - k->beta2);
  const T size = (T)k->step_size, root = (T)k->root2, eps = (T)k->eps, wd = (T)k->weight_decay, decay = (T)k->decay;
  for (size_t i = 0; i < n; i++) {
    T x = p[i] * decay;
    T d = g[i] + wd * x;
    T a = b1 * m[i] + c1 * d, b = b2 * v[i] + c2 * d * d;
    m[i] = a;
    v[i] = b;
    p[i] = x - size * (a / (SQRT(b) / root + eps));
  }
}

/* Plain gradient descent, with weight decay. */
TARGET static void FN(sgd)(size_t n, void *vp, const void *vg, void *const *s, const gq_opt_coef *k) {
  T *restrict p = (T *)vp;
  const T *restrict g = (const T *)vg;
  const T lr = (T)k->lr, wd = (T)k->weight_decay;
  for (size_t i = 0; i < n; i++) p[i] -= lr * (g[i] + wd * p[i]);
}

/* Momentum (Sutskever et al., ICML 2013, with PyTorch's placement of lr): the first step takes
** the gradient itself as momentum (keep 0, gain 1). Nesterov: `look` 1 adds the gradient once more. */
TARGET static void FN(momentum)(size_t n, void *vp, const void *vg, void *const *s, const gq_opt_coef *k) {
  T *restrict p = (T *)vp, *restrict m = (T *)s[0];
  const T *restrict g = (const T *)vg;
  const T lr = (T)k->lr, wd = (T)k->weight_decay, keep = (T)k->keep, gain = (T)k->gain;
  const T ahead = (T)k->ahead, mix = (T)k->mix;
  for (size_t i = 0; i < n; i++) {
    T d = g[i] + wd * p[i];
    T a = keep * m[i] + gain * d;
    m[i] = a;
    p[i] -= lr * (mix * d + ahead * a);
  }
}

/* RMSProp (Tieleman & Hinton, Coursera lecture 6.5, 2012); `center` 1: variance instead of the
** second moment (Graves, arXiv 1308.0850, eq. 38-45). Rounding may leave the variance of a
** constant gradient below zero: it counts as zero. */
TARGET static void FN(rmsprop)(size_t n, void *vp, const void *vg, void *const *s, const gq_opt_coef *k) {
  T *restrict p = (T *)vp, *restrict v = (T *)s[1];
  const T *restrict g = (const T *)vg;
  const T lr = (T)k->lr, wd = (T)k->weight_decay, al = (T)k->alpha, be = (T)(1 - k->alpha), eps = (T)k->eps;
  for (size_t i = 0; i < n; i++) {
    T d = g[i] + wd * p[i];
    T b = al * v[i] + be * d * d;
    v[i] = b;
    p[i] -= lr * (d / (SQRT(b) + eps));
  }
}

/* The same with momentum and centering, either or both. */
TARGET static void FN(rmsprop_full)(size_t n, void *vp, const void *vg, void *const *s, const gq_opt_coef *k) {
  T *restrict p = (T *)vp, *restrict m = (T *)s[0], *restrict v = (T *)s[1], *restrict mean = (T *)s[2];
  const T *restrict g = (const T *)vg;
  const T lr = (T)k->lr, wd = (T)k->weight_decay, al = (T)k->alpha, be = (T)(1 - k->alpha), eps = (T)k->eps;
  const T mom = (T)k->keep;
  for (size_t i = 0; i < n; i++) {
    T d = g[i] + wd * p[i];
    T b = al * v[i] + be * d * d, var = b;
    v[i] = b;
    if (mean) {
      T c = mean[i] + be * (d - mean[i]);
      mean[i] = c;
      var = b - c * c;
      var = var > 0 ? var : 0;
    }
    T u = d / (SQRT(var) + eps);
    if (m) {
      u = mom * m[i] + u;
      m[i] = u;
    }
    p[i] -= lr * u;
  }
}

/* 1 when every number is finite: x - x is 0 then, and NaN otherwise. */
TARGET static inline int FN(finite)(size_t n, const void *vg) {
  const T *restrict g = (const T *)vg;
  int bad = 0;
  for (size_t i = 0; i < n; i++) bad |= !(g[i] - g[i] == 0);
  return !bad;
}
