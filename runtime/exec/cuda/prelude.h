/*
** prelude.h -- the words of every kernel, and what they mean to CUDA and to the host that stands in for it
** (tests/cuda/). Kernels are C99 and CUDA C++ at once: loops over threads between barriers, no warp operations, no
** float atomics, one struct by value as the argument.
**   GQ_EACH(i, n)   i < n, among the threads of a block     GQ_ALL(i, n)   among all threads of all blocks
**   GQ_SYNC         a barrier: what a thread wrote before it, all threads of the block read after it; GQ_SYNC_AT(line): one
**                   that is known by that line, where one text runs many
**   GQ_BY(unroll n) the loop that follows so often in a row; all of it, where n is known, would be much code
**   GQ_CLOCK        nanoseconds since some time
**   GQ_FENCE        what this thread wrote before it, and knows that others wrote, other blocks may read
**   GQ_CONSTANT     numbers that are part of the text
**   GQ_HERE         before a function of a text that is the CPU's, too
**   GQ_ROW          (where a thread has a row) so many rows lie innermost: a number of one comes so far behind that before
**   GQ_MINE(row)    this thread's: its values are GQ_VALUES, in registers, where all is GQ_WHOLE (unrolled); the host's, of all
**   GQ_FAR(x)       where an address of the device is       gq_dynamic      shared memory as large as the launch says
** The host runs the threads of a block as loops (GQ_LOOP, GQ_BACKWARDS) or as fibers that switch at barriers (GQ_FIBER).
*/
typedef unsigned long long gq_u64;
#define GQ_UNUSED __attribute__((unused))

#if defined(__CUDACC_RTC__) || defined(__CUDACC__)

#define GQ_ENTRY(name, type) extern "C" __global__ void __launch_bounds__(GQ_NT, 1) name(const __grid_constant__ type a)
#define GQ_HERE __device__ GQ_UNUSED
#define GQ_DEVICE static __device__ __forceinline__ GQ_UNUSED
#define GQ_REGION static __device__ __noinline__
#define GQ_FAR(x) ((char *)(x))
extern __shared__ __align__(16) char gq_dynamic[];
#define GQ_SHARED(T, name, n) __shared__ T name[n];
#define GQ_CONSTANT static __constant__ const
#define GQ_SYNC __syncthreads();
#define GQ_SYNC_AT(line) __syncthreads();
#define GQ_FENCE __threadfence();
static __device__ GQ_UNUSED unsigned long long gq_clock() {
  unsigned long long t;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t));
  return t;
}
#define GQ_CLOCK gq_clock()
#define GQ_TILE ((int)blockIdx.x)
#define GQ_BLOCK ((int)blockIdx.x)
#define GQ_BLOCKS ((int)gridDim.x)
#define GQ_EACH(i, n) _Pragma("unroll 1") for (int i = (int)threadIdx.x; i < (n); i += GQ_NT)
#define GQ_ALL(i, n)    \
  _Pragma("unroll 1") \
  for (long long i = (long long)GQ_BLOCK * GQ_NT + threadIdx.x; i < (n); i += (long long)GQ_BLOCKS * GQ_NT)
#define GQ_BY(n) _Pragma(#n)
#define GQ_WHOLE _Pragma("unroll")
#define GQ_MINE(row) for (int row GQ_UNUSED = (int)threadIdx.x, row##_ = 1; row##_; row##_ = 0)
#define GQ_VALUES_OF(bytes)
#define GQ_VALUES(bytes) __align__(16) char gq_own[bytes];
#define GQ_VALUE(at, row) (gq_own + (at))
#define GQ_ROWS char *gq_own, const gq_operand *of,
#define GQ_ITS gq_own, of,
#define restrict __restrict__
#ifdef __CUDACC_RTC__
typedef unsigned char uint8_t;
typedef int int32_t;
typedef unsigned uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#define INT64_MAX 0x7fffffffffffffffLL
#define INT64_MIN (-INT64_MAX - 1)
#else /* nvcc: functions of vmath.h are the device's */
#include <stdint.h>
#define inline __inline__ __device__ GQ_UNUSED
#endif
#undef NAN
#undef INFINITY
#define NAN __int_as_float(0x7fc00000)
#define INFINITY __int_as_float(0x7f800000)
#define __builtin_fmaf fmaf
#define __builtin_fma fma

#else

#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef __TINYC__
#define __builtin_fmaf fmaf
#define __builtin_fma fma
#endif
extern int gq_emu_block, gq_emu_blocks, *gq_emu_thread;
extern char *gq_emu_dynamic;
void gq_emu_barrier(int line), gq_emu_fence(void);
unsigned long long gq_emu_clock(void);
void gq_emu_shared(void *at, unsigned long long bytes), gq_emu_own(void *at, unsigned long long bytes);
#define GQ_ENTRY(name, type) GQ_ENTRY_(name, type)
#define GQ_ENTRY_(name, type)                              \
  static void name##_body(type a);                         \
  const unsigned name##_args = sizeof(type), name##_threads = GQ_NT; \
  void name(const void *a) { name##_body(*(const type *)a); } \
  static void name##_body(type a)
#define GQ_HERE
#define GQ_DEVICE static inline
#define GQ_REGION static
/* Addresses of the device are so far from where its memory lies that neither side can take one for its own. */
#define GQ_FAR(x) ((char *)((x) - 0x400000000000ull))
#define gq_dynamic gq_emu_dynamic
/* libnvrtc.c counts their bytes. libc takes __attribute__ from tcc. */
#define GQ_CONSTANT static __attribute((section(".gq_constant"))) const
#define GQ_SHARED(T, name, n) \
  static T name[n];           \
  gq_emu_shared(name, sizeof name);
#define GQ_BY(n)
#define GQ_WHOLE
#define GQ_MINE(row) GQ_EACH(row, GQ_ROW)
#define GQ_VALUES_OF(bytes) static char gq_own[GQ_ROW][bytes];
#define GQ_VALUES(bytes) gq_emu_own(gq_own, sizeof gq_own);
#define GQ_VALUE(at, row) (gq_own[row] + (at))
#define GQ_ROWS const gq_operand *of,
#define GQ_ITS of,
#define GQ_TILE gq_emu_block
#define GQ_CLOCK gq_emu_clock()
#define GQ_BLOCK gq_emu_block
#define GQ_BLOCKS gq_emu_blocks
#if defined(GQ_FIBER)
#define GQ_SYNC gq_emu_barrier(__LINE__);
#define GQ_SYNC_AT(line) gq_emu_barrier(line);
#define GQ_EACH(i, n) for (int i = *gq_emu_thread; i < (n); i += GQ_NT)
#define GQ_ALL(i, n) \
  for (long long i = (long long)GQ_BLOCK * GQ_NT + *gq_emu_thread; i < (n); i += (long long)GQ_BLOCKS * GQ_NT)
#else
#define GQ_SYNC
#define GQ_SYNC_AT(line)
#define GQ_NEXT(i) ((i) + 1) % GQ_NT ? (i) + 1 : (i) + 1 + (long long)(GQ_BLOCKS - 1) * GQ_NT
#if defined(GQ_BACKWARDS)
#define GQ_EACH(i, n) for (int i = (int)(n) - 1; i >= 0; i--)
/* by chunks of a block's threads, each from its end */
#define GQ_ALL(i, n)                                                                                      \
  for (long long i##_ = (long long)GQ_BLOCK * GQ_NT, i; i##_ < ((n) + GQ_NT - 1) / GQ_NT * GQ_NT; i##_ = GQ_NEXT(i##_)) \
    if ((i = i##_ - i##_ % GQ_NT * 2 + GQ_NT - 1) < (n))
#else
#define GQ_EACH(i, n) for (int i = 0; i < (n); i++)
#define GQ_ALL(i, n) for (long long i = (long long)GQ_BLOCK * GQ_NT; i < (n); i = GQ_NEXT(i))
#endif
#endif
#ifdef __SANITIZE_THREAD__ /* what is atomic is no race */
#define GQ_ATOMIC static __attribute__((noinline, no_sanitize_thread))
#define GQ_FENCE gq_emu_fence();
#else
#define GQ_ATOMIC GQ_DEVICE
#define GQ_FENCE
#endif
GQ_ATOMIC unsigned atomicAdd(unsigned *p, unsigned v) {
  unsigned old = *p;
  *p = old + v;
  return old;
}
GQ_ATOMIC gq_u64 atomicMin(gq_u64 *p, gq_u64 v) {
  gq_u64 old = *p;
  if (v < old) *p = v;
  return old;
}

#endif

/* With GQ_TILED kernels are parts of one kernel, GQ_ENTRY, of which each block runs all for a tile of its own; that has
** found where its numbers are. */
#ifdef GQ_TILED
typedef char *gq_address;
#ifdef GQ_SMALL
typedef int gq_count;
#else
typedef long long gq_count;
#endif
#define GQ_AT(x) (x)
#undef GQ_ALL
#undef GQ_BLOCK
#undef GQ_BLOCKS
#ifdef GQ_ROW
#define GQ_SYNC_ROWS GQ_SYNC /* its phases have no barriers */
#define GQ_ALL(i, n) GQ_WHOLE for (int i = 0; i < (n); i += GQ_ROW)
/* Sizes that are known, but late: at once, the most that they may be. */
#define GQ_DIMS(k, n) GQ_WHOLE for (int k = GQ_DIM - 1; k > 0; k--) if (k < (int)(n))
#define GQ_OVER(j, n, by) GQ_WHOLE for (gq_count j = 0; j < GQ_ROW_MOST; j++) if (j < (n))
#else
#define GQ_SYNC_ROWS
#define GQ_ALL(i, n) GQ_EACH(i, n)
#endif
#define GQ_BLOCK 0
#define GQ_BLOCKS 1
#define GQ_KERNEL(name, type) GQ_DEVICE void name(const type a)
#define GQ_FUNCTION GQ_REGION
#else
typedef gq_u64 gq_address;
typedef long long gq_count;
#define GQ_AT(x) GQ_FAR(x)
#define GQ_KERNEL(name, type) GQ_ENTRY(name, type)
#define GQ_FUNCTION GQ_DEVICE
#endif

#ifndef GQ_OVER
#define GQ_DIMS(k, n) for (int k = (int)(n) - 1; k > 0; k--)
#define GQ_OVER(j, n, by) GQ_BY(unroll by) for (gq_count j = 0; j < (n); j++)
#endif

#ifndef __FMA__
#define __FMA__ 1
#endif
