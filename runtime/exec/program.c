/*
** program.c -- compiling a graph, running a phase of the result, printing it. A program is
** immutable: any number of threads may run it, each with an arena of its own.
*/
#include "compile.h"

#include <string.h>

/* ---- compiling ---- */

static int check_outputs(const gq_graph *g, int n, const gq_outspec *outs, int *nphase) {
  *nphase = 0;
  GQ_TRY(gq_graph_status(g));
  for (int i = 0; i < n; i++) {
    if (outs[i].ref < 0 || outs[i].ref >= gq_graph_size(g))
      return gq_fail(GQ_EARG, "output %d of the program is no node of the graph", i + 1);
    if (outs[i].phase < 0 || outs[i].phase > 1000)
      return gq_fail(GQ_EARG, "output %d of the program: phase %d is outside 0..1000", i + 1, outs[i].phase);
    if (outs[i].phase >= *nphase) *nphase = outs[i].phase + 1;
  }
  return GQ_OK;
}

static int start(gq_compiler *c, gq_program *p, int nphase) {
  size_t n = (size_t)c->n + 1, nout = (size_t)c->nout + 1;
  c->info = gq_pooled(&c->own, n, sizeof *c->info);
  c->view = gq_pooled(&c->own, n, sizeof *c->view);
  c->order = gq_pooled(&c->own, n, sizeof *c->order);
  c->unit = gq_pooled(&c->own, n + nout, sizeof *c->unit);
  c->keep = gq_pooled(&c->own, nout, sizeof *c->keep);
  c->direct = gq_pooled(&c->own, nout, sizeof *c->direct);
  p->phase = gq_pooled(&p->own, (size_t)nphase + 1, sizeof *p->phase);
  p->out = gq_pooled(&p->own, nout, sizeof *p->out);
  p->bytes = gq_pooled(&p->own, (size_t)p->nin + nout, sizeof *p->bytes);
  p->nphase = nphase;
  p->nout = c->nout;
  c->p = p;
  GQ_TRY(gq_pool_status(&p->own));
  return gq_pool_status(&c->own);
}

static size_t node_bytes(const gq_compiler *c, gq_ref r) {
  return (size_t)gq_numel(node_of(c, r)->shape) * gq_dtype_size(node_of(c, r)->dtype);
}

static int compile(gq_compiler *c, gq_program *p, int nphase) {
  GQ_TRY(start(c, p, nphase));
  for (int i = 0; i < p->nin; i++) p->bytes[i] = node_bytes(c, gq_graph_input(c->g, i));
  for (int i = 0; i < c->nout; i++) p->bytes[p->nin + i] = node_bytes(c, c->outs[i].ref);
  GQ_TRY(gq_pass_fuse(c));
  GQ_TRY(gq_pass_alias(c));
  GQ_TRY(gq_pass_schedule(c));
  GQ_TRY(gq_pass_plan(c));
  return gq_pass_lower(c);
}

static void narrate(const gq_program *p) {
  char *text = gq_narrates(GQ_TELL_IR) ? gq_program_print(p) : NULL;
  if (text) gq_tell(GQ_TELL_IR, "%s", text);
  gq_free(text);
}

int gq_program_new(const gq_backend *on, const gq_graph *g, int n, const gq_outspec *outs, gq_program **p) {
  int nphase;
  *p = NULL;
  GQ_TRY(check_outputs(g, n, outs, &nphase));
  gq_program *made = gq_calloc(1, sizeof *made);
  if (!made) return gq_nomem(sizeof *made);
  made->on = on, made->nin = gq_graph_inputs(g);
  gq_compiler c = { .g = g, .n = gq_graph_size(g), .nout = n, .outs = outs };
  int status = compile(&c, made, nphase);
  gq_pool_free(&c.own);
  if (status == GQ_OK) *p = made, narrate(made);
  else gq_program_free(made);
  return status;
}

void gq_program_alike(gq_program *p) { p->alike = true; }

void gq_program_free(gq_program *p_) {
  if (!p_) return;
  p_->on->lowering->release(p_);
  gq_free(p_->instr);
  gq_pool_free(&p_->own);
  gq_free(p_);
}

size_t gq_program_arena(const gq_program *p) { return p->arena; }
size_t gq_program_lasting(const gq_program *p) { return p->lasting; }

void *gq_program_at(const gq_program *p, void *arena, int i) {
  return i >= 0 && i < p->nout && p->out[i].kind == LOC_ARENA ? (char *)arena + p->out[i].offset : NULL;
}

/* ---- running ---- */

int gq_program_run_apart(const gq_program *p, int phase, void *arena, void *rest, const void *const *in,
                         void *const *out) {
  if (phase < 0 || phase >= p->nphase) return GQ_OK; /* nothing belongs to it */
  return p->on->lowering->run(p, phase, arena, rest, in, out);
}

int gq_program_run(const gq_program *p, int phase, void *arena, const void *const *in, void *const *out) {
  return gq_program_run_apart(p, phase, arena, arena, in, out);
}

int gq_program_side(const gq_program *p, int phase, int n, void *const *arena, const void *const *in, int nin,
                    void *const *out, int nout) {
  if (phase < 0 || phase >= p->nphase) return GQ_OK;
  return p->on->lowering->side(p, phase, n, arena, in, nin, out, nout);
}

/* ---- printing ---- */

void gq_text_loc(gq_text *t, const gq_loc *l) {
  static const char *const names[] = { "?", "arena", "in", "out", "const" };
  if (l->kind == LOC_IN || l->kind == LOC_OUT) gq_text_put(t, " %s%d", names[l->kind], l->index);
  else gq_text_put(t, " %s", names[l->kind]);
  if (l->offset || l->kind == LOC_ARENA) gq_text_put(t, "+%zu", l->offset);
}

void gq_text_locs(gq_text *t, const gq_instr *in) {
  gq_text_put(t, "%s", in->add ? " +=>" : " =>");
  for (int l = 0; l < in->nloc; l++)
    if (in->loc[l].kind) gq_text_loc(t, &in->loc[l]);
  gq_text_put(t, "\n");
}

static const char *name_of(const gq_instr *in) {
  static const char *const names[] = { "group", "matmul", "", "move", "zero", "", "call", "conv" };
  if (in->kind == INSTR_REDUCE) return gq_ops[in->as.reduce.op].name;
  return in->kind == INSTR_INDEX ? gq_ops[in->as.index.op].name : names[in->kind];
}

char *gq_program_print(const gq_program *p) {
  gq_text t = { 0 };
  gq_text_put(&t, "program: %d instructions, %zu bytes of arena, registers from %zu\n", p->ninstr, p->arena,
              p->values);
  for (int phase = 0; phase < p->nphase; phase++) {
    gq_text_put(&t, "phase %d\n", phase);
    for (int i = p->phase[phase]; i < p->phase[phase + 1]; i++) {
      gq_text_put(&t, "  %3d %s", i, name_of(&p->instr[i]));
      p->on->lowering->print(p, i, &t);
    }
  }
  for (int i = 0; i < p->nout; i++)
    if (p->out[i].kind) gq_text_put(&t, "keep %d at %zu\n", i, p->out[i].offset);
  if (!t.failed) return t.s;
  gq_free(t.s);
  return NULL;
}
