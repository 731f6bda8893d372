/*
** l_backward.c -- a solve of gq.odeint on the tape: the custom operation, its backward pass, and its info table, which
** gets what that pass took.
*/
#include "l_ode.h"

typedef struct solve { /* the custom operation; owns the solution */
  gq_custom base;
  gq_solution *sol;
  bool t_input;
  int nin;
  gq_tensor **in;     /* z0, t if t_input, captures: references, for create_graph */
  uint64_t *version;  /* of their storages when the solve was made */
  gqL_call *call;     /* trace = false, or NULL */
  int64_t calls;      /* its evaluations in the last backward pass */
  struct solve *next; /* list of those whose info changed */
  bool dirty;
} solve;

static solve *dirty_list;

static void mark_dirty(solve *s) {
  if (s->dirty) return;
  s->dirty = true;
  s->next = dirty_list;
  dirty_list = s;
}

static void solve_free(gq_custom *c) {
  solve *s = (solve *)c;
  for (solve **p = &dirty_list; *p; p = &(*p)->next)
    if (*p == s) {
      *p = s->next;
      break;
    }
  gq_solution_free(s->sol);
  gqL_call_unref(s->call);
  for (int i = 0; i < s->nin; i++) gq_tensor_unref(s->in[i]);
  gq_free(s->in);
  gq_free(s->version);
  gq_free(s);
}

/* The backward pass reads the captures (create_graph the state and the times too): not if they were written since. */
static int check_unchanged(const solve *s, bool create_graph) {
  for (int i = create_graph ? 0 : 1 + s->t_input; i < s->nin; i++)
    if (s->in[i]->storage->version != s->version[i])
      return gq_fail(
        GQ_ESTATE,
        "a tensor that the solve of gq.odeint used was modified in place before its backward pass; "
        "write to a copy (x:clone()), or after the backward pass");
  return GQ_OK;
}

/* core.unchanged(z): is all that this solve's result hangs on what it was? An error if not;
** nothing to say of others. */
int gqL_unchanged(lua_State *L) {
  gq_custom *c = gq_tape_custom(gqL_checktensor(L, 1));
  if (gq_trace_current())
    return gqL_error(
      L, "interpolant: in a traced function its values would have no gradients; solve it with gradient = "
         "\"none\", or take the values before");
  return c && c->free == solve_free ? gqL_try(L, check_unchanged((solve *)c, true)) : 0;
}

/* A gradient in times, float64 on the CPU, as they are. */
static int cast_times(gq_tensor *gt, const gq_tensor *t, gq_tensor **out) {
  if (gt->dtype == t->dtype && gq_tensor_device(t) == gq_host) {
    *out = gt;
    return GQ_OK;
  }
  int status = gq_tensor_empty_on(gq_tensor_device(t), t->dtype, gt->shape, out);
  if (status == GQ_OK) status = gq_tensor_copy(*out, gt);
  gq_tensor_unref(gt);
  return status;
}

/* Cotangents of the heuristics, which follow z among the outputs; false: all are zero. */
static bool read_sums(const gq_ode_options *o, gq_tensor *const *cots, double sums[2]) {
  const int64_t at = 0; /* of a tensor without dimensions */
  gq_tensor *error = o->error ? cots[1] : NULL, *stiffness = o->stiffness ? cots[1 + o->error] : NULL;
  sums[0] = error ? gq_tensor_get(error, &at) : 0;
  sums[1] = stiffness ? gq_tensor_get(stiffness, &at) : 0;
  return error || stiffness;
}

static int replay(solve *s, gq_tensor *gz, gq_tensor **grads) {
  gq_tensor **gt_ = s->t_input ? &grads[1] : NULL, **gcapture = grads + 1 + s->t_input;
  bool judged;
  GQ_TRY(gq_odeint_replay(s->sol, s->in[0], s->t_input ? s->in[1] : NULL, s->in + 1 + s->t_input, gz,
                          &grads[0], gt_, gcapture));
  GQ_TRY(gq_odeint_judge(s->sol, gz, grads[0], gt_ ? *gt_ : NULL, gcapture, &judged));
  if (judged) mark_dirty(s);
  return GQ_OK;
}

/* Inputs on the tape: z0, t where it is a tensor that wants a gradient, captures. */
static int solve_backward(gq_custom *c, gq_tensor *const *cots, bool create_graph, gq_tensor **grads) {
  solve *s = (solve *)c;
  gq_tensor *gt = NULL;
  GQ_TRY(check_unchanged(s, create_graph));
  double sums[2];
  if (read_sums(gq_solution_options(s->sol), cots, sums) && create_graph)
    return gq_fail(
      GQ_EUNSUPPORTED,
      "info.regularisers.error and .stiffness have first derivatives alone, and create_graph asks for "
      "more: leave them out of that loss");
  if (create_graph) return replay(s, cots[0], grads);
  int64_t calls = s->call ? gqL_call_count(s->call) : 0;
  if (s->call) gqL_call_keep(s->call, true);
  int status = gq_odeint_backward_sums(s->sol, cots[0], sums, &grads[0], &gt, grads + 1 + s->t_input);
  if (s->call) gqL_call_keep(s->call, false);
  if (status != GQ_OK) return status;
  if (s->call) s->calls = gqL_call_count(s->call) - calls;
  mark_dirty(s);
  if (!s->t_input) {
    gq_tensor_unref(gt);
    return GQ_OK;
  }
  return cast_times(gt, s->in[1], &grads[1]);
}

/* ---- info ---- */

static const char infos_key = 0; /* registry: custom operation -> info, weak */

void gqL_fill_infos(lua_State *L) {
  if (!dirty_list) return;
  luaL_checkstack(L, 8, NULL);
  gqL_pushweak(L, &infos_key, "v");
  while (dirty_list) {
    solve *s = dirty_list;
    dirty_list = s->next;
    s->dirty = false;
    if (lua_rawgetp(L, -1, s) == LUA_TTABLE) {
      const gq_info *i = gq_solution_info(s->sol);
      const gq_ode_options *o = gq_solution_options(s->sol);
      gqL_info_backward(L, i, o);
      if (s->call) gqL_setinteger(L, "nfe_backward", s->calls);
    }
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

/* ---- onto the tape ---- */

void gqL_record(lua_State *L, gq_solution **sol, gq_tensor *z0, gq_tensor *t_, int ncapture,
                gq_tensor *const *capture, gqL_call *call_, int info, int nout, gq_tensor **out) {
  bool t_input = t_ && t_->requires_grad;
  solve *s = gq_calloc(1, sizeof *s);
  if (!s) gqL_try(L, gq_nomem(sizeof *s));
  *s = (solve){ .base = { "odeint", solve_backward, solve_free, call_ != NULL }, .t_input = t_input };
  s->in = gq_calloc(ncapture + 2, sizeof *s->in);
  s->version = gq_calloc(ncapture + 2, sizeof *s->version);
  if (!s->in || !s->version) {
    gq_free(s->in);
    gq_free(s->version);
    gq_free(s);
    gqL_try(L, gq_nomem(ncapture * sizeof *s->in));
  }
  s->sol = *sol, *sol = NULL;
  if (call_) s->call = gqL_call_ref(call_);
  s->in[s->nin++] = gq_tensor_ref(z0);
  if (t_input) s->in[s->nin++] = gq_tensor_ref(t_);
  for (int i = 0; i < ncapture; i++) s->in[s->nin++] = gq_tensor_ref(capture[i]);
  for (int i = 0; i < s->nin; i++) s->version[i] = s->in[i]->storage->version;
  gqL_try(L, gq_record_custom(&s->base, s->nin, s->in, nout, out));
  if (call_) gqL_callee(L, call_), gqL_setcallee(L, s);
  gqL_pushweak(L, &infos_key, "v");
  lua_pushvalue(L, info);
  lua_rawsetp(L, -2, s);
  lua_pop(L, 1);
}
