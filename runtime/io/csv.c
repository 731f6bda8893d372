/*
** csv.c -- numbers in text with separators: cells may be quoted, missing, or dates. Numbers of up to 19 digits and a
** small exponent are exact by one product or quotient (Clinger, How to read floating point numbers accurately, 1990);
** strtod reads the others.
*/
#include "io.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- cells ---- */

typedef struct scanner {
  const char *p, *end;
  char separator;
} scanner;

/* The next cell of a record, without quotes and blanks around it; true: the record goes on behind it. A quoted cell
** with doubled quotes is left as it is, between its outer quotes: it is no number, and names are mended in Lua. */
static bool next_cell(scanner *s, const char **from, const char **to) {
  while (s->p < s->end && (*s->p == ' ' || (*s->p == '\t' && s->separator != '\t'))) s->p++;
  const char *p = s->p;
  if (p < s->end && *p == '"') {
    *from = ++p;
    while (p < s->end && (*p != '"' || (p + 1 < s->end && p[1] == '"' && p++))) p++;
    *to = p;
    while (p < s->end && *p != s->separator && *p != '\n') p++;
  } else {
    *from = p;
    while (p < s->end && *p != s->separator && *p != '\n') p++;
    *to = p;
    while (*to > *from && ((*to)[-1] == ' ' || (*to)[-1] == '\r' || (*to)[-1] == '\t')) --*to;
  }
  bool more = p < s->end && *p == s->separator;
  if (more && s->separator == ' ') { /* several are one, and none ends a record */
    while (p + 1 < s->end && p[1] == ' ') p++;
    while (p + 1 < s->end && p[1] == '\r') p++;
    more = p + 1 < s->end && p[1] != '\n';
    if (!more && p + 1 < s->end) p++;
  }
  s->p = p < s->end ? p + 1 : p;
  return more;
}

static const double tens[] = { 1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                               1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22 };

static bool is_digit(const char *p, const char *to) { return p < to && *p >= '0' && *p <= '9'; }

static bool slowly(const char *from, const char *to, double *x) {
  char text[64], *all = to - from < (long)sizeof text ? text : gq_alloc((size_t)(to - from) + 1), *rest;
  if (!all) return false;
  memcpy(all, from, (size_t)(to - from));
  all[to - from] = '\0';
  *x = strtod(all, &rest);
  bool ok = rest == all + (to - from) && rest != all && !memchr(all, 'x', (size_t)(to - from)) &&
            !memchr(all, 'X', (size_t)(to - from)) && !memchr(all, '(', (size_t)(to - from));
  if (all != text) gq_free(all);
  return ok;
}

static bool quickly(const char *p, const char *to, double *x) {
  uint64_t m = 0;
  int digits = 0, exponent = 0, e = 0;
  bool minus = p < to && *p == '-';
  if (p < to && (*p == '-' || *p == '+')) p++;
  const char *first = p;
  for (; is_digit(p, to); p++) m = m * 10 + (uint64_t)(*p - '0'), digits += m > 0;
  if (p < to && *p == '.')
    for (p++; is_digit(p, to); p++) m = m * 10 + (uint64_t)(*p - '0'), digits += m > 0, exponent--;
  if (p == first || (p == first + 1 && *first == '.') || digits > 19) return false;
  if (p < to && (*p == 'e' || *p == 'E')) {
    bool down = ++p < to && *p == '-';
    if (p < to && (*p == '-' || *p == '+')) p++;
    if (!is_digit(p, to)) return false;
    for (; is_digit(p, to) && e < 1000; p++) e = e * 10 + (*p - '0');
    exponent += down ? -e : e;
  }
  if (p != to || exponent < -22 || exponent > 22 || m > UINT64_C(1) << 53) return false;
  double v = exponent < 0 ? (double)m / tens[-exponent] : (double)m * tens[exponent];
  *x = minus ? -v : v;
  return true;
}

static bool is_missing(const char *from, const char *to) {
  static const char *const words[] = { "", "na", "n/a", "nan", "null", "none", "?", "-" };
  char text[8] = "";
  if (to - from > 7) return false;
  for (int i = 0; i < to - from; i++)
    text[i] = (char)(from[i] >= 'A' && from[i] <= 'Z' ? from[i] + 32 : from[i]);
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    if (strcmp(text, words[i]) == 0) return true;
  return false;
}

static bool field(const char **p, const char *to, int width, int low, int high, int *out) {
  *out = 0;
  for (int i = 0; i < width; i++) {
    if (!is_digit(*p, to)) return false;
    *out = *out * 10 + (*(*p)++ - '0');
  }
  return *out >= low && *out <= high;
}

static bool take(const char **p, const char *to, char c) { return *p < to && *(*p) == c && (++*p, true); }

/* Days since 1970-01-01 (Hinnant, days_from_civil). */
static int64_t days(int y, int m, int d) {
  y -= m <= 2;
  int64_t era = (y >= 0 ? y : y - 399) / 400, yoe = y - era * 400;
  int64_t doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
  return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

/* 2020-01-31, then maybe T or a blank, 12:34, :56, .789, Z: seconds since 1970 in UTC. */
static bool is_date(const char *p, const char *to, double *x) {
  int y, m, d, h = 0, min = 0, s = 0;
  static const int length[] = { 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
  double part = 0, unit = 0.1;
  if (!field(&p, to, 4, 0, 9999, &y) || !take(&p, to, '-') || !field(&p, to, 2, 1, 12, &m) ||
      !take(&p, to, '-') || !field(&p, to, 2, 1, 31, &d) || d > length[m - 1] ||
      (m == 2 && d == 29 && (y % 4 != 0 || (y % 100 == 0 && y % 400 != 0))))
    return false;
  if (p < to) {
    if ((*p != 'T' && *p != ' ') || (++p, !field(&p, to, 2, 0, 24, &h)) || !take(&p, to, ':') ||
        !field(&p, to, 2, 0, 59, &min))
      return false;
    if (take(&p, to, ':') && !field(&p, to, 2, 0, 60, &s)) return false;
    if (take(&p, to, '.'))
      for (; is_digit(p, to); p++, unit /= 10) part += unit * (*p - '0');
    take(&p, to, 'Z');
  }
  *x = (double)(days(y, m, d) * 86400 + h * 3600 + min * 60 + s) + part;
  return p == to;
}

gq_cell gq_csv_cell(const char *from, const char *to, double *x) {
  if (quickly(from, to, x)) return GQ_CELL_NUMBER;
  if (is_missing(from, to)) return *x = NAN, GQ_CELL_MISSING;
  if (is_date(from, to, x)) return GQ_CELL_DATE;
  return slowly(from, to, x) ? GQ_CELL_NUMBER : GQ_CELL_TEXT;
}

size_t gq_csv_next(const char *s, size_t n, size_t at, char separator, const char **from, const char **to,
                   bool *more) {
  scanner c = { s + at, s + n, separator };
  *more = next_cell(&c, from, to);
  return (size_t)(c.p - s);
}

/* ---- records ---- */

static bool blank(const char *p, const char *end) {
  while (p < end && (*p == ' ' || *p == '\r' || *p == '\t')) p++;
  return p == end || *p == '\n';
}

static int bad_cell(int64_t line, int column, const char *from, const char *to) {
  int n = to - from > 40 ? 40 : (int)(to - from);
  return gq_fail(GQ_EFORMAT,
                 "line %lld: a number expected, got \"%.*s\" in column %d; columns = {...} leaves others out",
                 (long long)line, n, from, column);
}

static int64_t lines_between(const char *from, const char *to) {
  int64_t n = 0;
  while (from < to && (from = memchr(from, '\n', (size_t)(to - from)))) n++, from++;
  return n;
}

/* One record into row[]; *p moves behind it. */
static int read_record(gq_csv *c, scanner *s, int64_t *line, double *row) {
  const char *from, *to, *start = s->p;
  bool more = true;
  int k = 0;
  double x;
  for (; more; k++) {
    more = next_cell(s, &from, &to);
    int place = k >= c->columns ? -1 : c->place ? c->place[k] : k;
    if (place < 0) continue;
    gq_cell kind = gq_csv_cell(from, to, &x);
    if (kind == GQ_CELL_TEXT) return bad_cell(*line, k + 1, from, to);
    c->dates |= kind == GQ_CELL_DATE, c->missing += kind == GQ_CELL_MISSING;
    row[place] = x;
  }
  if (k != c->columns)
    return gq_fail(GQ_EFORMAT, "line %lld has %d numbers, the first has %d", (long long)*line, k, c->columns);
  *line += lines_between(start, s->p);
  return GQ_OK;
}

int gq_csv_numbers(gq_csv *c, const char *bytes, size_t n, size_t at, int64_t line, double **out,
                   int64_t *rows) {
  scanner s = { bytes + at, bytes + n, c->separator };
  size_t wide = (size_t)(c->wanted ? c->wanted : 1), room = 0, used = 0;
  *out = NULL, *rows = 0;
  int status = GQ_OK;
  while (s.p < s.end && status == GQ_OK) {
    if (blank(s.p, s.end)) {
      const char *newline = memchr(s.p, '\n', (size_t)(s.end - s.p));
      s.p = newline ? newline + 1 : s.end, line++;
      continue;
    }
    if (used + wide > room) {
      room = room ? 2 * room : 1024 * wide;
      double *more = gq_realloc(*out, room * sizeof *more);
      if (!more) status = gq_nomem(room * sizeof *more);
      else *out = more;
    }
    if (status == GQ_OK) status = read_record(c, &s, &line, *out + used);
    used += wide, *rows += status == GQ_OK;
  }
  if (status != GQ_OK) gq_free(*out), *out = NULL;
  return status;
}
