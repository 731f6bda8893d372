/*
** luaalloc_test.c -- both allocators, Lua's and the runtime's, made to fail at the n-th call, for
** every n, once and from then on, over the scenarios of tests/scenarios.lua. Whatever happens is
** a Lua error; afterwards the state closes and no block of the runtime is left.
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <lauxlib.h>
#include <lualib.h>

#include "bindings/bind.h"

static int passed, failed;

/* ---- Lua's allocator with a trap ---- */

typedef struct trap {
  long left; /* growing calls that still succeed; < 0: no trap */
  bool persistent, hit;
} trap;

static void *trapped_alloc(void *ud, void *p, size_t old, size_t size) {
  trap *t = ud;
  bool grows = size > (p ? old : 0); /* Lua takes it that shrinking cannot fail */
  if (size == 0) return free(p), NULL;
  if (grows && t->left >= 0 && t->left-- == 0) {
    t->hit = true;
    t->left = t->persistent ? 0 : -1;
    return NULL;
  }
  return realloc(p, size);
}

/* ---- one run ---- */

typedef enum kind { LUA_ALLOC, GQ_ALLOC, NKIND } kind;
static const char *const kind_names[NKIND] = { "Lua's allocator", "the runtime's allocator" };

typedef struct run {
  kind kind;
  bool persistent;
  long n;
  int scenario; /* 0: opening the libraries; 1..: entry of scenarios.lua */
} run;

static void arm(trap *t, const run *r) {
  t->hit = false;
  t->persistent = r->persistent;
  t->left = r->kind == LUA_ALLOC ? r->n : -1;
  if (r->kind == GQ_ALLOC) gq_alloc_fail(r->n, r->persistent);
}

static void disarm(trap *t) {
  t->left = -1;
  gq_alloc_fail(-1, false);
}

static int open_all(lua_State *L) {
  luaL_openlibs(L);
  luaL_requiref(L, "gq", luaopen_gq, 0);
  return 1;
}

/* Leaves the scenario and gq on the stack, or the function that opens everything. */
static int prepare(lua_State *L) {
  int scenario = (int)lua_tointeger(L, 1);
  lua_settop(L, 0);
  open_all(L);
  if (luaL_dofile(L, "tests/scenarios.lua") != LUA_OK) return lua_error(L);
  if (lua_rawgeti(L, -1, scenario) != LUA_TTABLE) return 0;
  lua_rawgeti(L, -1, 1);
  lua_rawgeti(L, -2, 2);
  lua_pushvalue(L, 1);
  return 3; /* name, function, gq */
}

static bool push_work(lua_State *L, int scenario, char *name, size_t size) {
  if (scenario == 0) {
    snprintf(name, size, "opening");
    lua_pushcfunction(L, open_all);
    return true;
  }
  lua_pushcfunction(L, prepare);
  lua_pushinteger(L, scenario);
  if (lua_pcall(L, 1, 3, 0) != LUA_OK) {
    printf("FAILED preparing scenario %d: %s\n", scenario, lua_tostring(L, -1));
    failed++;
    return false;
  }
  if (lua_isnil(L, -2)) return false;
  snprintf(name, size, "%s", lua_tostring(L, -3));
  return true;
}

/* Says whether the trap was reached. *ok: the work was done. */
static bool trap_reached(const trap *t, const run *r, size_t calls) {
  return r->kind == LUA_ALLOC ? t->hit : calls > (size_t)r->n;
}

typedef struct outcome {
  bool there, ok, reached;
  char name[64], message[400];
} outcome;

static void once(const run *r, outcome *o) {
  trap t = { -1, false, false };
  lua_State *L = lua_newstate(trapped_alloc, &t);
  size_t calls;
  memset(o, 0, sizeof *o);
  if (!L || !push_work(L, r->scenario, o->name, sizeof o->name)) {
    if (L) lua_close(L);
    return;
  }
  o->there = true;
  if (r->kind == GQ_ALLOC) gq_program_cache_clear(); /* compile anew, inside the trap */
  calls = gq_alloc_count();
  arm(&t, r);
  int status = lua_pcall(L, r->scenario == 0 ? 0 : 1, 0, 0);
  disarm(&t);
  calls = gq_alloc_count() - calls;
  o->ok = status == LUA_OK;
  o->reached = trap_reached(&t, r, calls);
  if (!o->ok)
    snprintf(o->message, sizeof o->message, "%s",
             lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : luaL_typename(L, -1));
  lua_close(L);
  gq_program_cache_clear();
}

/* ---- all of them ---- */

static bool complain(const run *r, const outcome *o, const char *what) {
  printf("FAILED %s, %s failing at call %ld%s: %s %s\n", o->name, kind_names[r->kind], r->n,
         r->persistent ? " and after" : "", what, o->message);
  failed++;
  return false;
}

static bool check(const run *r, const outcome *o, size_t blocks) {
  if (gq_live_blocks() > blocks) return complain(r, o, "blocks of the runtime were left.");
  if (o->ok) return true;
  if (!o->reached) return complain(r, o, "an error without the trap:");
  if (!strstr(o->message, "memory")) return complain(r, o, "an error of another kind:");
  return true;
}

/* Each run opens a state of its own, which is what costs. Sanitizers are slow, and memory_spec.lua fails every one of
** the runtime's allocations there. */
#ifdef GQ_DEBUG
static const long sparse[NKIND] = { 1, 1 };
#else
static const long sparse[NKIND] = { 2, 2 };
#endif

/* Every n of the first few, then ever fewer, until the work is done without reaching n. */
static bool every_call(int scenario, kind k, bool persistent, size_t blocks) {
  run r = { k, persistent, 0, scenario };
  outcome o;
  for (;; r.n += 1 + r.n / sparse[k]) {
    once(&r, &o);
    if (!o.there) return false;
    if (!check(&r, &o, blocks)) return true;
    if (!o.reached) break;
  }
  passed++;
  return true;
}

/* The blocks that stay when all is closed: thread pool, tables computed once. */
static size_t settled(int scenario) {
  run r = { LUA_ALLOC, false, -1, scenario };
  outcome o;
  once(&r, &o);
  return gq_live_blocks();
}

/* Code of another Lua is refused, and the text serves. */
static void other_code(void) {
  static const char text[] = "return 6 * 7", code[] = "\033Lua\123 of another version";
  gq_embedded f = { "other", text, sizeof text - 1, code, sizeof code - 1 };
  lua_State *L = luaL_newstate();
  bool good =
    gqL_loadembedded(L, &f) == LUA_OK && lua_pcall(L, 0, 1, 0) == LUA_OK && lua_tointeger(L, -1) == 42;
  good = good && lua_gettop(L) == 1;
  if (!good) printf("luaalloc_test.c: code of another Lua: the text was not loaded for it\n");
  good ? passed++ : failed++;
  lua_close(L);
}

int main(void) {
  bool more = true;
  other_code();
  for (int scenario = 0; more; scenario++) {
    size_t blocks = settled(scenario);
    for (int k = 0; more && k < NKIND; k++)
      for (int persistent = 0; more && persistent < 2; persistent++)
        more = every_call(scenario, (kind)k, persistent, blocks);
  }
  printf("%d passed, %d failed\n", passed, failed);
  return failed > 0;
}
