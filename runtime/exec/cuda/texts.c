/*
** texts.c -- texts of kernels: sections of kernels.h, solves.h and solves_back.h, and operations from the formulas of
** ir/ops.def. What float functions compute is vmath.h's, the CPU's own, so that both give the same numbers.
*/
#include "cuda.h"

#include <stdio.h>
#include <string.h>

#define FILE_TEXT(name, path)                                             \
  extern const char name[];                                               \
  __asm__(".section .rodata\n" #name ":\n.incbin \"" path "\"\n.byte 0\n" \
          ".previous\n")
FILE_TEXT(text_prelude, "runtime/exec/cuda/prelude.h");
FILE_TEXT(text_kernels, "runtime/exec/cuda/kernels.h");
FILE_TEXT(text_solves, "runtime/exec/cuda/solves.h");
FILE_TEXT(text_solves_back, "runtime/exec/cuda/solves_back.h");
FILE_TEXT(text_vmath, "runtime/exec/cpu/vmath.h");
FILE_TEXT(text_update, "runtime/exec/cpu/update.h");
FILE_TEXT(text_control, "runtime/method/control.h");
FILE_TEXT(text_trail, "runtime/method/trail.h");
FILE_TEXT(text_loop, "runtime/method/loop.h");
FILE_TEXT(text_lane, "runtime/method/lane.h");
FILE_TEXT(text_normal, "runtime/base/normal.h");
FILE_TEXT(text_bridge, "runtime/base/bridge.h");

const char gq_cuda_dtype[GQ_NDTYPE][16] = { "float", "double", "long long", "unsigned char" };
const char gq_cuda_suffix[GQ_NDTYPE][8] = { "f32", "f64", "i64", "bool" };

void gq_cuda_append(gq_text *t, const char *s) { gq_text_add(t, s, strlen(s)); }

void gq_cuda_append_text(gq_text *t, const gq_text *part) {
  if (part->failed) t->failed = true;
  else if (part->s) gq_cuda_append(t, part->s);
}

/* Files that are sections. */
static const char *file_of(const char *name) {
  static const struct {
    const char *name, *text;
  } files[] = { { "optimisers", text_update }, { "control", text_control }, { "trail", text_trail },
                { "loop", text_loop },         { "lane", text_lane },       { "normal", text_normal },
                { "bridge", text_bridge } };
  for (size_t i = 0; i < sizeof files / sizeof *files; i++)
    if (strcmp(name, files[i].name) == 0) return files[i].text;
  return NULL;
}

/* But for a line that includes another of them, which comes before it. */
static void append_file(gq_text *t, const char *s) {
  const char *include = strstr(s, "#include \"");
  if (include) gq_text_add(t, s, (size_t)(include - s)), s = strchr(include, '\n');
  gq_cuda_append(t, s);
}

static void section(gq_text *t, const char *name) {
  static const char *const texts[] = { text_kernels, text_solves, text_solves_back };
  const char *file = file_of(name), *from = NULL, *to;
  char head[32];
  if (file) {
    append_file(t, file);
    return;
  }
  snprintf(head, sizeof head, "//// %s\n", name);
  for (size_t i = 0; i < sizeof texts / sizeof *texts && !from; i++) from = strstr(texts[i], head);
  if (!from) return;
  to = strstr(from + 5, "\n//// ");
  gq_text_add(t, from, to ? (size_t)(to - from) : strlen(from));
  gq_text_put(t, "\n");
}

void gq_cuda_text(gq_text *t, int threads) {
  gq_text_put(t, "#define GQ_NT %d\n#define GQ_DIM %d\n", threads, GQ_MAXDIM);
  gq_cuda_append(t, text_prelude);
  gq_cuda_append(t, text_vmath);
}

void gq_cuda_names(gq_text *t, gq_dtype d) {
  gq_text_put(t, "#define T %s\n#define N(name) name##_%s\n", gq_cuda_dtype[d], gq_cuda_suffix[d]);
}

void gq_cuda_sections(gq_text *t, const char *const *sections) {
  for (; *sections; sections++) section(t, *sections);
}

/* ---- operations ---- */

typedef struct formula {
  const char *of_float, *of_int, *of_bool;
} formula;

#define U(x) "(gq_u64)" #x
static const formula formulas[GQ_NOP] = {
#define GQ_UNARY(N, n, meta, takes, vjp, jet, f, doc) [GQ_OP_##N] = { .of_float = #f },
#define GQ_BINARY(N, n, meta, takes, vjp, jet, f, doc) [GQ_OP_##N] = { .of_float = #f },
#define GQ_COMPARE(N, n, takes, f, doc) [GQ_OP_##N] = { #f, #f, #f },
#include "../../ir/ops.def"
  [GQ_OP_WHERE] = { "c ? x : y", "c ? x : y", "c ? x : y" },
};

/* Where the plain formula does not do: beyond the range of vmath.h, and other types. */
static const formula others[GQ_NOP] = {
  [GQ_OP_SIN] = { "ABS(x) > TRIG_MAX ? sin((double)x) : SIN(x)", NULL, NULL },
  [GQ_OP_COS] = { "ABS(x) > TRIG_MAX ? cos((double)x) : COS(x)", NULL, NULL },
  [GQ_OP_TAN] = { "ABS(x) > TRIG_MAX ? tan((double)x) : TAN(x)", NULL, NULL },
  [GQ_OP_NEG] = { NULL, "-" U(x), NULL },
  [GQ_OP_ABS] = { NULL, "x < 0 ? -" U(x) " : " U(x), NULL },
  [GQ_OP_SIGN] = { NULL, "(x > 0) - (x < 0)", NULL },
  [GQ_OP_SQUARE] = { NULL, U(x) " * " U(x), NULL },
  [GQ_OP_RELU] = { NULL, "x > 0 ? x : 0", NULL },
  [GQ_OP_ADD] = { NULL, U(x) " + " U(y), NULL },
  [GQ_OP_SUB] = { NULL, U(x) " - " U(y), NULL },
  [GQ_OP_MUL] = { NULL, U(x) " * " U(y), "x & y" },
  [GQ_OP_FLOOR_DIVIDE] = { NULL, /* what would trap: by 0 gives 0, by -1 wraps */
                           "y == 0 ? 0 : y == -1 ? (long long)-" U(
                             x) " : x / y - (x % y != 0 && (x ^ y) < 0)",
                           NULL },
  [GQ_OP_REMAINDER] = { NULL, "y == 0 || y == -1 ? 0 : x % y + (x % y != 0 && (x % y ^ y) < 0 ? y : 0)",
                        NULL },
  [GQ_OP_MAXIMUM] = { NULL, "x > y ? x : y", "x | y" },
  [GQ_OP_MINIMUM] = { NULL, "x < y ? x : y", "x & y" },
};

/* Much code: a phase as one kernel, where it is met again and again, calls it. */
static const bool much[GQ_NOP] = {
  [GQ_OP_EXP] = true,  [GQ_OP_LOG] = true,     [GQ_OP_LOG1P] = true, [GQ_OP_EXPM1] = true,
  [GQ_OP_TANH] = true, [GQ_OP_SIGMOID] = true, [GQ_OP_ATAN] = true,  [GQ_OP_SOFTPLUS] = true,
  [GQ_OP_ERF] = true,  [GQ_OP_POW] = true,
};

static const char *of_type(const formula *f, gq_dtype d) {
  return gq_is_float(d) ? f->of_float : d == GQ_I64 ? f->of_int : f->of_bool;
}

static const char *cast_formula(gq_dtype d, gq_dtype to) {
  if (to == GQ_BOOL) return "x != 0";
  if (to == GQ_I64 && gq_is_float(d)) /* NaN is 0, what is too large stops at the end */
    return "x != x ? 0 : x >= 0x1p63 ? INT64_MAX : x < -0x1p63 ? INT64_MIN : (long long)x";
  return "x";
}

static const char *formula_of(gq_op op, gq_dtype d, gq_dtype to) {
  if (op == GQ_OP_CAST) return cast_formula(d, to);
  const char *f = of_type(&others[op], d);
  return f ? f : of_type(&formulas[op], d);
}

static void put_name(gq_text *t, gq_op op, gq_dtype d, gq_dtype to) {
  gq_text_put(t, "gq_%s_%s_%s", gq_core->ops[op].name, gq_cuda_suffix[d], gq_cuda_suffix[to]);
}

bool gq_cuda_define(gq_text *t, gq_op op, gq_dtype d, gq_dtype to) {
  const char *f = formula_of(op, d, to), *T = gq_cuda_dtype[d], *R = gq_cuda_dtype[to];
  if (!f) return false;
  /* much code for numbers that are seldom met is not at each use */
  gq_text_put(t, "%s %s ",
              gq_is_float(d) && others[op].of_float ? "GQ_REGION"
              : gq_is_float(d) && much[op]          ? "GQ_FUNCTION"
                                                    : "GQ_DEVICE",
              R);
  put_name(t, op, d, to);
  if (op == GQ_OP_WHERE) gq_text_put(t, "(unsigned char c, %s x, %s y)", T, T);
  else if (gq_core->ops[op].nargs == 2) gq_text_put(t, "(%s x, %s y)", T, T);
  else gq_text_put(t, "(%s x)", T);
  gq_text_put(t, " { return (%s)(%s); }\n", R, f);
  return true;
}

void gq_cuda_call(gq_text *t, gq_op op, gq_dtype d, gq_dtype to, const char *arguments) {
  put_name(t, op, d, to);
  gq_text_put(t, "(%s)", arguments);
}
