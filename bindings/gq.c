/*
** gq.c -- require "gq": the table of the C parts, then the Lua files that the binary carries.
*/
#include <string.h>
#include "bind.h"

const gq_embedded *gqL_embedded(const char *name) {
  for (const gq_embedded *f = gq_embedded_files; f->name; f++)
    if (!strcmp(f->name, name)) return f;
  return NULL;
}

/* ---- what our files see of the script's globals ---- */

static const char own; /* its address is the registry's key */

/* Is a copy of global `name`, at the top, ours? print is called as the script has it. */
static bool keeps(lua_State *L, const char *name) {
  bool library = lua_istable(L, -1) && lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE) == LUA_TTABLE &&
                 lua_getfield(L, -1, name) == LUA_TTABLE && lua_rawequal(L, -1, -3);
  bool function = lua_isfunction(L, -1) && strcmp(name, "print") != 0;
  return library || function;
}

void gqL_keepglobals(lua_State *L) {
  int there = lua_rawgetp(L, LUA_REGISTRYINDEX, &own);
  lua_pop(L, 1);
  if (there != LUA_TNIL) return;
  lua_newtable(L);
  lua_pushglobaltable(L);
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    int value = lua_gettop(L);
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
    bool ours = name && keeps(L, name);
    lua_settop(L, value);
    if (!ours) continue;
    lua_pushvalue(L, -1);
    lua_setfield(L, -5, name);
  }
  lua_createtable(L, 0, 2);
  lua_pushvalue(L, -2);
  lua_setfield(L, -2, "__index");
  lua_pushvalue(L, -2);
  lua_setfield(L, -2, "__newindex");
  lua_setmetatable(L, -3);
  lua_pop(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &own);
}

/* ---- files ---- */

/* A Lua of other sizes than the one that compiled them refuses the code, and compiles the text. */
int gqL_loadembedded(lua_State *L, const gq_embedded *f) {
  const char *chunk = lua_pushfstring(L, "=gq/%s.lua", f->name);
  int status = luaL_loadbufferx(L, f->code, f->ncode, chunk, "b");
  if (status == LUA_ERRSYNTAX) {
    lua_pop(L, 1);
    status = luaL_loadbufferx(L, f->text, f->ntext, chunk, "t");
  }
  lua_remove(L, -2);
  if (status == LUA_OK && lua_rawgetp(L, LUA_REGISTRYINDEX, &own) == LUA_TTABLE) lua_setupvalue(L, -2, 1);
  else if (status == LUA_OK) lua_pop(L, 1);
  return status;
}

static const gq_embedded *find_file(lua_State *L, const char *name) {
  const gq_embedded *f = gqL_embedded(name);
  if (!f) gqL_error(L, "the file gq/%s.lua is missing from this build", name);
  return f;
}

/* core.source(name): the text of a file of ours. */
static int source(lua_State *L) {
  const gq_embedded *f = find_file(L, luaL_checkstring(L, 1));
  lua_pushlstring(L, f->text, f->ntext);
  return 1;
}

static void push_file(lua_State *L, const char *name) {
  if (gqL_loadembedded(L, find_file(L, name)) != LUA_OK) lua_error(L);
}

/* load(name): run lua/gq/<name>.lua with the module table; its result. */
static int load_embedded(lua_State *L) {
  push_file(L, luaL_checkstring(L, 1));
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_call(L, 1, 1);
  return 1;
}

/* core.fail(text): an error of our own Lua files, at the line of the script that called them. */
static int fail(lua_State *L) {
  const char *text = luaL_checkstring(L, 1);
  luaL_argcheck(L, *text, 1, "a message expected");
  return gqL_error(L, "%s", text);
}

int luaopen_gq_core(lua_State *L) {
  static const luaL_Reg core[] = { { "fail", fail }, { "source", source }, { NULL, NULL } };
  lua_settop(L, 0);
  gqL_keepglobals(L);
  lua_newtable(L);
  lua_newtable(L); /* help texts by function */
  lua_setfield(L, -2, "docs");
  lua_newtable(L);
  lua_newtable(L);
  lua_setfield(L, -2, "methods"); /* what x:name() finds; Lua files add theirs */
  luaL_setfuncs(L, core, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, LUA_REGISTRYINDEX, GQL_CORE);
  lua_setfield(L, -2, "core");
  gqL_open_handle(L);
  gqL_open_tensor(L);
  gqL_open_make(L);
  gqL_open_shape(L);
  gqL_open_window(L);
  gqL_open_ops(L);
  gqL_open_linear(L);
  gqL_open_autograd(L);
  gqL_open_trace(L);
  gqL_open_ode(L);
  gqL_open_tables(L);
  gqL_open_brownian(L);
  gqL_open_sde(L);
  gqL_open_optim(L);
  gqL_open_io(L);
  gqL_open_json(L);
  gqL_open_data(L);
  gqL_open_batches(L);
  gqL_open_system(L);
  gqL_open_process(L);
  return 1;
}

/* init.lua is called with the table and a loader for its neighbours. */
int luaopen_gq(lua_State *L) {
  luaopen_gq_core(L);
  push_file(L, "init");
  lua_pushvalue(L, 1);
  lua_pushvalue(L, 1);
  lua_pushcclosure(L, load_embedded, 1);
  lua_call(L, 2, 0);
  lua_settop(L, 1);
  return 1;
}
