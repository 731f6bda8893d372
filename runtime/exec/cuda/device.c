/*
** device.c -- the device: opening it, and what becomes of errors.
*/
#include "cuda.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

gq_cuda_device gq_cuda;
bool gq_cuda_poisons, gq_cuda_busy;
int (*gq_cuda_before)(void);
_Thread_local gq_custream gq_cuda_capturing;

static gq_cucontext context;
static bool open, forked;
static char lost[256]; /* why no call helps any more */

/* CUDA_ERROR_NOT_SUPPORTED, and those of captures. */
bool gq_cuda_uncaptured(int error) { return error == 801 || (error >= 900 && error <= 908); }

/* Errors of kernels stay with the context: each call that works has them from then on. Others are of their call alone. */
static bool stays(int error) {
  if (!open || gq_cuda_capturing || gq_cuda_uncaptured(error)) return false;
  int now = gq_cu.wait(gq_cuda.stream);
  return now && now != GQ_CU_NO_MEMORY && !gq_cuda_uncaptured(now);
}

int gq_cuda_check(int error, const char *what) {
  const char *text = NULL;
  if (error == 0) return GQ_OK;
  if (gq_cu.text(error, &text) != 0 || !text) text = "unknown error";
  if (stays(error)) snprintf(lost, sizeof lost, "%s: %s", what, text);
  if (error == GQ_CU_NO_MEMORY) return gq_fail(GQ_ENOMEM, "cuda: %s: out of memory on the device", what);
  return gq_fail(GQ_ESTATE, "cuda: %s: %s (error %d)", what, text, error);
}

void gq_cuda_later(int status) {
  if (status != GQ_OK) gq_fail_later(status, gq_message());
}

int gq_cuda_usable(void) {
  static _Thread_local bool entered;
  if (*lost)
    return gq_fail(GQ_ESTATE, "cuda: the device is lost (%s): tensors on the CPU go on, those on it cannot",
                   lost);
  if (forked)
    return gq_fail(
      GQ_ESTATE, "cuda: this process was forked from one that used the device: use it first after the fork");
  if (entered) return GQ_OK;
  GQ_TRY(gq_cuda_check(gq_cu.current(context), "cuCtxSetCurrent"));
  entered = true;
  return GQ_OK;
}

int gq_cuda_before_all(void) { return gq_cuda_before ? gq_cuda_before() : GQ_OK; }

int gq_cuda_enter(void) {
  GQ_TRY(gq_cuda_usable());
  gq_cuda_busy = true;
  return gq_cuda_capturing ? GQ_OK : gq_cuda_before_all();
}

static void in_child(void) { forked = true; }

static int attribute(int device, int which, int *value) {
  return gq_cuda_check(gq_cu.attribute(value, which, device), "cuDeviceGetAttribute");
}

int gq_cuda_start(void) {
  int n = 0, device, shared = 0;
  GQ_TRY(gq_api_open());
  int error = gq_cu.init(0); /* as a driver without a device does, too */
  if (error != GQ_CU_NO_DEVICE) GQ_TRY(gq_cuda_check(error, "cuInit"));
  if (!error) GQ_TRY(gq_cuda_check(gq_cu.count(&n), "cuDeviceGetCount"));
  if (n == 0) return gq_fail(GQ_EIO, "cuda: the driver finds no device");
  GQ_TRY(gq_cuda_check(gq_cu.device(&device, 0), "cuDeviceGet"));
  GQ_TRY(gq_cuda_check(gq_cu.device_name(gq_cuda.name, sizeof gq_cuda.name, device), "cuDeviceGetName"));
  GQ_TRY(attribute(device, GQ_CU_MAJOR, &gq_cuda.major));
  GQ_TRY(attribute(device, GQ_CU_MINOR, &gq_cuda.minor));
  GQ_TRY(attribute(device, GQ_CU_MULTIPROCESSORS, &gq_cuda.processors));
  GQ_TRY(attribute(device, GQ_CU_SHARED_MOST, &shared));
  gq_cuda.shared = (size_t)shared;
  if (gq_cuda.major < 8)
    return gq_fail(GQ_EUNSUPPORTED, "cuda: %s has compute capability %d.%d, and 8.0 is the least",
                   gq_cuda.name, gq_cuda.major, gq_cuda.minor);
  GQ_TRY(gq_cuda_check(gq_cu.retain(&context, device), "cuDevicePrimaryCtxRetain"));
  GQ_TRY(gq_cuda_check(gq_cu.current(context), "cuCtxSetCurrent"));
  GQ_TRY(gq_cuda_check(gq_cu.stream(&gq_cuda.stream, GQ_CU_NON_BLOCKING), "cuStreamCreate"));
  gq_cuda_poisons = getenv("GQ_CUDA_POISON");
  pthread_atfork(NULL, NULL, in_child);
  open = true;
  return GQ_OK;
}
