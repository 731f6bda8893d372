/*
** library.c -- gq_cuda.so, opened at the first use of its device. It lies beside what holds this code (gqlua, gq.so, a
** program that carries the runtime), else where the loader finds it; $GQ_CUDA names another.
*/
#define _GNU_SOURCE /* dladdr */
#include "cuda/core.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool gq_allow_tf32;

static const gq_core_calls calls = {
#define ROW(result, name, parameters, arguments) .name = name,
  GQ_CORE(ROW)
#undef ROW
    .gq_fail = gq_fail,
  .gq_fail_later = gq_fail_later,
  .ops = gq_ops,
  .tf32 = &gq_allow_tf32,
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static const gq_backend *opened;
static char missing[1024];

/* Beside the file p, or where `make install` puts it for a program in bin/ and for lib/lua/5.4/gq.so. */
static bool beside(const char *p, char *path, size_t n) {
  static const char *const at[] = { "", "../lib/", "../../" };
  const char *slash = strrchr(p, '/');
  for (int i = 0; slash && i < 3; i++)
    if (snprintf(path, n, "%.*s/%sgq_cuda.so", (int)(slash - p), p, at[i]) < (int)n &&
        access(path, R_OK) == 0)
      return true;
  return false;
}

static void *open_at(const char *path, const char **why) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) *why = dlerror();
  return library;
}

static void *open_library(const char **why) {
  const char *given = getenv("GQ_CUDA");
  char path[1024], program[1024];
  Dl_info here;
  if (given && *given) return open_at(given, why);
  ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
  program[n > 0 ? n : 0] = 0;
  if (dladdr(&calls, &here) && here.dli_fname && beside(here.dli_fname, path, sizeof path))
    return open_at(path, why);
  if (beside(program, path, sizeof path)) return open_at(path, why);
  return open_at("gq_cuda.so", why);
}

static void open_cuda(void) {
  const char *why = "";
  void *library = open_library(&why);
  gq_cuda_opener *open = library ? (gq_cuda_opener *)(uintptr_t)dlsym(library, "gq_cuda_open") : NULL;
  if (open) opened = open(&calls, GQ_CORE_SIZES);
  if (opened) return;
  if (open) snprintf(missing, sizeof missing, "%s", gq_message());
  else snprintf(missing, sizeof missing, "gq_cuda.so cannot be opened (%s): `make cuda` builds it", why);
}

const gq_backend *gq_cuda_backend(void) {
  pthread_once(&once, open_cuda);
  return opened;
}

const char *gq_cuda_missing(void) { return gq_cuda_backend() ? "" : missing; }
