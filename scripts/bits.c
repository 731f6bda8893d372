/*
** bits.c -- the interpreter of scripts/bits.lua: Lua with gq from a libgq.a, of this or of another commit, and what
** a script cannot reach. Hence no header of the runtime: every declaration here must hold for both libraries.
**   bits_host.kernels(name): run on these kernels from now on -> whether this processor and build have them
**   bits_host.programs(): the text of all programs compiled since the last call
** Linked with --wrap=gq_program_new, so that every program of every solve is seen.
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <lauxlib.h>
#include <lualib.h>

const void *gq_cpu_find(const char *name);
void gq_cpu_use(const void *kernels);
char *gq_program_print(const void *p);
void gq_free(void *p);
int luaopen_gq(lua_State *L);
/* (graph, n, outs, program), and a backend in front where the library has them */
int __real_gq_program_new(void *a, void *b, void *c, void *d, void *e);
int __wrap_gq_program_new(void *a, void *b, void *c, void *d, void *e);
extern const char gq_cpu_backend __attribute__((weak));

static struct {
  char *text;
  size_t n, room;
} seen;

static void add(const char *text) {
  size_t n = strlen(text);
  if (seen.n + n + 1 > seen.room) {
    seen.room = 2 * (seen.n + n + 1);
    seen.text = realloc(seen.text, seen.room);
    if (!seen.text) abort();
  }
  memcpy(seen.text + seen.n, text, n + 1);
  seen.n += n;
}

int __wrap_gq_program_new(void *a, void *b, void *c, void *d, void *e) {
  int status = __real_gq_program_new(a, b, c, d, e);
  void **p = &gq_cpu_backend ? e : d;
  char *text = status == 0 ? gq_program_print(*p) : NULL;
  if (text) add(text);
  gq_free(text);
  return status;
}

static int programs(lua_State *L) {
  lua_pushlstring(L, seen.text ? seen.text : "", seen.n);
  seen.n = 0;
  return 1;
}

static int kernels(lua_State *L) {
  const void *k = gq_cpu_find(luaL_checkstring(L, 1));
  if (k) gq_cpu_use(k);
  lua_pushboolean(L, k != NULL);
  return 1;
}

static const luaL_Reg host[] = { { "kernels", kernels }, { "programs", programs }, { NULL, NULL } };

static int trace(lua_State *L) {
  luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
  return 1;
}

int main(int argc, char **argv) {
  lua_State *L = luaL_newstate();
  if (!L || argc < 2) return 2;
  luaL_openlibs(L);
  luaL_requiref(L, "gq", luaopen_gq, 0);
  luaL_newlib(L, host);
  lua_setglobal(L, "bits_host");
  lua_createtable(L, argc, 0);
  for (int i = 1; i < argc; i++) lua_pushstring(L, argv[i]), lua_rawseti(L, -2, i - 1);
  lua_setglobal(L, "arg");
  lua_pushcfunction(L, trace);
  int handler = lua_gettop(L), bad = luaL_loadfile(L, argv[1]) || lua_pcall(L, 0, 0, handler);
  if (bad) fprintf(stderr, "%s\n", lua_tostring(L, -1));
  fflush(NULL);
  lua_close(L);
  return bad ? 2 : 0;
}
