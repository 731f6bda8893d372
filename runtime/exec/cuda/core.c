/*
** core.c -- the runtime's functions under their own names.
*/
#include "core.h"

#include <stdarg.h>
#include <stdio.h>

const gq_core_calls *gq_core;

#define CALL(result, name, parameters, arguments) \
  result name parameters { return gq_core->name arguments; }
GQ_CORE(CALL)
#undef CALL

int gq_fail(int code, const char *fmt, ...) {
  char text[1024];
  va_list args;
  va_start(args, fmt);
  vsnprintf(text, sizeof text, fmt, args);
  va_end(args);
  return gq_core->gq_fail(code, "%s", text);
}

void gq_fail_later(int code, const char *text) { gq_core->gq_fail_later(code, text); }
