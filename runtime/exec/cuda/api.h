/*
** api.h -- what is called of NVIDIA's libraries, declared here, so that building needs none of them: the driver's
** interface (libcuda.so.1), the compiler (libnvrtc) and products (libcublasLt). All are opened by name; api.c says which
** is missing.
*/
#ifndef GQ_CUDA_API_H
#define GQ_CUDA_API_H

#include <stddef.h>
#include <stdint.h>

typedef uint64_t gq_u64;      /* an address of the device */
typedef struct CUctx_st *gq_cucontext;
typedef struct CUmod_st *gq_cumodule;
typedef struct CUfunc_st *gq_cufunction;
typedef struct CUstream_st *gq_custream;
typedef struct CUgraph_st *gq_cugraph;
typedef struct CUgraphExec_st *gq_cugraph_exec;
typedef struct _nvrtcProgram *gq_nvrtc;
typedef struct gq_blas_handle_of *gq_blas_handle;
typedef struct gq_blas_desc_of *gq_blas_desc;
typedef struct gq_blas_layout_of *gq_blas_layout;
typedef struct gq_blas_preference_of *gq_blas_preference;
typedef struct gq_blas_algo { uint64_t data[8]; } gq_blas_algo;
typedef struct gq_blas_choice {
  gq_blas_algo algo;
  size_t room;
  int state;
  float waves;
  int reserved[4];
} gq_blas_choice;

enum { GQ_CU_NO_MEMORY = 2, GQ_CU_NO_DEVICE = 100, GQ_CU_BAD_IMAGE = 200, GQ_CU_NO_BINARY = 209 };                                /* CUresult */
enum { GQ_CU_MULTIPROCESSORS = 16, GQ_CU_MAJOR = 75, GQ_CU_MINOR = 76, GQ_CU_SHARED_MOST = 97 };  /* CUdevice_attribute */
enum { GQ_CU_DYNAMIC_SHARED = 8 };                                                  /* CUfunction_attribute */
enum { GQ_CU_NON_BLOCKING = 1 };                                                    /* of a stream */

/* symbol, name here, parameters; each returns a CUresult */
#define GQ_DRIVER(X)                                                                                  \
  X(cuInit, init, (unsigned flags))                                                                   \
  X(cuDriverGetVersion, version, (int *version))                                                      \
  X(cuDeviceGetCount, count, (int *n))                                                                \
  X(cuDeviceGet, device, (int *device, int i))                                                        \
  X(cuDeviceGetName, device_name, (char *name, int n, int device))                                    \
  X(cuDeviceGetAttribute, attribute, (int *value, int which, int device))                             \
  X(cuDevicePrimaryCtxRetain, retain, (gq_cucontext *context, int device))                            \
  X(cuCtxSetCurrent, current, (gq_cucontext context))                                                 \
  X(cuMemGetInfo_v2, memory, (size_t *left, size_t *all))                                             \
  X(cuMemAlloc_v2, allocate, (gq_u64 *at, size_t bytes))                                              \
  X(cuMemFree_v2, release, (gq_u64 at))                                                               \
  X(cuMemAllocHost_v2, host_allocate, (void **at, size_t bytes))                                      \
  X(cuMemcpyHtoDAsync_v2, there, (gq_u64 to, const void *from, size_t bytes, gq_custream s))          \
  X(cuMemcpyDtoHAsync_v2, back, (void *to, gq_u64 from, size_t bytes, gq_custream s))                 \
  X(cuMemcpyDtoDAsync_v2, within, (gq_u64 to, gq_u64 from, size_t bytes, gq_custream s))              \
  X(cuMemsetD8Async, set, (gq_u64 to, unsigned char byte, size_t n, gq_custream s))                   \
  X(cuStreamCreate, stream, (gq_custream *s, unsigned flags))                                         \
  X(cuStreamSynchronize, wait, (gq_custream s))                                                       \
  X(cuModuleLoadData, load, (gq_cumodule *m, const void *image))                                      \
  X(cuModuleUnload, unload, (gq_cumodule m))                                                          \
  X(cuModuleGetFunction, function, (gq_cufunction *f, gq_cumodule m, const char *name))               \
  X(cuFuncSetAttribute, set_attribute, (gq_cufunction f, int which, int value))                       \
  X(cuOccupancyMaxActiveBlocksPerMultiprocessor, occupancy, (int *n, gq_cufunction f, int threads, size_t shared)) \
  X(cuLaunchKernel, launch, (gq_cufunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, \
                             unsigned bz, unsigned shared, gq_custream s, void **params, void **extra)) \
  X(cuStreamBeginCapture_v2, capture, (gq_custream s, int mode))                                      \
  X(cuStreamEndCapture, captured, (gq_custream s, gq_cugraph *g))                                     \
  X(cuGraphInstantiateWithFlags, instantiate, (gq_cugraph_exec *e, gq_cugraph g, unsigned long long flags)) \
  X(cuGraphLaunch, graph, (gq_cugraph_exec e, gq_custream s))                                         \
  X(cuGraphDestroy, capture_free, (gq_cugraph g))                                                     \
  X(cuGraphExecDestroy, graph_free, (gq_cugraph_exec e))                                              \
  X(cuGetErrorString, text, (int error, const char **text))

/* each returns an nvrtcResult */
#define GQ_NVRTC(X)                                                                                   \
  X(nvrtcVersion, version, (int *major, int *minor))                                                  \
  X(nvrtcCreateProgram, create, (gq_nvrtc *p, const char *text, const char *name, int n, const char *const *headers, \
                                 const char *const *names))                                           \
  X(nvrtcCompileProgram, compile, (gq_nvrtc p, int n, const char *const *options))                    \
  X(nvrtcGetCUBINSize, size, (gq_nvrtc p, size_t *bytes))                                             \
  X(nvrtcGetCUBIN, get, (gq_nvrtc p, char *image))                                                    \
  X(nvrtcGetProgramLogSize, log_size, (gq_nvrtc p, size_t *bytes))                                    \
  X(nvrtcGetProgramLog, log, (gq_nvrtc p, char *text))                                                \
  X(nvrtcDestroyProgram, destroy, (gq_nvrtc *p))

enum { GQ_BLAS_F32 = 0, GQ_BLAS_F64 = 1 };                                           /* cudaDataType */
enum { GQ_BLAS_BY_F32 = 68, GQ_BLAS_BY_F64 = 70, GQ_BLAS_BY_TF32 = 77 };            /* cublasComputeType_t */
/* attributes: is the first operand turned, and behind it the second; of layouts; of preferences, four alignments */
enum { GQ_BLAS_TURNED = 3, GQ_BLAS_BATCHES = 5, GQ_BLAS_APART = 6, GQ_BLAS_SCHEMES = 3, GQ_BLAS_ALIGNMENT = 5 };

/* each returns a cublasStatus_t */
#define GQ_BLAS(X)                                                                                    \
  X(cublasLtCreate, create, (gq_blas_handle *h))                                                      \
  X(cublasLtMatmulDescCreate, desc, (gq_blas_desc *d, int compute, int scale))                        \
  X(cublasLtMatmulDescSetAttribute, desc_set, (gq_blas_desc d, int which, const void *value, size_t bytes)) \
  X(cublasLtMatrixLayoutCreate, layout, (gq_blas_layout *x, int type, uint64_t rows, uint64_t cols, int64_t apart)) \
  X(cublasLtMatrixLayoutSetAttribute, layout_set, (gq_blas_layout x, int which, const void *value, size_t bytes)) \
  X(cublasLtMatmulPreferenceCreate, preference, (gq_blas_preference *p))                              \
  X(cublasLtMatmulPreferenceSetAttribute, preference_set, (gq_blas_preference p, int which, const void *value, \
                                                           size_t bytes))                             \
  X(cublasLtMatmulPreferenceDestroy, preference_free, (gq_blas_preference p))                         \
  X(cublasLtMatmulAlgoGetHeuristic, choose, (gq_blas_handle h, gq_blas_desc d, gq_blas_layout x, gq_blas_layout y, \
                                             gq_blas_layout c, gq_blas_layout to, gq_blas_preference p, int most, \
                                             gq_blas_choice *out, int *n))                            \
  X(cublasLtMatmul, product, (gq_blas_handle h, gq_blas_desc d, const void *one, const void *px, gq_blas_layout x, \
                              const void *py, gq_blas_layout y, const void *add, const void *pc, gq_blas_layout c, \
                              void *to, gq_blas_layout c1, const gq_blas_algo *algo, void *room, size_t bytes, \
                              gq_custream s))

#define GQ_API_FIELD(symbol, name, parameters) int (*name) parameters;
typedef struct gq_driver { GQ_DRIVER(GQ_API_FIELD) } gq_driver;
typedef struct gq_compiler_api { GQ_NVRTC(GQ_API_FIELD) } gq_compiler_api;
typedef struct gq_blas_api { GQ_BLAS(GQ_API_FIELD) } gq_blas_api;
#undef GQ_API_FIELD

extern gq_driver gq_cu;
extern gq_compiler_api gq_rtc;
extern gq_blas_api gq_blas;

int gq_api_open(void);        /* GQ_EIO names the library that is missing */
int gq_api_compiler(void);    /* that alone */

#endif
