/*
** gqlua.c -- the command: options, scripts, errors. It follows lua.c (Lua 5.4) in what scripts
** see (arg, exit codes, tracebacks) and differs in three things: source text only, wherever code
** is loaded; `require "gq"` finds the module inside this binary; LUA_INIT is ignored.
*/
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <lualib.h>

#include "bind.h"
#include "gqlua.h"

static const char usage_text[] =
  "usage: gqlua [options] [script [args]]\n"
  "  -e CODE              run CODE (gq is a global there)\n"
  "  -l MODULE            require MODULE into a global of that name (NAME=MODULE: another name)\n"
  "  -i                   enter the REPL after the script\n"
  "  -v, --version        show versions, device, BLAS and threads\n"
  "  --device cpu|cuda    where tensors live and solves run\n"
  "  --threads N          workers for a solve\n"
  "  --seed N             seed of the random generator\n"
  "  --dtype float32|float64   dtype of new tensors\n"
  "  -h, --help           show this text\n"
  "  --                   end of options\n"
  "  -                    read the script from standard input\n"
  "gqlua plot FILES... draws what trainings logged; gqlua sweep SCRIPT... runs a script over many\n"
  "settings, gqlua table DIR... makes a table of that; each has its own --help.\n"
  "Without a script, -e or -v: the REPL on a terminal, otherwise standard input is the script.\n"
  "Scripts load as source text only. LUA_PATH and LUA_CPATH are honoured, LUA_INIT is not.\n";

typedef struct options {
  bool interactive, version, help, code; /* code: some -e */
  const char *device, *threads, *seed, *dtype;
  int script; /* index in argv; argc: none */
} options;

/* ---- source text only ---- */

static lua_CFunction base_load, base_loadfile;

/* Put a clearer message in place of Lua's own about a binary chunk (on top of the stack). */
static void explain_refusal(lua_State *L, const char *where_) {
  static const char theirs[] = "attempt to load a binary chunk (mode is";
  const char *msg = lua_tostring(L, -1);
  if (msg && strncmp(msg, theirs, sizeof theirs - 1) == 0) {
    lua_pop(L, 1);
    lua_pushfstring(L, "%s%sbinary chunks are refused: gqlua loads Lua source text only",
                    where_ ? where_ : "", where_ ? ": " : "");
  }
}

/* The mode argument with "b" struck out. */
static void force_text(lua_State *L, int arg) {
  const char *mode = luaL_optstring(L, arg, "t");
  lua_pushstring(L, strchr(mode, 't') ? "t" : "");
  lua_replace(L, arg);
}

static int text_load(lua_State *L) {
  int n;
  if (lua_isnone(L, 1)) return base_load(L); /* to be told so */
  if (lua_gettop(L) < 3) lua_settop(L, 3);
  force_text(L, 3);
  n = base_load(L); /* same frame: its errors name `load` */
  if (n == 2) explain_refusal(L, NULL);
  return n;
}

static int text_loadfile(lua_State *L) {
  int n;
  if (lua_gettop(L) < 2) lua_settop(L, 2);
  force_text(L, 2);
  n = base_loadfile(L);
  if (n == 2) explain_refusal(L, lua_tostring(L, 1));
  return n;
}

static int load_script(lua_State *L, const char *name_) {
  int status = luaL_loadfilex(L, name_, "t");
  if (status != LUA_OK) explain_refusal(L, name_);
  return status;
}

static int after_dofile(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  return lua_gettop(L) - 1;
}

static int text_dofile(lua_State *L) {
  const char *name = luaL_optstring(L, 1, NULL);
  lua_settop(L, 1);
  if (load_script(L, name) != LUA_OK) return lua_error(L);
  lua_callk(L, 0, LUA_MULTRET, 0, after_dofile);
  return after_dofile(L, 0, 0);
}

/* Second entry of package.searchers; upvalues: package, package.searchpath. */
static int text_searcher(lua_State *L) {
  const char *name = luaL_checkstring(L, 1), *file;
  lua_settop(L, 1);
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_pushvalue(L, 1);
  if (lua_getfield(L, lua_upvalueindex(1), "path") != LUA_TSTRING)
    return luaL_error(L, "'package.path' must be a string");
  lua_call(L, 2, 2);
  file = lua_tostring(L, 2);
  if (!file) return 1; /* where it was looked for */
  if (load_script(L, file) != LUA_OK)
    return luaL_error(L, "error loading module '%s' from file '%s':\n\t%s", name, file, lua_tostring(L, -1));
  lua_pushvalue(L, 2);
  return 2;
}

/* debug.debug() compiles what is typed, too. */
static int text_debug(lua_State *L) {
  char line[256];
  for (;;) {
    fputs("lua_debug> ", stderr);
    fflush(stderr);
    if (!fgets(line, sizeof line, stdin) || strcmp(line, "cont\n") == 0) return 0;
    if (luaL_loadbufferx(L, line, strlen(line), "=(debug command)", "t") || lua_pcall(L, 0, 0, 0))
      fprintf(stderr, "%s\n", luaL_tolstring(L, -1, NULL));
    lua_settop(L, 0);
  }
}

static void refuse_binary(lua_State *L) {
  static const luaL_Reg base[] = {
    { "load", text_load }, { "loadfile", text_loadfile }, { "dofile", text_dofile }, { NULL, NULL }
  };
  lua_pushglobaltable(L);
  lua_getfield(L, -1, "load");
  lua_getfield(L, -2, "loadfile");
  base_load = lua_tocfunction(L, -2);
  base_loadfile = lua_tocfunction(L, -1);
  lua_pop(L, 2);
  luaL_setfuncs(L, base, 0);
  lua_getfield(L, -1, "debug");
  lua_pushcfunction(L, text_debug);
  lua_setfield(L, -2, "debug");
  lua_getfield(L, -2, "package");
  lua_getfield(L, -1, "searchers");
  lua_pushvalue(L, -2);
  lua_getfield(L, -3, "searchpath");
  lua_pushcclosure(L, text_searcher, 2);
  lua_rawseti(L, -2, 2);
  lua_pop(L, 4);
}

/* ---- options ---- */

/* The value of option argv[*i]: what follows `=`, or the next argument; NULL: there is none. */
static const char *value_of(char **argv, int argc, int *i, size_t name_length) {
  const char *rest = argv[*i] + name_length;
  if (*rest) return *rest == '=' && argv[*i][1] == '-' ? rest + 1 : rest;
  return *i + 1 < argc ? argv[++*i] : NULL;
}

static bool bad_option(const char *given, const char *what) {
  fprintf(stderr, "gqlua: %s: %s\n%s", given, what, usage_text);
  return false;
}

static bool long_option(char **argv, int argc, int *i, options *o) {
  static const char *const names[] = { "--device", "--threads", "--seed", "--dtype" };
  const char **places[] = { &o->device, &o->threads, &o->seed, &o->dtype };
  const char *arg = argv[*i];
  if (strcmp(arg, "--help") == 0) return o->help = true;
  if (strcmp(arg, "--version") == 0) return o->version = true;
  for (int k = 0; k < 4; k++) {
    size_t n = strlen(names[k]);
    if (strncmp(arg, names[k], n) != 0 || (arg[n] && arg[n] != '=')) continue;
    *places[k] = value_of(argv, argc, i, n);
    return *places[k] && **places[k] ? true : bad_option(arg, "needs a value");
  }
  return bad_option(arg, "unknown option");
}

static bool short_option(char **argv, int argc, int *i, options *o) {
  const char *arg = argv[*i];
  if (arg[1] == 'e' || arg[1] == 'l') {
    o->code |= arg[1] == 'e';
    return value_of(argv, argc, i, 2) ? true : bad_option(arg, "needs an argument");
  }
  if (arg[2] != '\0') return bad_option(arg, "unknown option");
  switch (arg[1]) {
    case 'i': return o->interactive = true;
    case 'v': return o->version = true;
    case 'h': return o->help = true;
    default: return bad_option(arg, "unknown option");
  }
}

/* false: something was wrong, and said so. */
static bool parse(char **argv, int argc, options *o) {
  int i;
  memset(o, 0, sizeof *o);
  for (i = 1; i < argc && argv[i][0] == '-' && argv[i][1] != '\0'; i++) {
    if (strcmp(argv[i], "--") == 0) {
      i++;
      break;
    }
    if (!(argv[i][1] == '-' ? long_option : short_option)(argv, argc, &i, o)) return false;
  }
  o->script = i;
  return true;
}

/* ---- running ---- */

static bool report(lua_State *L, int status) {
  if (status == LUA_OK) return true;
  fflush(stdout);
  fprintf(stderr, "gqlua: %s\n", luaL_tolstring(L, -1, NULL));
  lua_pop(L, 2);
  return false;
}

/* arg[0] is the script (or the command), arguments follow, options are below zero: lua.c. */
static void set_arg(lua_State *L, char **argv, int argc, int script) {
  int zero = script < argc ? script : 0;
  lua_createtable(L, argc - zero, zero + 1);
  for (int i = 0; i < argc; i++) {
    lua_pushstring(L, argv[i]);
    lua_rawseti(L, -2, i - zero);
  }
  lua_setglobal(L, "arg");
}

static int push_args(lua_State *L) {
  int n;
  if (lua_getglobal(L, "arg") != LUA_TTABLE) return luaL_error(L, "'arg' is not a table");
  n = (int)luaL_len(L, -1);
  luaL_checkstack(L, n + 3, "too many arguments to script");
  for (int i = 1; i <= n; i++) lua_rawgeti(L, -i, i);
  lua_remove(L, -(n + 1));
  return n;
}

static bool run_script(lua_State *L, const char *name_) {
  int status = load_script(L, name_);
  if (status == LUA_OK) status = gqlua_call(L, push_args(L), 0);
  return report(L, status);
}

static bool run_code(lua_State *L, const char *code) {
  int status = luaL_loadbufferx(L, code, strlen(code), "=(command line)", "t");
  if (status != LUA_OK) explain_refusal(L, NULL);
  else status = gqlua_call(L, 0, 0);
  return report(L, status);
}

static const char first_require; /* its address is the registry's key */

/* What require gives, whatever a script has made of the global by now. */
static bool push_module(lua_State *L, const char *name) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &first_require);
  lua_pushstring(L, name);
  return report(L, gqlua_call(L, 1, 1));
}

/* require NAME into the global NAME. */
static bool run_require(lua_State *L, const char *name) {
  const char *module = strchr(name, '=');
  if (module) lua_pushlstring(L, name, (size_t)(module - name));
  else lua_pushstring(L, name);
  if (!push_module(L, module ? module + 1 : name)) return lua_pop(L, 1), false;
  lua_pushglobaltable(L);
  lua_insert(L, -3);
  lua_rawset(L, -3);
  lua_pop(L, 1);
  return true;
}

/* Give the global gq the module (on), or take it away again where it still is the module. */
static bool global_gq(lua_State *L, bool on) {
  bool ours;
  if (!push_module(L, "gq")) return false;
  ours = lua_getglobal(L, "gq") != LUA_TNIL && lua_rawequal(L, -1, -2);
  lua_pop(L, 1);
  if (on || ours) {
    if (!on) lua_pushnil(L);
    lua_setglobal(L, "gq");
  }
  lua_settop(L, 0);
  return true;
}

/* -e and -l in the order given. */
static bool run_options(lua_State *L, char **argv, const options *o) {
  bool ok = !o->code || global_gq(L, true);
  for (int i = 1; ok && i < o->script; i++) {
    char c = argv[i][1];
    if (argv[i][0] != '-' || (c == '-' && argv[i][2] == '\0')) continue;
    if (c == '-') {
      i += strchr(argv[i], '=') == NULL && strcmp(argv[i], "--version") != 0;
      continue;
    }
    if (c != 'e' && c != 'l') continue;
    const char *value = value_of(argv, o->script, &i, 2);
    ok = c == 'e' ? run_code(L, value) : run_require(L, value);
  }
  return ok && o->code ? global_gq(L, false) : ok;
}

/* What the function had against its argument, without its own name. */
static void refuse_value(const char *option, const char *value, const char *text) {
  static const char bad[] = "bad argument #1 to ";
  const char *why = strncmp(text, bad, sizeof bad - 1) ? strstr(text, ": ") : strchr(text, '(');
  size_t n = strlen(why = why ? why + 1 : text);
  while (*why == ' ') why++, n--;
  if (strncmp(text, bad, sizeof bad - 1) == 0 && n && why[n - 1] == ')') n--;
  fprintf(stderr, "gqlua: %s %s: %.*s\n", option, value, (int)n, why);
}

/* Call gq[name](value); the value of an option is a number where it reads as one. */
static bool set_default(lua_State *L, const char *option, const char *name, const char *value_, bool number) {
  if (!value_) return true;
  if (!push_module(L, "gq")) return false;
  lua_getfield(L, -1, name);
  if (!number || lua_stringtonumber(L, value_) == 0) lua_pushstring(L, value_);
  bool ok = lua_pcall(L, 1, 0, 0) == LUA_OK;
  if (!ok) refuse_value(option, value_, luaL_tolstring(L, -1, NULL));
  lua_settop(L, 0);
  return ok;
}

static void show_version(void) {
  printf("gqlua %s, %s\n", GQ_VERSION, LUA_RELEASE);
  printf("device   cpu, %s kernels\n", gq_cpu_kernels());
  printf("BLAS     %s\n", gq_blas_name());
  printf("threads  %d\n", gq_threads());
  fflush(stdout);
}

static bool is_file(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && !S_ISDIR(st.st_mode);
}

/* `gqlua plot`, unless there is a file of that name: command/plot.lua */
static const gq_embedded *command(const char *name) {
  char path[64];
  if (strlen(name) > 32 || strchr(name, '/') || is_file(name)) return NULL;
  snprintf(path, sizeof path, "command/%s", name);
  return gqL_embedded(path);
}

static bool run_command(lua_State *L, const gq_embedded *f) {
  int status = gqL_loadembedded(L, f);
  if (status == LUA_OK) status = gqlua_call(L, push_args(L), 0);
  return report(L, status);
}

/* repl.lua gets gq and returns a table; its run gets the terminal. */
static bool run_repl(lua_State *L) {
  const gq_embedded *f = gqL_embedded("repl");
  int status;
  if (!global_gq(L, true)) return false;
  if (!f || gqL_loadembedded(L, f) != LUA_OK)
    return fprintf(stderr, "gqlua: the REPL is missing from this build\n"), false;
  lua_getglobal(L, "gq");
  if (!report(L, lua_pcall(L, 1, 1, 0))) return false;
  lua_getfield(L, -1, "run");
  gqlua_pushterminal(L);
  status = lua_pcall(L, 1, 0, 0);
  gqlua_closeterminal();
  return report(L, status);
}

static void open_libraries(lua_State *L) {
  luaL_openlibs(L);
  refuse_binary(L);
  gqL_keepglobals(L);
  lua_getglobal(L, "require");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &first_require);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, luaopen_gq);
  lua_setfield(L, -2, "gq");
  lua_pop(L, 1);
  lua_warning(L, "@on", 0);
}

/* Where the script is: in the current folder; otherwise among the examples beside this program, or installed with
** it, where that is said. In the buffer, or the name itself. */
static const char *find_script(const char *name, char *buffer, size_t size) {
  static const char *const places[] = { "examples", "../share/gqlua/examples", NULL };
  const char *base = strncmp(name, "examples/", 9) == 0 ? name + 9 : name;
  char program[1024];
  if (is_file(name) || strchr(base, '/')) return name;
  ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
  if (n < 0) return name;
  program[n] = '\0';
  *strrchr(program, '/') = '\0';
  for (const char *const *p = places; *p; p++) {
    if (snprintf(buffer, size, "%s/%s/%s", program, *p, base) >= (int)size || !is_file(buffer)) continue;
    fprintf(stderr, "gqlua: running %s\n", buffer);
    return buffer;
  }
  return name;
}

static bool run_main(lua_State *L, char **argv, int argc, const options *o) {
  bool script = o->script < argc, terminal = isatty(STDIN_FILENO);
  if (o->version) show_version();
  if (script) {
    const char *name = argv[o->script];
    bool from_stdin = strcmp(name, "-") == 0 && strcmp(argv[o->script - 1], "--") != 0;
    const gq_embedded *f = command(name);
    char found[2048];
    const char *path = from_stdin || f ? NULL : find_script(name, found, sizeof found);
    if (path == found) { /* arg[0], from which scripts find their neighbours */
      lua_getglobal(L, "arg");
      lua_pushstring(L, path);
      lua_rawseti(L, -2, 0);
      lua_pop(L, 1);
    }
    if (!(f ? run_command(L, f) : run_script(L, path))) return false;
  }
  if (o->interactive) return run_repl(L);
  if (script || o->code || o->version) return true;
  return terminal ? run_repl(L) : run_script(L, NULL);
}

/* Protected; returns whether all went well. */
static int protected_main(lua_State *L) {
  int argc = (int)lua_tointeger(L, 1);
  char **argv = lua_touserdata(L, 2);
  const options *o = lua_touserdata(L, 3);
  lua_settop(L, 0);
  open_libraries(L);
  set_arg(L, argv, argc, o->script);
  bool ok = set_default(L, "--threads", "set_threads", o->threads, true) &&
            set_default(L, "--dtype", "set_default_dtype", o->dtype, false) &&
            set_default(L, "--device", "set_default_device", o->device, false) &&
            set_default(L, "--seed", "manual_seed", o->seed, true) && run_options(L, argv, o) &&
            run_main(L, argv, argc, o);
  lua_pushboolean(L, ok);
  return 1;
}

/* What was printed is written, or that is a failure. */
static bool written(void) {
  if (fflush(stdout) == 0 && !ferror(stdout)) return true;
  return fprintf(stderr, "gqlua: standard output could not be written: is the disk full?\n"), false;
}

int main(int argc, char **argv) {
  options o;
  bool ok, interrupted;
  lua_State *L;
  if (!parse(argv, argc, &o)) return EXIT_FAILURE;
  if (o.help) return fputs(usage_text, stdout) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
  if (!(L = luaL_newstate()))
    return fprintf(stderr, "gqlua: not enough memory for a Lua state\n"), EXIT_FAILURE;
  lua_setallocf(L, gqlua_alloc, NULL);
  gqlua_signals(L);
  gqL_host_interrupts = true;
  lua_pushcfunction(L, protected_main);
  lua_pushinteger(L, argc);
  lua_pushlightuserdata(L, argv);
  lua_pushlightuserdata(L, &o);
  ok = report(L, lua_pcall(L, 3, 1, 0)) && lua_toboolean(L, -1);
  interrupted = !ok && gqlua_was_interrupted();
  lua_close(L);
  if (interrupted) gqlua_die_interrupted();
  return written() && ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
