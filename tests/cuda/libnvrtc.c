/*
** libnvrtc.c -- libnvrtc.so.13 for the emulator: a C compiler makes a shared object of a kernel's text, with the words of
** prelude.h for the host.
**   GQ_EMU     how threads run (emu.h): loops or fibers are compiled in
**   GQ_EMU_CC  a compiler in place of tcc, as "gcc -O1 -ffp-contract=off -fsanitize=address"
**   GQ_EMU_DUMP a folder for the texts, so that NVIDIA's compilers may be asked what they say
**   GQ_EMU_BARRIER n: the n-th barrier of a kernel of attempts ($GQ_EMU_KERNEL: of fleet or home) is left out; where
**              there are fewer, it does not compile
*/
#define _GNU_SOURCE
#include "../../runtime/exec/cuda/api.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, OUT_OF_MEMORY = 1, COMPILATION = 6 };

typedef struct _nvrtcProgram {
  char *text, *image, *log;
  size_t bytes;
} program;

static const char *compiler(void) { return getenv("GQ_EMU_CC") ? getenv("GQ_EMU_CC") : "tcc"; }

static const char *way(void) {
  const char *w = getenv("GQ_EMU");
  if (!w || strcmp(w, "loop") == 0) return "GQ_LOOP";
  return strcmp(w, "backwards") == 0 ? "GQ_BACKWARDS" : "GQ_FIBER";
}

/* Of what makes the same text another image: caches tell versions apart. */
int nvrtcVersion(int *major, int *minor) {
  unsigned h = 5381;
  for (const char *c = compiler(); *c; c++) h = h * 33 + (unsigned char)*c;
  for (const char *c = way(); *c; c++) h = h * 33 + (unsigned char)*c;
  *major = 13, *minor = (int)(h % 1000000);
  return OK;
}

int nvrtcCreateProgram(gq_nvrtc *p, const char *text, const char *name, int n, const char *const *headers,
                       const char *const *names) {
  *p = calloc(1, sizeof **p);
  if (*p) (*p)->text = strdup(text);
  return *p && (*p)->text ? OK : OUT_OF_MEMORY;
}

static char *read_all(const char *path, size_t before, size_t *n) {
  FILE *f = fopen(path, "rb");
  char *bytes = NULL;
  if (!f) return NULL;
  fseek(f, 0, SEEK_END);
  *n = (size_t)ftell(f);
  rewind(f);
  bytes = calloc(1, before + *n + 1);
  if (bytes && fread(bytes + before, 1, *n, f) != *n) free(bytes), bytes = NULL;
  fclose(f);
  return bytes;
}

static void dump(const char *text) {
  static int n;
  char path[512];
  if (!getenv("GQ_EMU_DUMP")) return;
  snprintf(path, sizeof path, "%s/%d_%d.cu", getenv("GQ_EMU_DUMP"), (int)getpid(), n++);
  FILE *f = fopen(path, "w");
  if (f) fputs(text, f), fclose(f);
}

/* Functions whose barriers count, from the first to the last of them, and then the kernel itself. */
static const struct {
  const char *kernel, *first, *last;
} barriers[] = { { "attempt", "void gq_land(", "void gq_land(" },
                 { "fleet", "void gq_crew_begin(", "void gq_crew_move(" },
                 { "home", "void gq_crew_begin(", "void gq_home_start(" } };

/* false: there are fewer. */
static bool leave_out(char *text) {
  const char *name = getenv("GQ_EMU_KERNEL");
  int n = getenv("GQ_EMU_BARRIER") ? atoi(getenv("GQ_EMU_BARRIER")) : 0, which = 0;
  char entry[48];
  while (name && which < 2 && strcmp(barriers[which].kernel, name) != 0) which++;
  snprintf(entry, sizeof entry, "GQ_ENTRY(%s,", barriers[which].kernel);
  char *kernel = strstr(text, entry), *at = kernel ? strstr(text, barriers[which].first) : NULL;
  char *end = kernel ? strstr(strstr(text, barriers[which].last), "\n}\n") : NULL;
  for (int i = 0; at && i < n; i++) {
    at = strstr(at + 1, "GQ_SYNC");
    if (at > end && end) at = strstr(kernel, "GQ_SYNC"), end = NULL;
  }
  if (at && n) memset(at, ' ', strlen("GQ_SYNC"));
  return at || !kernel;
}

int nvrtcCompileProgram(gq_nvrtc p, int n, const char *const *options) {
  char path[64] = "/tmp/gq_kernel_XXXXXX", so[80], log[80], command[640];
  int file = mkstemp(path);
  if (!leave_out(p->text)) return COMPILATION;
  dump(p->text);
  if (file < 0) return OUT_OF_MEMORY;
  close(file);
  snprintf(so, sizeof so, "%s.so", path);
  snprintf(log, sizeof log, "%s.log", path);
  snprintf(command, sizeof command, "%s -D%s -w -x c -fPIC -shared -o %s - -lm 2>%s", compiler(), way(), so,
           log);
  FILE *f = popen(command, "w");
  bool ok = f && fputs(p->text, f) >= 0;
  ok = f && pclose(f) == 0 && ok;
  size_t bytes = 0, letters;
  p->log = read_all(log, 0, &letters);
  if (ok) p->image = read_all(so, 16, &bytes);
  if (p->image)
    memcpy(p->image, "GQEMU", 5), memcpy(p->image + 8, &bytes, sizeof bytes), p->bytes = bytes + 16;
  unlink(path), unlink(so), unlink(log);
  return p->image ? OK : COMPILATION;
}

int nvrtcGetCUBINSize(gq_nvrtc p, size_t *n) {
  *n = p->bytes;
  return OK;
}

int nvrtcGetCUBIN(gq_nvrtc p, char *image) {
  memcpy(image, p->image, p->bytes);
  return OK;
}

int nvrtcGetProgramLogSize(gq_nvrtc p, size_t *n) {
  *n = p->log ? strlen(p->log) + 1 : 1;
  return OK;
}

int nvrtcGetProgramLog(gq_nvrtc p, char *text) {
  strcpy(text, p->log ? p->log : "");
  return OK;
}

int nvrtcDestroyProgram(gq_nvrtc *p) {
  free((*p)->text), free((*p)->image), free((*p)->log), free(*p);
  *p = NULL;
  return OK;
}
