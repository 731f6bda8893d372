/*
** status.c -- status codes by name, and the text of the last failure of each thread.
*/
#include "base.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

typedef struct status_row {
  const char *name, *hint;
} status_row;

static const status_row rows[GQ_NSTATUS] = {
#define GQ_STATUS(code, name, hint) { name, hint },
#include "status.def"
#undef GQ_STATUS
};

static __thread char message[1024];
static __thread int failed;

static const status_row *row(int code) {
  static const status_row unknown = { "unknown", "" };
  return code >= 0 && code < GQ_NSTATUS ? &rows[code] : &unknown;
}

const char *gq_status_name(int code) { return row(code)->name; }
const char *gq_status_hint(int code) { return row(code)->hint; }
const char *gq_message(void) { return message; }
int gq_failed(void) { return failed; }

int gq_fail(int code, const char *fmt, ...) {
  char text[sizeof message]; /* an argument may be gq_message() itself */
  va_list args;
  va_start(args, fmt);
  vsnprintf(text, sizeof text, fmt, args);
  va_end(args);
  const char *hint = gq_status_hint(code);
  size_t n = strlen(text), room = sizeof message - 1;
  memcpy(message, text, n + 1);
  failed = code;
  if (*hint && !strstr(text, hint) && n + strlen(hint) + 2 <= room)
    snprintf(message + n, sizeof message - n, "; %s", hint);
  return code;
}

static __thread int later;
static __thread char later_text[sizeof message];

void gq_fail_later(int code, const char *text) {
  if (later != GQ_OK) return;
  later = code;
  snprintf(later_text, sizeof later_text, "%s", text);
}

int gq_pending(void) {
  int code = later;
  later = GQ_OK;
  return code == GQ_OK ? GQ_OK : gq_fail(code, "%s", later_text);
}

int gq_nomem(size_t bytes) {
  return gq_fail(GQ_ENOMEM, "out of memory: %zu bytes asked for, %zu alive", bytes, gq_live_bytes());
}

double gq_clock(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
