/*
** keep.c -- keep MAJOR MINOR TEXTS...: kernels compiled by NVIDIA's compiler for a device that is not here, into
** $GQ_CUDA_CACHE, for scripts/gpu_bundle. The texts are those that libnvrtc.c wrote to $GQ_EMU_DUMP.
*/
#include "../../runtime/exec/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>

static char *read_text(const char *path) {
  FILE *f = fopen(path, "rb");
  if (!f || fseek(f, 0, SEEK_END)) return NULL;
  size_t n = (size_t)ftell(f);
  rewind(f);
  char *text = calloc(1, n + 1);
  if (text && fread(text, 1, n, f) != n) free(text), text = NULL;
  fclose(f);
  return text;
}

int main(int argc, char **argv) {
  int failed = 0;
  if (argc < 3) return fprintf(stderr, "keep MAJOR MINOR TEXTS...\n"), 2;
  gq_cuda.major = atoi(argv[1]), gq_cuda.minor = atoi(argv[2]);
  if (gq_api_compiler() != GQ_OK) return fprintf(stderr, "keep: %s\n", gq_message()), 1;
  for (int i = 3; i < argc; i++) {
    char *text = read_text(argv[i]);
    if (text && gq_cuda_keep(text) == GQ_OK) printf("%s\n", argv[i]);
    else fprintf(stderr, "keep: %s: %s\n", argv[i], text ? gq_message() : "cannot be read"), failed = 1;
    free(text);
  }
  return failed;
}
