/*
** libnvrtc.c -- libnvrtc.so.13 for the emulator: a C compiler makes a shared object of a kernel's text, with the words of
** prelude.h for the host.
**   GQ_EMU     how threads run (emu.h): loops or fibers are compiled in
**   GQ_EMU_CC  a compiler in place of tcc, as "gcc -O1 -ffp-contract=off -fsanitize=address"
**   GQ_EMU_DUMP a folder for the texts, so that NVIDIA's compilers may be asked what they say
**   GQ_EMU_BUILTINS  nothing compiles but with libnvrtc-builtins.so.VERSION, which is asked for by its name
**   GQ_EMU_BARRIER a line: its barrier is left out of kernels of attempts ($GQ_EMU_KERNEL: of lanes or direct)
*/
#define _GNU_SOURCE
#include "../../runtime/exec/cuda/api.h"

#include <dlfcn.h>
#include <elf.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, OUT_OF_MEMORY = 1, COMPILATION = 6, BUILTINS = 7 };
enum { CONSTANT_MOST = 64 << 10 };

typedef struct _nvrtcProgram {
  char *text, *image, *log;
  size_t bytes;
} program;

static bool races(void) { return getenv("GQ_EMU") && strcmp(getenv("GQ_EMU"), "races") == 0; }

static const char *compiler(void) {
  return getenv("GQ_EMU_CC") ? getenv("GQ_EMU_CC")
         : races()           ? "gcc -O1 -ffp-contract=off -fsanitize=thread -nodefaultlibs" /* races.c */
                             : "tcc";
}

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

static void leave_out(char *text) {
  const char *name = getenv("GQ_EMU_KERNEL"), *line = getenv("GQ_EMU_BARRIER");
  char entry[48];
  snprintf(entry, sizeof entry, "GQ_ENTRY(%s,", name ? name : "attempt");
  if (!line || !strstr(text, entry)) return;
  for (int i = 1; text && i < atoi(line); i++) text = strchr(text, '\n') ? strchr(text, '\n') + 1 : NULL;
  char *at = text ? strstr(text, "GQ_SYNC") : NULL;
  if (at && at < strchr(text, '\n')) memset(at, ' ', strlen("GQ_SYNC"));
  char *step = text ? strstr(text, "GQ_BARRIER") : NULL;
  if (step && step < strchr(text, '\n')) memcpy(step, "-2        ", strlen("GQ_BARRIER"));
}

static Elf64_Shdr header_of(const char *so, const Elf64_Ehdr *h, int i) { /* tcc does not align them */
  Elf64_Shdr s;
  memcpy(&s, so + h->e_shoff + (size_t)i * sizeof s, sizeof s);
  return s;
}

/* Bytes of a section of a shared object. */
static size_t section_bytes(const char *so, const char *name) {
  Elf64_Ehdr h;
  memcpy(&h, so, sizeof h);
  for (int i = 0; i < h.e_shnum; i++) {
    Elf64_Shdr s = header_of(so, &h, i);
    if (strcmp(so + header_of(so, &h, h.e_shstrndx).sh_offset + s.sh_name, name) == 0) return s.sh_size;
  }
  return 0;
}

static bool has_builtins(gq_nvrtc p) {
  char name[64], log[128];
  int major, minor;
  nvrtcVersion(&major, &minor);
  snprintf(name, sizeof name, "libnvrtc-builtins.so.%d.%d", major, minor);
  if (!getenv("GQ_EMU_BUILTINS") || dlopen(name, RTLD_NOW | RTLD_LOCAL)) return true;
  snprintf(log, sizeof log, "nvrtc: error: failed to open %s.\n", name);
  p->log = strdup(log);
  return false;
}

int nvrtcCompileProgram(gq_nvrtc p, int n, const char *const *options) {
  char path[64] = "/tmp/gq_kernel_XXXXXX", so[80], log[80], command[640];
  if (!has_builtins(p)) return BUILTINS;
  int file = mkstemp(path);
  leave_out(p->text);
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
  if (p->image && section_bytes(p->image + 16, ".gq_constant") > CONSTANT_MOST) {
    free(p->image), free(p->log);
    p->image = NULL, p->log = strdup("ptxas error   : File uses too much global constant data\n");
  }
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
