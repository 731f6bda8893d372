/*
** group.c -- element-wise operations of one shape as one kernel: a thread a number, values in registers.
*/
#include "cuda.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void put_constant(gq_text *t, gq_dtype d, const void *at) {
  double x = d == GQ_F32 ? (double)*(const float *)at : d == GQ_F64 ? *(const double *)at : 0;
  if (d == GQ_I64) gq_text_put(t, "(long long)%lluULL", (unsigned long long)*(const int64_t *)at);
  else if (d == GQ_BOOL) gq_text_put(t, "%d", *(const uint8_t *)at);
  else if (isnan(x)) gq_text_put(t, "(%s)NAN", gq_cuda_dtype[d]);
  else if (isinf(x)) gq_text_put(t, "(%s)%sINFINITY", gq_cuda_dtype[d], x < 0 ? "-" : "");
  else gq_text_put(t, "(%s)%a", gq_cuda_dtype[d], x);
}

/* Where number i of the shape is, given strides: dims that are walked as one are one. */
static void put_place(gq_text *t, gq_shape s, const int64_t *stride, const char *index) {
  int64_t run = 1;
  bool first = true;
  for (int k = s.ndim - 1; k >= 0; k--) {
    int64_t dim = s.dim[k], step = stride[k];
    for (; k > 0 && stride[k - 1] == step * dim; k--) dim *= s.dim[k - 1];
    if (step != 0 && dim != 1) {
      gq_text_put(t, "%s%s", first ? "" : " + ", index);
      if (run > 1) gq_text_put(t, " / %lld", (long long)run);
      if (k > 0) gq_text_put(t, " %% %lld", (long long)dim);
      if (step != 1) gq_text_put(t, " * %lldLL", (long long)step);
      first = false;
    }
    run *= dim;
  }
  if (first) gq_text_put(t, "0");
}

static bool single(const gq_cellvalue *v, gq_shape s) {
  for (int i = 0; i < s.ndim; i++)
    if (v->stride[i] != 0 && s.dim[i] != 1) return false;
  return true;
}

static void put_argument(gq_text *t, const gq_program *p, const gq_instr *in, int v, const char *indent) {
  const gq_cellvalue *x = &in->as.group.value[v];
  const char *T = gq_cuda_dtype[x->dtype];
  gq_text_put(t, "%sconst %s v%d = ", indent, T, v);
  if (in->loc[v].kind == LOC_CONST) put_constant(t, x->dtype, (const char *)p->constant + in->loc[v].offset);
  else {
    gq_text_put(t, "((const %s *)GQ_AT(a.p[%d]))[", T, v);
    put_place(t, in->as.group.shape, x->stride, "i");
    gq_text_put(t, "]");
  }
  gq_text_put(t, ";\n");
}

static void put_op(gq_text *t, const gq_instr *in, const gq_cellop *o) {
  const gq_cellvalue *value = in->as.group.value;
  char arguments[64];
  int n = 0;
  for (int i = 0; i < o->nargs; i++)
    n += snprintf(arguments + n, sizeof arguments - (size_t)n, "%sv%d", i ? ", " : "", o->arg[i]);
  gq_text_put(t, "    const %s v%d = ", gq_cuda_dtype[value[o->out].dtype], o->out);
  gq_cuda_call(t, o->op, value[o->arg[o->nargs - 1]].dtype, value[o->out].dtype, arguments);
  gq_text_put(t, ";\n");
}

/* The body of a group's kernel: all that tells it from others. */
static void put_group(gq_text *t, const gq_program *p, const gq_instr *in) {
  gq_shape s = in->as.group.shape;
  int nvalue = in->as.group.nvalue, k = 0;
  bool early[GQ_GROUP_VALUES] = { false };
  for (int v = 0; v < nvalue; v++) {
    const gq_cellvalue *x = &in->as.group.value[v];
    /* once for all; not what the group itself writes */
    early[v] = x->arg && (in->loc[v].kind == LOC_CONST || (single(x, s) && in->loc[v].kind == LOC_IN));
    if (early[v]) put_argument(t, p, in, v, "  ");
  }
  bool small = gq_numel(s) < INT32_MAX; /* divisions of int are faster */
  gq_text_put(t, "  GQ_ALL(u, %lldLL) {\n    const %s i = (%s)u;\n", (long long)gq_numel(s),
              small ? "int" : "long long", small ? "int" : "long long");
  for (int v = 0; v < nvalue; v++) {
    const gq_cellvalue *x = &in->as.group.value[v];
    if (x->arg && !early[v]) put_argument(t, p, in, v, "    ");
    if (!x->arg) put_op(t, in, &in->as.group.op[k++]);
  }
  for (int v = 0; v < nvalue; v++)
    if (in->as.group.value[v].stored)
      gq_text_put(t, "    ((%s *)GQ_AT(a.p[%d]))[i] = v%d;\n", gq_cuda_dtype[in->as.group.value[v].dtype], v,
                  v);
  gq_text_put(t, "  }\n");
}

typedef struct defined {
  bool seen[GQ_NOP][GQ_NDTYPE][GQ_NDTYPE];
} defined;

static int define(gq_text *t, const gq_instr *in, defined *d) {
  const gq_cellvalue *value = in->as.group.value;
  for (int k = 0; k < in->as.group.nop; k++) {
    const gq_cellop *o = &in->as.group.op[k];
    gq_dtype of = value[o->arg[o->nargs - 1]].dtype, to = value[o->out].dtype;
    if (d->seen[o->op][of][to]) continue;
    d->seen[o->op][of][to] = true;
    if (!gq_cuda_define(t, o->op, of, to))
      return gq_fail(GQ_EDTYPE, "%s is not defined for %s", gq_core->ops[o->op].name, gq_cuda_dtype[of]);
  }
  return GQ_OK;
}

/* Bodies so far, to find an equal one. */
typedef struct bodies {
  gq_text *t;
  int n;
} bodies;

static int body_of(bodies *b, const gq_program *p, const gq_instr *in) {
  gq_text *mine = &b->t[b->n];
  put_group(mine, p, in);
  if (mine->failed) return gq_nomem(mine->room);
  for (int k = 0; k < b->n; k++)
    if (strcmp(b->t[k].s, mine->s) == 0) {
      gq_free(mine->s);
      *mine = (gq_text){ 0 };
      return -1 - k;
    }
  return -1 - b->n++;
}

static int all_groups(const gq_program *p, gq_text *t, int *which, bodies *b, defined *d) {
  for (int i = 0; i < p->ninstr; i++) {
    const gq_instr *in = &p->instr[i];
    if (in->kind != INSTR_GROUP) continue;
    GQ_TRY(define(t, in, d));
    int k = b->n, found = body_of(b, p, in);
    if (found >= 0) return found; /* a status */
    which[i] = -1 - found;
    if (which[i] < k) continue;
    gq_text_put(t, "typedef struct g%d_of { gq_address p[%d]; } g%d_of;\nGQ_KERNEL(g%d, g%d_of) {\n", k,
                in->as.group.nvalue, k, k, k);
    gq_cuda_append_text(t, &b->t[k]);
    gq_text_put(t, "}\n");
  }
  return t->failed ? gq_nomem(t->room) : GQ_OK;
}

int gq_cuda_groups(int n, const gq_program *const *p, gq_text *t, int *const *which) {
  size_t most = 1;
  for (int k = 0; k < n; k++) most += (size_t)p[k]->ninstr;
  bodies b = { .t = gq_calloc(most, sizeof *b.t) };
  defined *d = gq_calloc(1, sizeof *d);
  int status = b.t && d ? GQ_OK : gq_nomem(most * sizeof *b.t);
  for (int k = 0; k < n && status == GQ_OK; k++) status = all_groups(p[k], t, which[k], &b, d);
  for (size_t k = 0; b.t && k < most; k++) gq_free(b.t[k].s);
  gq_free(b.t);
  gq_free(d);
  return status;
}
