/*
** l_process.c -- other programs, for gq.sweep: spawned (never forked: we own threads), watched, ended. A lock that
** ends with its process. All in gq.core, for our own Lua files.
*/
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "bind.h"

#define PROCESS "gq.process"
#define LOCK "gq.lock"

extern char **environ;

/* ---- processes ---- */

typedef struct process {
  pid_t pid; /* 0: none */
  bool ended;
  int status;
} process;

static process *checkprocess(lua_State *L) { return luaL_checkudata(L, 1, PROCESS); }

/* Whether it has ended; waits where `wait`. */
static bool reap(process *p, bool wait) {
  pid_t got;
  if (p->pid == 0 || p->ended) return true;
  do got = waitpid(p->pid, &p->status, wait ? 0 : WNOHANG);
  while (got < 0 && errno == EINTR);
  if (got != 0) p->ended = true;
  if (got < 0) p->status = 0; /* somebody else has taken its status */
  return p->ended;
}

/* The argument's strings, NULL last, in a userdata (pushed) beside the table that owns them. */
static char **checkwords(lua_State *L, int arg) {
  gqL_checktype(L, arg, LUA_TTABLE);
  int n = (int)luaL_len(L, arg);
  luaL_argcheck(L, n > 0, arg, "a program expected");
  char **words = lua_newuserdatauv(L, ((size_t)n + 1) * sizeof *words, 0);
  for (int i = 0; i < n; i++) {
    if (lua_rawgeti(L, arg, i + 1) != LUA_TSTRING) gqL_badarg(L, arg, "strings expected");
    words[i] = (char *)lua_tostring(L, -1);
    lua_pop(L, 1);
  }
  words[n] = NULL;
  return words;
}

/* spawn({program, arguments...}, log): runs it without input, with output and errors in the file log. */
static int spawn(lua_State *L) {
  posix_spawn_file_actions_t files;
  const char *log = luaL_checkstring(L, 2);
  char **words = checkwords(L, 1);
  process *p = lua_newuserdatauv(L, sizeof *p, 0);
  memset(p, 0, sizeof *p);
  luaL_setmetatable(L, PROCESS);
  int error = posix_spawn_file_actions_init(&files);
  if (error) return gqL_error(L, "spawn: %s", strerror(error));
  if (!(error = posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0)) &&
      !(error = posix_spawn_file_actions_addopen(&files, 1, log, O_WRONLY | O_CREAT | O_APPEND, 0666)) &&
      !(error = posix_spawn_file_actions_adddup2(&files, 1, 2)))
    error = posix_spawnp(&p->pid, words[0], &files, NULL, words, environ);
  posix_spawn_file_actions_destroy(&files);
  if (error) {
    p->pid = 0;
    return gqL_error(L, "spawn: %s: %s", words[0], strerror(error));
  }
  return 1;
}

/* p:poll(): nothing while it runs; then "exit", code or "signal", number */
static int process_poll(lua_State *L) {
  process *p = checkprocess(L);
  if (!reap(p, false)) return 0;
  bool signalled = WIFSIGNALED(p->status);
  lua_pushstring(L, signalled ? "signal" : "exit");
  lua_pushinteger(L, signalled ? WTERMSIG(p->status) : WEXITSTATUS(p->status));
  return 2;
}

/* p:kill([now]): asks it to end, or ends it */
static int process_kill(lua_State *L) {
  process *p = checkprocess(L);
  if (!reap(p, false)) kill(p->pid, lua_toboolean(L, 2) ? SIGKILL : SIGTERM);
  return 0;
}

static int process_pid(lua_State *L) {
  lua_pushinteger(L, checkprocess(L)->pid);
  return 1;
}

static int process_gc(lua_State *L) {
  process *p = checkprocess(L);
  if (!reap(p, false)) kill(p->pid, SIGKILL);
  reap(p, true);
  return 0;
}

/* ---- locks ---- */

/* lock(path, shared): the lock, held until it is closed or we end; nothing where another process holds it. */
static int lock(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  int how = lua_toboolean(L, 2) ? LOCK_SH : LOCK_EX;
  int *fd = lua_newuserdatauv(L, sizeof *fd, 0);
  *fd = -1;
  luaL_setmetatable(L, LOCK);
  *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (*fd < 0) return gqL_error(L, "%s: %s", path, strerror(errno));
  if (flock(*fd, how | LOCK_NB) == 0) return 1;
  if (errno != EWOULDBLOCK) return gqL_error(L, "%s: %s", path, strerror(errno));
  return 0;
}

static int lock_gc(lua_State *L) {
  int *fd = luaL_checkudata(L, 1, LOCK);
  if (*fd >= 0) close(*fd);
  *fd = -1;
  return 0;
}

/* ---- the rest ---- */

/* Shorter where a signal comes, so that Ctrl-C is not kept waiting. */
static int nap(lua_State *L) {
  lua_Number s = luaL_checknumber(L, 1);
  luaL_argcheck(L, s >= 0 && s <= 0.1, 1, "seconds up to 0.1 expected");
  struct timespec t = { (time_t)s, (long)((s - (lua_Number)(time_t)s) * 1e9) };
  nanosleep(&t, NULL);
  return 0;
}

/* The path of the program that runs us. */
static int executable(lua_State *L) {
  char path[4096];
  ssize_t n = readlink("/proc/self/exe", path, sizeof path);
  if (n < 0 || n == (ssize_t)sizeof path) return 0;
  lua_pushlstring(L, path, (size_t)n);
  return 1;
}

static int hostname(lua_State *L) {
  char name[256];
  if (gethostname(name, sizeof name) != 0) return 0;
  name[sizeof name - 1] = '\0';
  lua_pushstring(L, name);
  return 1;
}

static int close_directory(lua_State *L) {
  DIR **d = lua_touserdata(L, 1);
  if (*d) closedir(*d);
  *d = NULL;
  return 0;
}

/* The names in a directory; nothing and why where it cannot be read. */
static int directory(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  DIR **d = lua_newuserdatauv(L, sizeof(DIR *), 0);
  *d = NULL;
  gqL_pushclass(L, "gq.directory", close_directory);
  lua_setmetatable(L, -2);
  *d = opendir(path);
  if (!*d) {
    lua_pushnil(L);
    lua_pushfstring(L, "%s: %s", path, strerror(errno));
    return 2;
  }
  lua_newtable(L);
  int n = 0;
  for (struct dirent *e; (e = readdir(*d));) {
    if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
    lua_pushstring(L, e->d_name);
    lua_rawseti(L, -2, ++n);
  }
  closedir(*d);
  *d = NULL;
  return 1;
}

void gqL_open_process(lua_State *L) {
  static const luaL_Reg functions[] = {
    { "spawn", spawn },       { "lock", lock },           { "nap", nap }, { "executable", executable },
    { "hostname", hostname }, { "directory", directory }, { NULL, NULL }
  };
  static const luaL_Reg process_meta[] = { { "__gc", process_gc },
                                           { "__close", process_gc },
                                           { NULL, NULL } };
  static const luaL_Reg of_process[] = {
    { "poll", process_poll }, { "kill", process_kill }, { "pid", process_pid }, { NULL, NULL }
  };
  static const luaL_Reg lock_meta[] = { { "__gc", lock_gc }, { "__close", lock_gc }, { NULL, NULL } };
  static const luaL_Reg of_lock[] = { { "close", lock_gc }, { NULL, NULL } };
  gqL_class(L, PROCESS, process_meta, of_process);
  gqL_class(L, LOCK, lock_meta, of_lock);
  gqL_core(L, functions);
}
