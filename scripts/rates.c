/*
** rates.c -- `make rates`: the rate of each convolution kernel beside cblas_sgemm's, and beside the same work as windows
** copied into a matrix and cblas_sgemm. One thread, its own time, the best of many: what else runs on the machine counts
** little. 3 x 3 windows, as many as there are pixels.
*/
#include <cblas-openblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "runtime/exec/cpu/cpu.h"

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float *numbers(size_t n) {
  float *p = aligned_alloc(64, (n * sizeof *p + 127) / 64 * 64);
  for (size_t i = 0; i < n; i++) p[i] = (float)(rand() % 2001 - 1000) / 1000;
  return p;
}

#define BEST(seconds, work)                                   \
  do {                                                        \
    seconds = 1e9;                                            \
    double spent = 0;                                         \
    for (int i = 0; i < 4 || (spent < 0.8 && i < 400); i++) { \
      double t0 = now();                                      \
      work;                                                   \
      t0 = now() - t0;                                        \
      spent += t0;                                            \
      if (t0 < seconds) seconds = t0;                         \
    }                                                         \
  } while (0)

static double sgemm_rate(int m, int n, int k) {
  float *a = numbers((size_t)m * k), *b = numbers((size_t)k * n), *c = numbers((size_t)m * n);
  double t;
  BEST(t, cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, n, k, 1, a, k, b, n, 0, c, n));
  free(a), free(b), free(c);
  return 2.0 * m * n * k / t * 1e-9;
}

static void im2col(const float *x, int c, int w, float *to) {
  for (int ch = 0; ch < c; ch++)
    for (int a = -1; a <= 1; a++)
      for (int b = -1; b <= 1; b++)
        for (int i = 0; i < w; i++, to += w) {
          memset(to, 0, (size_t)w * 4);
          if (i + a < 0 || i + a >= w) continue;
          memcpy(to + (b < 0), x + (ch * w + i + a) * w + (b > 0), (size_t)(w - (b != 0)) * 4);
        }
}

static void row(int c, int m, int w, int images, double peak) {
  int K = 9 * c, P = w * w;
  float *x = numbers((size_t)images * c * P), *g = numbers((size_t)images * m * P),
        *W = numbers((size_t)m * K);
  float *cols = numbers((size_t)K * P);
  double flops = 2.0 * images * m * K * P, t;
  printf("| %d x %d, %d to %d |", w, w, c, m);
  for (int kind = 0; kind < 3; kind++) {
    gq_conv v = { .kind = (gq_conv_kind)kind,
                  .dtype = GQ_F32,
                  .blocks = images,
                  .period = 1,
                  .m = m,
                  .c = c,
                  .size = { w, w },
                  .k = { 3, 3 },
                  .count = { w, w },
                  .step = { 1, 1 },
                  .apart = { 1, 1 },
                  .pad = { 1, 1 } };
    gq_convolution p = gq_conv_plan(&v);
    void *scratch = aligned_alloc(64, p.scratch + 64), *packed = aligned_alloc(64, p.shared + 64);
    const float *a = kind == 2 ? g : W, *b = kind == 1 ? g : x;
    float *out = kind == 0 ? g : kind == 1 ? x : W;
    BEST(t, gq_conv_run(&p, a, b, out, false, scratch, p.scratch, packed, false, 1));
    printf(" %.1f (%.0f %%) |", flops / t * 1e-9, 100 * flops / t * 1e-9 / peak);
    free(scratch), free(packed);
  }
  BEST(
    t, for (int i = 0; i < images; i++) {
      im2col(x + (size_t)i * c * P, c, w, cols);
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, P, K, 1, W, K, cols, P, 0,
                  g + (size_t)i * m * P, P);
    });
  printf(" %.1f |\n", flops / t * 1e-9);
  free(x), free(g), free(W), free(cols);
}

int main(void) {
  gq_set_threads(1);
  gq_gemm_ready();
  double peak = sgemm_rate(1024, 1024, 1024);
  printf("%s kernels; cblas_sgemm at 1024: %.1f GFLOP/s of one thread's own time\n\n", gq_cpu()->name, peak);
  printf(
    "| images, channels | forward | data gradient | weight gradient | windows in a matrix, cblas_sgemm |\n");
  printf("| --- | --- | --- | --- | --- |\n");
  row(10, 64, 11, 16, peak), row(64, 64, 11, 16, peak), row(64, 10, 11, 16, peak), row(64, 64, 10, 16, peak);
  row(128, 128, 10, 16, peak), row(256, 256, 10, 16, peak), row(64, 64, 32, 4, peak),
    row(128, 128, 32, 2, peak);
  return 0;
}
