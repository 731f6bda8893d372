/*
** text.c -- texts that grow.
*/
#include "base.h"

#include <stdio.h>
#include <string.h>

/* Is there room for n more, and the end? */
static bool room(gq_text *t, size_t n) {
  if (t->failed || t->n + n + 1 <= t->room) return !t->failed;
  size_t more = 2 * (t->n + n) + 1024;
  char *s = gq_realloc(t->s, more);
  t->failed = !s;
  if (s) t->s = s, t->room = more;
  return s;
}

void gq_text_add(gq_text *t, const void *bytes, size_t n) {
  if (!room(t, n)) return;
  if (n) memcpy(t->s + t->n, bytes, n);
  t->n += n, t->s[t->n] = '\0';
}

void gq_text_putv(gq_text *t, const char *fmt, va_list args) {
  va_list twice;
  va_copy(twice, args);
  int n = vsnprintf(NULL, 0, fmt, twice);
  va_end(twice);
  if (n < 0 || !room(t, (size_t)n)) return;
  vsnprintf(t->s + t->n, (size_t)n + 1, fmt, args);
  t->n += (size_t)n;
}

void gq_text_put(gq_text *t, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  gq_text_putv(t, fmt, args);
  va_end(args);
}
