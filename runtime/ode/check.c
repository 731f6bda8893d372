/*
** check.c -- what may be asked for: the numbers of a problem, and which engines, methods and options go together
** (rules.def).
*/
#include "../method/heuristic.h"
#include "solution.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- rules ---- */

enum { GIVEN = 1, OPTIONS = 2, SOLVE = 4, AGAIN = 8 };

static bool solves_back(const gq_tableau *m) { return m->steps->any_system; }
static bool is_damped(const gq_tableau *m) { return m->tuple && m->tuple->damped; }
static bool estimates_error(const gq_tableau *m) { return m->e && m->steps->program; }
static bool estimates_stiffness(const gq_tableau *m) { return gq_stiffness_stage(m) >= 0; }

static bool leaves_step(const gq_tableau *m) { return gq_tableau_reach(m) > 1; }

/* Names of the methods of some kinds, for messages. */
static void methods_of(bool (*fits)(const gq_tableau *), char *text, size_t size) {
  size_t n = 0;
  for (int i = 0; i < gq_ntableaux; i++) {
    const gq_tableau *m = gq_tableau_get(i);
    if (fits(m) && n < size) n += snprintf(text + n, size - n, "%s%s", n ? ", " : "", m->name);
  }
}

/* What {word} of a rule stands for. */
static void fill_in(const gq_ode_options *o, const gq_solution *s, const char *word, char *text,
                    size_t size) {
  char eta[32], chosen[256] = "";
  snprintf(eta, sizeof eta, "%g", o->eta);
  if (s && s->info.reason[0])
    snprintf(chosen, sizeof chosen, ", which auto chose (%s): name one of those, or raise memory_limit",
             s->info.reason);
  const struct {
    const char *word, *name;
  } names[] = { { "engine", o->engine->name },
                { "method", o->method ? o->method->name : "" },
                { "eta", eta },
                { "adjoint.method", o->back_method->name },
                { "trajectory", o->trajectory->name },
                { "chosen", chosen },
                { "sum", o->error ? "error" : "stiffness" } };
  const struct {
    const char *word;
    int value;
  } numbers[] = { { "points", o->points },
                  { "checkpoints", o->checkpoints },
                  { "nodes", o->fixed_nodes },
                  { "most nodes", o->engine->most_nodes } };
  const struct {
    const char *word;
    bool (*fits)(const gq_tableau *);
  } lists[] = { { "those of the engine", o->engine->method },
                { "those of Runge and Kutta", solves_back },
                { "those with error", estimates_error },
                { "those with stiffness", estimates_stiffness } };
  for (int i = 0; i < 7; i++)
    if (!strcmp(names[i].word, word)) snprintf(text, size, "%s", names[i].name);
  for (int i = 0; i < 4; i++)
    if (!strcmp(numbers[i].word, word)) snprintf(text, size, "%d", numbers[i].value);
  for (int i = 0; i < 4; i++)
    if (!strcmp(lists[i].word, word)) methods_of(lists[i].fits, text, size);
}

static int refuse(const gq_ode_options *o, const gq_solution *s, int status, const char *text) {
  char message[1024], word[32];
  size_t n = 0;
  for (; *text && n < sizeof message - 1; text++) {
    if (*text != '{') {
      message[n++] = *text;
      continue;
    }
    size_t length = strcspn(text + 1, "}");
    snprintf(word, sizeof word, "%.*s", (int)length, text + 1);
    message[n] = 0;
    fill_in(o, s, word, message + n, sizeof message - n);
    n += strlen(message + n), text += length + 1;
  }
  return message[n] = 0, gq_fail(status, "%s", message);
}

static int check_rules(int when, const gq_ode_options *o, const gq_problem *p, const gq_solution *s) {
  const gq_engine *e = o->engine;
  const gq_tableau *m = o->method, *b = o->back_method;
  bool gradients = e->keeps != GQ_KEEP_NOTHING, adjoint = gq_keeps_trajectory(e), apart = o->independent,
       past = o->overshoot || o->parity, sums = o->error || o->stiffness;
#define RULE(stages, broken, status, text) \
  if ((stages)&when && (broken)) return refuse(o, s, status, text);
#include "rules.def"
#undef RULE
  return GQ_OK;
}

int gq_ode_check_given(const gq_ode_options *o) { return check_rules(GIVEN, o, NULL, NULL); }

int gq_ode_check(const gq_ode_options *o) {
  if (!o->engine) return gq_fail(GQ_EARG, "options without an engine: gq_ode_defaults makes them");
  return check_rules(OPTIONS, o, NULL, NULL);
}

int gq_solution_check_again(const gq_solution *s) { return check_rules(AGAIN, &s->o, NULL, s); }

/* ---- numbers ---- */

int gq_times_check(int nt, const double *t) {
  int dir = 0;
  if (nt < 1) return gq_fail(GQ_EARG, "t is empty: give at least one time");
  for (int k = 0; k < nt; k++) {
    if (!isfinite(t[k])) return gq_fail(GQ_EARG, "t[%d] is %g: times must be finite", k + 1, t[k]);
    if (k == 0 || t[k] == t[k - 1]) continue;
    int d = t[k] > t[k - 1] ? 1 : -1;
    if (dir && d != dir)
      return gq_fail(GQ_EARG,
                     "times must not change direction: t[%d] = %.17g after t[%d] = %.17g in %s sequence",
                     k + 1, t[k], k, t[k - 1], dir > 0 ? "an increasing" : "a decreasing");
    dir = d;
  }
  return GQ_OK;
}

/* Between points where f may jump the state's dtype must tell apart at least two times. */
static int check_points(const gq_problem *p) {
  int before = -1;
  for (int k = 0; p->jump_ && k < p->nt; k++) {
    if (!p->jump_[k]) continue;
    double b = p->t[k], a = before < 0 ? b : p->t[before];
    if (a != b && fabs(b - a) < 3 * gq_spacing(p->z0->dtype, fmax(fabs(a), fabs(b))))
      return gq_fail(
        GQ_EARG,
        "grid_points %.9g and %.9g are less than three of the times apart that %s knows there: use "
        "float64, or subtract an offset from the times",
        a, b, gq_dtype_name(p->z0->dtype));
    before = k;
  }
  return GQ_OK;
}

static int check_tolerance(double rtol, double atol, const char *whose) {
  if (rtol >= 0 && atol >= 0 && rtol + atol > 0 && isfinite(rtol + atol)) return GQ_OK;
  return gq_fail(GQ_EARG,
                 "%srtol = %g and atol = %g: both must be finite and not negative, and one of them positive",
                 whose, rtol, atol);
}

/* dz/dt must be what z is: nothing is broadcast or cast. */
static int check_slope(const gq_problem *p) {
  char got[128], want[128];
  const gq_node *f = gq_graph_node(p->f, gq_graph_output(p->f, 0));
  if (f->dtype == p->z0->dtype && gq_shape_equal(f->shape, p->z0->shape)) return GQ_OK;
  return gq_fail(
    f->dtype == p->z0->dtype ? GQ_ESHAPE : GQ_EDTYPE,
    "the dynamics returned %s of shape %s for a state that is %s of shape %s: dz/dt must have the dtype and "
    "shape of z",
    gq_dtype_name(f->dtype), gq_shape_text(f->shape, got, sizeof got), gq_dtype_name(p->z0->dtype),
    gq_shape_text(p->z0->shape, want, sizeof want));
}

/* leapfrog: z = [x, v] */
static int check_halves(const gq_problem *p) {
  char got[128];
  gq_shape s = p->z0->shape;
  if (s.ndim > 0 && s.dim[s.ndim - 1] % 2 == 0) return GQ_OK;
  return gq_fail(
    GQ_ESHAPE,
    "method = \"leapfrog\": the last dimension of the state holds [x, v], so its size is even; z0 has "
    "shape %s",
    gq_shape_text(s, got, sizeof got));
}

/* What calls back is the host's. */
static int check_device(const gq_problem *p) {
  const gq_device *d = gq_tensor_device(p->z0);
  if (d == gq_host || !gq_graph_calls(p->f)) return GQ_OK;
  return gq_fail(GQ_EUNSUPPORTED, "trace = false runs on the CPU and z0 is on %s: use x:to(\"cpu\")",
                 d->name);
}

int gq_problem_check(const gq_problem *p, const gq_ode_options *o) {
  GQ_TRY(check_device(p));
  if (!gq_is_float(p->z0->dtype))
    return gq_fail(GQ_EDTYPE, "the state is %s; it must be float32 or float64", gq_dtype_name(p->z0->dtype));
  GQ_TRY(gq_times_check(p->nt, p->t));
  if (p->noise) return gq_noise_check(p, o);
  GQ_TRY(gq_ode_check(o));
  GQ_TRY(check_slope(p));
  if (o->method->tuple && o->method->tuple->halves) GQ_TRY(check_halves(p));
  GQ_TRY(check_points(p));
  GQ_TRY(check_tolerance(o->rtol, o->atol, ""));
  GQ_TRY(check_tolerance(o->back_rtol, o->back_atol, "adjoint."));
  if (o->max_steps < 1 || o->back_max_steps < 1) return gq_fail(GQ_EARG, "max_steps must be at least 1");
  GQ_TRY(check_rules(SOLVE, o, p, NULL));
  return o->engine->keeps != GQ_KEEP_NOTHING && !p->jumps_move ? gq_check_switches(p) : GQ_OK;
}
