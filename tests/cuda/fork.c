/*
** fork.c -- require "fork": fork.child(f) calls f in a child process, which ends without cleaning up; its exit code.
*/
#include <lauxlib.h>
#include <lua.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static int child(lua_State *L) {
  int status = 0;
  fflush(NULL);
  pid_t pid = fork();
  if (pid == 0) {
    int failed = lua_pcall(L, lua_gettop(L) - 1, 0, 0);
    if (failed) printf("%s\n", lua_tostring(L, -1));
    fflush(NULL);
    _exit(failed);
  }
  if (pid < 0 || waitpid(pid, &status, 0) != pid) return luaL_error(L, "no child");
  lua_pushinteger(L, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
  return 1;
}

int luaopen_fork(lua_State *L) {
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, child);
  lua_setfield(L, -2, "child");
  return 1;
}
