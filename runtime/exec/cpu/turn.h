/*
** turn.h -- to[j * lto + i] (+)= from[i * lfrom + j], i < n, j < m: blocks of whole vectors, and parts of them at the
** edges. Included by kernels.c behind small.h.
*/

/* ni <= WIDTH rows of nj <= WIDTH numbers */
static inline __attribute__((always_inline)) void turn_some(const float *from, int64_t lfrom, int ni, int nj, float *to,
                                                            int64_t lto, bool add) {
  vec_f32 x[WIDTH_f32];
  mask_f32 wide = first_f32((size_t)nj), high = first_f32((size_t)ni);
  for (int i = 0; i < WIDTH_f32; i++) {
    if (i >= ni) x[i] = VSET_f32(0);
    else x[i] = nj == WIDTH_f32 ? VLOAD_f32(from + i * lfrom) : VPART_f32(from + i * lfrom, wide);
  }
  turn_block_f32(x);
  for (int j = 0; j < nj; j++, to += lto) {
    if (add) x[j] += ni == WIDTH_f32 ? VLOAD_f32(to) : VPART_f32(to, high);
    if (ni == WIDTH_f32) VSTORE_f32(to, x[j]);
    else VPUT_f32(to, (size_t)ni, x[j]);
  }
}

/* Where blocks start: the last overlaps the one before, where numbers may be stored twice. */
static inline int64_t block_at(int64_t i, int64_t n, bool add) {
  return !add && i + WIDTH_f32 > n && n >= WIDTH_f32 ? n - WIDTH_f32 : i;
}

/* Few rows of `from` at once: those that are a power of two apart share their sets of the cache. */
static void turn_f32(const float *from, int64_t lfrom, int64_t n, int64_t m, float *to, int64_t lto, bool add) {
  for (int64_t i0 = 0; i0 < n; i0 += WIDTH_f32)
    for (int64_t j0 = 0; j0 < m; j0 += WIDTH_f32) {
      int64_t i = block_at(i0, n, add), j = block_at(j0, m, add);
      const float *x = from + i * lfrom + j;
      float *y = to + j * lto + i;
      int ni = n - i < WIDTH_f32 ? (int)(n - i) : WIDTH_f32, nj = m - j < WIDTH_f32 ? (int)(m - j) : WIDTH_f32;
      if (ni == WIDTH_f32 && nj == WIDTH_f32) turn_some(x, lfrom, WIDTH_f32, WIDTH_f32, y, lto, add);
      else turn_some(x, lfrom, ni, nj, y, lto, add);
    }
}
