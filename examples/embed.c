/*
** embed.c -- the runtime inside a C program, at both of its doors.
**
** First through the C interface: the field dz/dt = -k z as a graph, solved over [0, T] and
** differentiated by Gauss-Legendre quadrature, against the exact z(T) = z0 exp(-k T). Then through
** Lua: a state of the program's own, with the module opened in it, runs a script.
**
** C that is C++ too. In this checkout `make embed && build/release/embed`; after `make install PREFIX=$PREFIX`:
**
**   cc embed.c $(PKG_CONFIG_PATH=$PREFIX/lib/pkgconfig pkg-config --cflags --libs gqlua lua5.4) \
**     -Wl,-rpath,$PREFIX/lib -lm -o embed
*/
#include <math.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif
#include <lauxlib.h>
#include <lualib.h>
int luaopen_gq(lua_State *L); /* in libgq */
#ifdef __cplusplus
}
#endif

#include "gq.h"

enum { N = 3 };
static const double T = 2, K = 0.7;

/* Inputs: t (0-d), z {N}, then what the field reads besides: k (0-d). Output: dz/dt, of z's shape. */
static gq_graph *decay(void) {
  gq_graph *g = gq_graph_new();
  if (!g) return NULL;
  const int64_t n = N;
  gq_shape scalar = gq_shape_of(0, NULL), row = gq_shape_of(1, &n);
  gq_input(g, GQ_F64, scalar);
  gq_ref z = gq_input(g, GQ_F64, row);
  gq_ref k = gq_input(g, GQ_F64, scalar);
  gq_ref dz = gq_emit1(g, GQ_OP_NEG, gq_emit2(g, GQ_OP_MUL, k, z));
  gq_graph_set_outputs(g, 1, &dz);
  if (gq_graph_status(g) != GQ_OK) { /* emitting is sticky: one check at the end */
    gq_graph_free(g);
    return NULL;
  }
  return g;
}

static int fill(gq_tensor *t, const double *x) {
  for (int64_t i = 0; i < t->shape.dim[0]; i++) gq_tensor_set(t, &i, x[i]);
  return GQ_OK;
}

static void report(const gq_tensor *z, const gq_tensor *gz0, const gq_tensor *gk, const gq_info *info) {
  static const double z0[N] = { 1, 2, 3 };
  double decayed = exp(-K * T), sum = 0, worst = 0;
  for (int64_t i = 0; i < N; i++) {
    sum += z0[i];
    const int64_t last[] = { 1, i };
    worst = fmax(worst, fabs(gq_tensor_get(z, last) / (z0[i] * decayed) - 1));
    worst = fmax(worst, fabs(gq_tensor_get(gz0, &i) / decayed - 1));
  }
  printf("C    z(T) and dL/dz0: largest relative error %.1e\n", worst);
  printf("C    dL/dk %.9f, exact %.9f\n", gq_tensor_get(gk, NULL), -T * sum * decayed);
  printf("C    %lld evaluations forward, %lld backward, %lld nodes\n", (long long)info->nfe,
         (long long)info->nfe_backward, (long long)info->nodes);
}

/* L = sum of z(T): its cotangent is zero at the first time and one at the last. */
static int differentiate(gq_solution *s, gq_tensor *z) {
  gq_tensor *gz = NULL, *gz0 = NULL, *gk = NULL, *gt = NULL;
  int status = gq_tensor_new(GQ_F64, z->shape, &gz);
  if (status != GQ_OK) return status;
  for (int64_t i = 0; i < N; i++) {
    const int64_t last[] = { 1, i };
    gq_tensor_set(gz, last, 1);
  }
  status = gq_odeint_backward(s, gz, &gz0, &gt, &gk);
  if (status == GQ_OK) report(z, gz0, gk, gq_solution_info(s));
  gq_tensor_unref(gz);
  gq_tensor_unref(gz0);
  gq_tensor_unref(gk);
  gq_tensor_unref(gt);
  return status;
}

static int solve(const gq_graph *f, gq_tensor *z0, gq_tensor *k) {
  const double times[] = { 0, T };
  const bool wants = true;
  gq_problem p = { 0 };
  p.f = f, p.z0 = z0, p.z0_grad = true;
  p.ncapture = 1, p.capture = &k, p.wants_grad = &wants;
  p.nt = 2, p.t = times;
  gq_ode_options o;
  gq_info info;
  gq_tensor *z = NULL;
  gq_solution *s = NULL;
  gq_ode_defaults(&o, GQ_F64);
  o.rtol = o.atol = o.back_rtol = o.back_atol = 1e-9;
  int status = gq_odeint(&p, &o, false, &z, &info, &s);
  if (status == GQ_OK) status = differentiate(s, z);
  gq_solution_free(s);
  gq_tensor_unref(z);
  return status;
}

static int from_c(void) {
  static const double start[N] = { 1, 2, 3 };
  const int64_t n = N;
  gq_graph *f = decay();
  gq_tensor *z0 = NULL, *k = NULL;
  int status = f ? GQ_OK : GQ_ENOMEM;
  if (status == GQ_OK) status = gq_tensor_new(GQ_F64, gq_shape_of(1, &n), &z0);
  if (status == GQ_OK) status = gq_tensor_new(GQ_F64, gq_shape_of(0, NULL), &k);
  if (status == GQ_OK) status = fill(z0, start);
  if (status == GQ_OK) status = gq_tensor_fill(k, K);
  if (status == GQ_OK) status = solve(f, z0, k);
  gq_tensor_unref(z0);
  gq_tensor_unref(k);
  gq_graph_free(f);
  return status;
}

static const char script[] =
  "local gq = require 'gq'\n"
  "local k = gq.tensor(0.7, {dtype = 'float64', requires_grad = true})\n"
  "local z0 = gq.tensor({1, 2, 3}, {dtype = 'float64'})\n"
  "local z, info = gq.odeint(function(t, z) return -k * z end, z0, {0, 2}, {rtol = 1e-9, atol = 1e-9})\n"
  "z[2]:sum():backward()\n"
  "print(('Lua  dL/dk %.9f after %d evaluations'):format(k.grad:item(), info.nfe))\n";

static int from_lua(void) {
  lua_State *L = luaL_newstate();
  int status;
  if (!L) return LUA_ERRMEM;
  luaL_openlibs(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE); /* require finds it here first */
  lua_pushcfunction(L, luaopen_gq);
  lua_setfield(L, -2, "gq");
  lua_pop(L, 1);
  status = luaL_loadbufferx(L, script, sizeof script - 1, "=script", "t");
  if (status == LUA_OK) status = lua_pcall(L, 0, 0, 0);
  if (status != LUA_OK) fprintf(stderr, "embed: %s\n", lua_tostring(L, -1));
  lua_close(L);
  return status;
}

int main(void) {
  int status = from_c();
  if (status != GQ_OK) return fprintf(stderr, "embed: %s\n", gq_message()), 1;
  return from_lua() == LUA_OK ? 0 : 1;
}
