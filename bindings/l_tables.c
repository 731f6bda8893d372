/*
** l_tables.c -- what the solvers are made of, for help, tests and the curious: methods, quadratures, statuses, and logs
** of what they did.
*/
#include "l_ode.h"

#include <string.h>

static void push_list(lua_State *L, int n, const double *x) {
  lua_createtable(L, n, 0);
  for (int i = 0; x && i < n; i++) {
    lua_pushnumber(L, x[i]);
    lua_rawseti(L, -2, i + 1);
  }
}

static void set_list(lua_State *L, const char *key, int n, const double *x) {
  if (!x) return;
  push_list(L, n, x);
  lua_setfield(L, -2, key);
}

static void set_matrix(lua_State *L, const char *key, int rows, int columns, const double *x) {
  lua_createtable(L, rows, 0);
  for (int i = 0; i < rows; i++) {
    push_list(L, columns, x + (size_t)i * columns);
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, key);
}

static int tableaux(lua_State *L) {
  lua_createtable(L, gq_ntableaux, 0);
  for (int i = 0; i < gq_ntableaux; i++) {
    const gq_tableau *m = gq_tableau_get(i);
    lua_createtable(L, 0, 18);
    gqL_setstring(L, "name", m->name);
    gqL_setstring(L, "kind", m->kind);
    gqL_setstring(L, "source", m->source);
    gqL_setinteger(L, "stages", m->stages), gqL_setinteger(L, "order", m->order);
    gqL_setinteger(L, "error_order", m->error_order), gqL_setinteger(L, "dense_order", m->dense_order);
    gqL_setinteger(L, "slopes", m->slopes), gqL_setinteger(L, "end_slope", m->end + 1);
    gqL_setboolean(L, "implicit", m->steps->stiff);
    gqL_setboolean(L, "fsal", gq_tableau_fsal(m));
    set_list(L, "c", m->stages, m->c), set_list(L, "b", m->stages, m->b);
    set_list(L, "e", m->stages, m->e), set_list(L, "e3", m->stages, m->e3);
    set_matrix(L, "a", m->stages, m->stages, m->a);
    set_matrix(L, "d", m->slopes, m->dense_degree, m->d);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/* Of SDEs: {name, ito, stratonovich, strong = {diagonal = 1, ..}, adapts = {diagonal = true, ..}, weak, source}; no
** strong order: refused. */
static int schemes(lua_State *L) {
  lua_createtable(L, gq_nschemes, 0);
  for (int i = 0; i < gq_nschemes; i++) {
    const gq_tableau *m = gq_scheme_get(i);
    lua_createtable(L, 0, 8);
    gqL_setstring(L, "name", m->name);
    gqL_setstring(L, "source", m->source);
    gqL_setnumber(L, "weak", m->scheme->weak);
    for (int c = 0; gq_calculus_names[c]; c++)
      gqL_setboolean(L, gq_calculus_names[c], gq_scheme_solves(m, (gq_calculus)c));
    gqL_setboolean(L, "langevin", m->scheme->langevin);
    lua_createtable(L, 0, GQ_NNOISE);
    lua_createtable(L, 0, GQ_NNOISE);
    for (int n = GQ_DIAGONAL; n < GQ_NNOISE; n++) {
      if (m->scheme->strong[n] == 0) continue;
      lua_pushnumber(L, m->scheme->strong[n]), lua_setfield(L, -3, gq_noise_names[n - 1]);
      gqL_setboolean(L, gq_noise_names[n - 1], gq_scheme_adapts(m, (gq_noise)n));
    }
    lua_setfield(L, -3, "adapts");
    lua_setfield(L, -2, "strong");
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int gauss_legendre(lua_State *L) {
  double x[1024], w[1024];
  int n = (int)gqL_checkint(L, 1, 1, 1024, "number of nodes");
  gqL_try(L, gq_gauss_legendre(n, x, w));
  push_list(L, n, x);
  push_list(L, n, w);
  return 2;
}

static int quadrature(lua_State *L) {
  const gq_quadrature *q = gqL_quadrature(L, luaL_checkstring(L, 1), "quadrature");
  int n = gq_quadrature_points(q, (int)gqL_checkint(L, 2, 1, 1024, "number of nodes"));
  double x[1028], w[1028];
  gqL_try(L, q->fill(n, gq_key_make((uint64_t)luaL_optinteger(L, 3, 0), 0), 0, x, w));
  push_list(L, n, x);
  push_list(L, n, w);
  return 2;
}

static int quadratures(lua_State *L) {
  lua_createtable(L, gq_nquadratures, 0);
  for (int i = 0; i < gq_nquadratures; i++) {
    const gq_quadrature *q = &gq_quadratures[i];
    lua_createtable(L, 0, 6);
    gqL_setstring(L, "name", q->name);
    gqL_setstring(L, "source", q->source);
    gqL_setinteger(L, "least", q->least), gqL_setinteger(L, "step", q->step),
      gqL_setinteger(L, "most", q->most);
    gqL_setboolean(L, "random", q->random);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/* Names of the methods that go with an engine which does not take every one. */
static void set_methods(lua_State *L, const gq_engine *e) {
  int n = 0;
  if (!e->method) return;
  lua_newtable(L);
  for (int i = 0; i < gq_ntableaux; i++)
    if (e->method(gq_tableau_get(i))) lua_pushstring(L, gq_tableau_get(i)->name), lua_rawseti(L, -2, ++n);
  lua_setfield(L, -2, "methods");
}

static int engines(lua_State *L) {
  static const char *const keeps[] = { "nothing", "activations", "steps", "end", "trajectory" },
                           *const integrals[] = { "own", "inside", "outside", "nodes", "adaptive" };
  gq_ode_options o;
  gq_ode_defaults(&o, GQ_F64);
  lua_createtable(L, gq_nengines, 0);
  for (int i = 0; i < gq_nengines; i++) {
    const gq_engine *e = &gq_engines[i];
    lua_createtable(L, 0, 10);
    gqL_setstring(L, "name", e->name);
    gqL_setstring(L, "keeps", keeps[e->keeps]);
    gqL_setstring(L, "integral", integrals[e->integral]);
    gqL_setstring(L, "kept", e->kept);
    gqL_setstring(L, "doc", e->doc);
    gqL_setstring(L, "source", e->source);
    gqL_setboolean(L, "independent", e->samples != NULL);
    gqL_setboolean(L, "chooses", e->choose != NULL);
    gqL_setboolean(L, "default", e == o.engine);
    set_methods(L, e);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int steplog(lua_State *L) {
  const double(*rows)[4];
  if (!lua_isnoneornil(L, 1)) {
    gqL_checktype(L, 1, LUA_TBOOLEAN);
    if (lua_toboolean(L, 1)) gq_steplog_start();
    else gq_steplog_stop();
    return 0;
  }
  int n = gq_steplog_get(&rows);
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    push_list(L, 4, rows[i]);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int plan_cache(lua_State *L) {
  int64_t compiled;
  if (lua_isboolean(L, 1) && !lua_toboolean(L, 1)) gq_program_cache_clear();
  lua_pushinteger(L, gq_program_cache_count(&compiled));
  lua_pushinteger(L, compiled);
  return 2;
}

/* statuses() -> every status a call of the runtime may end with: {name, hint} */
static int statuses(lua_State *L) {
  lua_createtable(L, GQ_NSTATUS, 0);
  for (int i = 0; i < GQ_NSTATUS; i++) {
    lua_createtable(L, 0, 2);
    gqL_setstring(L, "name", gq_status_name(i));
    gqL_setstring(L, "hint", gq_status_hint(i));
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/* status_of(error) -> the name of the status that a failure in the runtime, the last one, was raised with; nil of any
** other error, the script's own. */
static int status_of(lua_State *L) {
  size_t n, own = strlen(gq_message());
  const char *text = lua_type(L, 1) == LUA_TSTRING ? lua_tolstring(L, 1, &n) : NULL;
  if (text && own && n >= own && !strcmp(text + n - own, gq_message()))
    lua_pushstring(L, gq_status_name(gq_failed()));
  else lua_pushnil(L);
  return 1;
}

/* profile(true) starts; profile() -> seconds in products, element-wise work, the rest; profile(false) ends. */
static int profile(lua_State *L) {
  double seconds[3];
  gq_profile_get(seconds);
  if (!lua_isnoneornil(L, 1)) gq_profile(lua_toboolean(L, 1));
  for (int i = 0; i < 3; i++) lua_pushnumber(L, seconds[i]);
  return 3;
}

/* For tests and the curious, in gq.core:
** gauss_legendre(n) -> nodes, weights on [-1, 1], ascending; quadrature(name, n, seed) -> the same of any rule,
** n rounded up to what it takes; quadratures() -> the rules; tableaux() -> the methods' coefficients;
** engines() -> the rows of grad/engines.c: keeps (nothing, activations, steps, end or trajectory), kept and doc in
** words; steplog(true) records every tried step, steplog() -> rows {t, h, error ratio, accepted}, steplog(false) stops;
** profile(): where programs spend their time; plan_cache() -> compiled solvers alive, compilations so far;
** plan_cache(false) drops the idle ones first; statuses(): what a solve may end with; status_of(error). */
static const luaL_Reg core[] = { { "gauss_legendre", gauss_legendre },
                                 { "quadrature", quadrature },
                                 { "quadratures", quadratures },
                                 { "tableaux", tableaux },
                                 { "schemes", schemes },
                                 { "engines", engines },
                                 { "steplog", steplog },
                                 { "plan_cache", plan_cache },
                                 { "profile", profile },
                                 { "statuses", statuses },
                                 { "status_of", status_of },
                                 { NULL, NULL } };

void gqL_open_tables(lua_State *L) { gqL_core(L, core); }
