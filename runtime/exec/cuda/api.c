/*
** api.c -- NVIDIA's libraries, opened by name.
*/
#include "api.h"
#include "core.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NEWEST = 13 }; /* of CUDA's versions whose libraries are known here */

gq_driver gq_cu;
gq_compiler_api gq_rtc;
gq_blas_api gq_blas;

typedef struct symbol {
  const char *name;
  size_t at; /* of the pointer */
} symbol;

#define DRIVER(symbol, name, parameters) { #symbol, offsetof(gq_driver, name) },
#define NVRTC(symbol, name, parameters) { #symbol, offsetof(gq_compiler_api, name) },
#define BLAS(symbol, name, parameters) { #symbol, offsetof(gq_blas_api, name) },
static const symbol driver_symbols[] = { GQ_DRIVER(DRIVER){ NULL, 0 } };
static const symbol compiler_symbols[] = { GQ_NVRTC(NVRTC){ NULL, 0 } };
static const symbol blas_symbols[] = { GQ_BLAS(BLAS){ NULL, 0 } };

static int take(void *library, const char *file, const symbol *s, void *into) {
  for (; s->name; s++) {
    void *f = dlsym(library, s->name);
    if (!f) return gq_fail(GQ_EIO, "%s has no %s: it is older than CUDA 12", file, s->name);
    *(void **)((char *)into + s->at) = f;
  }
  return GQ_OK;
}

/* The first of the names that is there; $GQ_CUDA_LIBS is a folder that is asked first. */
static void *open_library(const char *const *names, char *found, size_t n) {
  const char *folder = getenv("GQ_CUDA_LIBS");
  void *library = NULL;
  for (int i = 0; folder && names[i] && !library; i++) {
    snprintf(found, n, "%s/%s", folder, names[i]);
    library = dlopen(found, RTLD_NOW | RTLD_LOCAL);
  }
  for (int i = 0; names[i] && !library; i++) {
    snprintf(found, n, "%s", names[i]);
    library = dlopen(found, RTLD_NOW | RTLD_LOCAL);
  }
  return library;
}

/* One that comes with the toolkit, of CUDA `newest` at most: a driver runs nothing of a later one. */
static int open_tool(const char *const *names, int newest, const symbol *symbols, void *into,
                     const char *without) {
  char found[512];
  if (newest < NEWEST) names++;
  void *library = open_library(names, found, sizeof found);
  if (library) return take(library, found, symbols, into);
  return gq_fail(
    GQ_EIO,
    "%s%s is missing: it comes with the CUDA toolkit; $GQ_CUDA_LIBS may name the folder that has it%s",
    names[0], newest < NEWEST ? ", which the driver wants," : " or .12", without);
}

/* NVRTC asks for its other half by name alone, which is found in no folder that the loader does not know: there is one
** of that name once it is open. */
static void open_builtins(void) {
  const char *folder = getenv("GQ_CUDA_LIBS");
  char path[512];
  int major, minor;
  if (folder && gq_rtc.version(&major, &minor) == 0 &&
      snprintf(path, sizeof path, "%s/libnvrtc-builtins.so.%d.%d", folder, major, minor) < (int)sizeof path)
    dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

static int open_compiler(int newest) {
  static const char *const compilers[] = { "libnvrtc.so.13", "libnvrtc.so.12", NULL };
  GQ_TRY(open_tool(compilers, newest, compiler_symbols, &gq_rtc, ""));
  open_builtins();
  return GQ_OK;
}

int gq_api_compiler(void) { return open_compiler(NEWEST); }

int gq_api_open(void) {
  static const char *const drivers[] = { "libcuda.so.1", NULL };
  static const char *const products[] = { "libcublasLt.so.13", "libcublasLt.so.12", NULL };
  const char *by = getenv("GQ_CUDA_PRODUCTS");
  char found[512];
  int version = 0;
  void *driver = open_library(drivers, found, sizeof found);
  if (!driver) return gq_fail(GQ_EIO, "libcuda.so.1 is missing: NVIDIA's driver is not installed");
  GQ_TRY(take(driver, found, driver_symbols, &gq_cu));
  int error = gq_cu.version(&version), newest = version / 1000;
  if (error) return gq_fail(GQ_EIO, "cuda: cuDriverGetVersion fails (error %d)", error);
  GQ_TRY(open_compiler(newest));
  if (by && strcmp(by, "own") == 0) return GQ_OK;
  return open_tool(products, newest, blas_symbols, &gq_blas, ", and GQ_CUDA_PRODUCTS=own does without");
}
