/*
** gqlua_term.c -- Ctrl-C, and the terminal under the REPL (lua/gq/repl.lua).
**
** Ctrl-C does two things at once: gq_interrupt() stops a solve inside C, and a hook stops plain
** Lua, as in lua.c. Whichever is reached first clears the flag, so one Ctrl-C is one error. Until
** then the default action is back, so a second Ctrl-C ends a process that does not listen.
*/
#define _GNU_SOURCE /* wcwidth */
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <lauxlib.h>

#include "../runtime/base/base.h"
#include "gqlua.h"

#ifdef GQ_LIBEDIT
#include <histedit.h>
#include <poll.h>
#include <wchar.h>
#endif

/* ---- Ctrl-C ---- */

static lua_State *main_state;
static volatile sig_atomic_t hit; /* a Ctrl-C came since the last arm */
static bool ignored;              /* started with SIGINT ignored (nohup, &): stay so */
static bool prompting;            /* the REPL runs: between calls Ctrl-C discards the line */

static void set_action(void (*handler)(int), int flags) {
  struct sigaction sa;
  if (ignored) return;
  memset(&sa, 0, sizeof sa);
  sa.sa_handler = handler;
  sa.sa_flags = flags; /* no SA_RESTART: a blocked read must return */
  sigemptyset(&sa.sa_mask);
  sigaction(SIGINT, &sa, NULL);
}

static void on_call(int sig);

static void stop_hook(lua_State *L, lua_Debug *ar) {
  lua_Debug at;
  int level = 0;
  (void)ar;
  lua_sethook(L, NULL, 0, 0);
  set_action(on_call, SA_RESETHAND);
  if (!gq_interrupted()) /* a solve has already raised it */
    return;
  gq_interrupt_clear();
  while (lua_getstack(L, level, &at) && lua_getinfo(L, "S", &at) &&
         (!strncmp(at.source, "=gq/", 4) || *at.what == 'C'))
    level++;
  luaL_where(L, level); /* the script's own line */
  lua_pushliteral(L, "interrupted!");
  lua_concat(L, 2);
  lua_error(L);
}

static void on_call(int sig) {
  (void)sig;
  hit = 1;
  gq_interrupt();
  lua_sethook(main_state, stop_hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
}

static void on_prompt(int sig) {
  (void)sig;
  hit = 1;
}

void gqlua_signals(lua_State *L) {
  struct sigaction old;
  main_state = L;
  ignored = sigaction(SIGINT, NULL, &old) == 0 && old.sa_handler == SIG_IGN;
}

/* From here Ctrl-C raises "interrupted!". */
static void arm(void) {
  hit = 0;
  gq_interrupt_clear();
  set_action(on_call, SA_RESETHAND);
}

/* Ctrl-C ends the process again, or discards the line inside the REPL. */
static void disarm(lua_State *L) {
  set_action(prompting ? on_prompt : SIG_DFL, 0);
  lua_sethook(L, NULL, 0, 0);
  gq_interrupt_clear();
}

bool gqlua_was_interrupted(void) { return hit != 0; }

void gqlua_die_interrupted(void) {
  fflush(NULL);
  set_action(SIG_DFL, 0);
  raise(SIGINT);
}

/* Message handler: a string gets a traceback, other error objects their __tostring. */
static int with_traceback(lua_State *L) {
  const char *msg = lua_tostring(L, 1);
  if (!msg) {
    if (luaL_callmeta(L, 1, "__tostring") && lua_type(L, -1) == LUA_TSTRING) return 1;
    msg = lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
  }
  if (hit && !prompting && strstr(msg, "interrupted")) return 1; /* the place is enough */
  luaL_traceback(L, L, msg, 1);
  return 1;
}

int gqlua_call(lua_State *L, int nargs, int nresults) {
  int status, base = lua_gettop(L) - nargs;
  lua_pushcfunction(L, with_traceback);
  lua_insert(L, base);
  arm();
  status = lua_pcall(L, nargs, nresults, base);
  disarm(L);
  lua_remove(L, base);
  return status;
}

/* ---- reading a line ---- */

static int interrupted_line(lua_State *L) {
  hit = 0;
  clearerr(stdin);
  lua_pushnil(L);
  lua_pushliteral(L, "interrupt");
  return 2;
}

static int end_of_input(lua_State *L) {
  lua_pushnil(L);
  lua_pushliteral(L, "end");
  return 2;
}

/* Pushes a line without its newline; false at the end of input. */
static bool plain_line(lua_State *L) {
  char piece[512];
  luaL_Buffer b;
  bool any = false;
  luaL_buffinit(L, &b);
  while (fgets(piece, sizeof piece, stdin)) {
    size_t n = strlen(piece);
    bool last = n > 0 && piece[n - 1] == '\n';
    luaL_addlstring(&b, piece, last ? n - 1 : n);
    any = true;
    if (last) break;
  }
  luaL_pushresult(&b);
  return any;
}

static int read_plain(lua_State *L, const char *prompt) {
  fputs(prompt, stdout);
  fflush(stdout);
  hit = 0;
  if (plain_line(L) && !hit) return 1;
  return hit ? interrupted_line(L) : end_of_input(L);
}

#ifdef GQ_LIBEDIT

static EditLine *editor;
static History *history_;
static const char *editor_prompt = "";
static lua_State *editor_state; /* valid inside read_edited */
static int completer = LUA_NOREF, painter = LUA_NOREF;
static volatile sig_atomic_t moved; /* the signal since which the line may stand elsewhere */

static char *get_prompt(EditLine *e) {
  (void)e;
  return (char *)editor_prompt;
}

typedef struct {
  int row, column;
} place;

/*
** Where a text ends on a screen of so many columns, as libedit lays it out; false where it has control characters, or a
** row that is full before a newline: then libedit leaves one empty that a terminal does not.
*/
static bool lay_out(const char *s, const char *end, int columns, place *at) {
  bool full = false;
  mbstate_t state;
  memset(&state, 0, sizeof state);
  while (s < end) {
    wchar_t c;
    size_t n = mbrtowc(&c, s, (size_t)(end - s), &state);
    if (n == 0 || n > (size_t)(end - s)) return false;
    int width = c == L'\n' ? columns - at->column : wcwidth(c);
    if (width < 0 || (full && c == L'\n')) return false;
    if (at->column + width > columns) at->row++, at->column = 0;
    at->column += width;
    full = at->column >= columns && c != L'\n';
    if (at->column >= columns) at->row++, at->column = 0;
    s += n;
  }
  return true;
}

/* Where the line begins, ends and has its cursor, behind a prompt in row 0; false where that cannot be told. */
static bool find_places(EditLine *e, const LineInfo *li, place *start, place *cursor, place *end) {
  int columns = 0, rows = 0;
  if (el_get(e, EL_GETTC, "co", &columns) != 0 || el_get(e, EL_GETTC, "li", &rows) != 0 || columns < 2)
    return false;
  *start = (place){ 0, 0 };
  if (!lay_out(editor_prompt, editor_prompt + strlen(editor_prompt), columns, start)) return false;
  *cursor = *end = *start;
  return lay_out(li->buffer, li->cursor, columns, cursor) &&
         lay_out(li->buffer, li->lastchar, columns, end) && end->row < rows;
}

/* Write the line in colours where libedit has written it, and put the cursor back. */
static void repaint(EditLine *e, const LineInfo *li, const char *text) {
  place start, cursor, end;
  if (!find_places(e, li, &start, &cursor, &end)) return;
  fputs("\0337", stdout);
  if (cursor.row > start.row) printf("\033[%dA", cursor.row - start.row);
  if (cursor.column > start.column) printf("\033[%dD", cursor.column - start.column);
  if (cursor.column < start.column) printf("\033[%dC", start.column - cursor.column);
  for (; *text; text++) {
    if (*text == '\n') fputc('\r', stdout);
    fputc(*text, stdout);
  }
  fputs("\0338", stdout);
  fflush(stdout);
}

/* The Lua painter gives the line in colours. done: the cursor's place is of no interest any more. */
static void paint(EditLine *e, bool done) {
  lua_State *L = editor_state;
  if (!L || painter == LUA_NOREF || !lua_checkstack(L, 4)) return;
  const LineInfo *li = el_line(e);
  lua_rawgeti(L, LUA_REGISTRYINDEX, painter);
  lua_pushlstring(L, li->buffer, (size_t)(li->lastchar - li->buffer));
  if (done) lua_pushnil(L);
  else lua_pushinteger(L, li->cursor - li->buffer);
  if (lua_pcall(L, 2, 1, 0) == LUA_OK && lua_isstring(L, -1)) repaint(e, li, lua_tostring(L, -1));
  lua_pop(L, 1);
}

static void on_move(int sig) { moved = sig; }

/* A resized terminal has laid the line out anew: begin where its prompt is by now. After Ctrl-Z and fg, begin below. */
static void redraw(EditLine *e) {
  place start, cursor, end;
  int sig = moved;
  moved = 0;
  el_resize(e); /* nothing is on the screen, as far as libedit knows */
  if (sig == SIGCONT) el_set(e, EL_PREP_TERM, 0), el_set(e, EL_PREP_TERM, 1);
  else if (find_places(e, el_line(e), &start, &cursor, &end) && cursor.row > 0)
    printf("\033[%dA", cursor.row);
  fputs("\r\033[J", stdout);
  el_set(e, EL_REFRESH);
  paint(e, false);
}

/* While a line is read. */
static void watch_moves(bool on) {
  static struct sigaction before[2];
  static const int signals[2] = { SIGWINCH, SIGCONT };
  struct sigaction ours = { .sa_handler = on_move }; /* no SA_RESTART */
  for (int i = 0; i < 2; i++) sigaction(signals[i], on ? &ours : &before[i], on ? &before[i] : NULL);
}

static bool input_waits(void) {
  struct pollfd p = { STDIN_FILENO, POLLIN, 0 };
  return poll(&p, 1, 0) > 0;
}

/* One wide character; -1 when Ctrl-C came, so that el_gets returns. */
static int get_wide(EditLine *e, wchar_t *out) {
  mbstate_t state;
  char byte;
  memset(&state, 0, sizeof state);
  if (!input_waits()) paint(e, false);
  for (;;) {
    ssize_t n = read(STDIN_FILENO, &byte, 1);
    if (n == 0) return 0;
    if (n < 0) {
      if (errno == EINTR && !hit) {
        if (moved) redraw(e);
        continue;
      }
      paint(e, true);
      return -1;
    }
    size_t k = mbrtowc(out, &byte, 1, &state);
    if (k == (size_t)-2) continue;
    if (k == (size_t)-1) memset(&state, 0, sizeof state), *out = L'?';
    if (byte == '\n' || byte == '\r') paint(e, true);
    return 1;
  }
}

/* Tab: the Lua completer returns what to insert and, where that is nothing, a list to show. */
static int complete(lua_State *L, const LineInfo *li, EditLine *e) {
  int result = CC_NORM, top = lua_gettop(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, completer);
  lua_pushlstring(L, li->buffer, (size_t)(li->cursor - li->buffer));
  if (lua_pcall(L, 1, 2, 0) != LUA_OK) result = CC_ERROR;
  else if (lua_isstring(L, -2) && lua_rawlen(L, -2) > 0)
    result = el_insertstr(e, lua_tostring(L, -2)) == 0 ? CC_REFRESH : CC_ERROR;
  else if (lua_isstring(L, -1)) {
    printf("\n%s\n", lua_tostring(L, -1));
    fflush(stdout);
    result = CC_REDISPLAY;
  }
  lua_settop(L, top);
  return result;
}

static unsigned char on_tab(EditLine *e, int key) {
  (void)key;
  if (!editor_state || completer == LUA_NOREF || !lua_checkstack(editor_state, 4)) return CC_ERROR;
  return (unsigned char)complete(editor_state, el_line(e), e);
}

static bool open_editor(void) {
  HistEvent ev;
  if (editor) return true;
  setlocale(LC_CTYPE, ""); /* UTF-8 in the line; numbers keep the C locale */
  editor = el_init("gqlua", stdin, stdout, stderr);
  history_ = history_init();
  if (!editor || !history_) return gqlua_closeterminal(), false;
  history(history_, &ev, H_SETSIZE, 1000);
  history(history_, &ev, H_SETUNIQUE, 1);
  el_set(editor, EL_PROMPT, get_prompt);
  el_set(editor, EL_EDITOR, "emacs");
  el_set(editor, EL_HIST, history, history_);
  el_set(editor, EL_GETCFN, get_wide);
  el_wset(editor, EL_ADDFN, L"complete", L"complete a name", on_tab); /* the narrow el_set leaks its copies */
  el_set(editor, EL_BIND, "\t", "complete", NULL);
  el_set(editor, EL_BIND, "^R", "em-inc-search-prev", NULL);
  el_source(editor, NULL); /* ~/.editrc */
  return true;
}

static int read_edited(lua_State *L, const char *prompt) {
  int n = 0;
  const char *line;
  editor_prompt = prompt;
  editor_state = L;
  hit = 0;
  fflush(stdout);
  el_resize(editor);
  watch_moves(true);
  line = el_gets(editor, &n);
  watch_moves(false);
  editor_state = NULL;
  if (hit) return fputc('\n', stdout), interrupted_line(L);
  if (!line || n <= 0) return fputc('\n', stdout), end_of_input(L);
  if (line[n - 1] == '\n') n--;
  lua_pushlstring(L, line, (size_t)n);
  return 1;
}

void gqlua_closeterminal(void) {
  if (history_) history_end(history_);
  if (editor) el_end(editor);
  editor = NULL;
  history_ = NULL;
  prompting = false;
}

static int term_remember(lua_State *L) {
  const char *line = luaL_checkstring(L, 1);
  HistEvent ev;
  if (history_) history(history_, &ev, H_ENTER, line);
  return 0;
}

static int keep(lua_State *L, int *reference) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  luaL_unref(L, LUA_REGISTRYINDEX, *reference);
  lua_settop(L, 1);
  *reference = luaL_ref(L, LUA_REGISTRYINDEX);
  return 0;
}

static int term_completer(lua_State *L) { return keep(L, &completer); }

static int term_painter(lua_State *L) { return keep(L, &painter); }

#else

void gqlua_closeterminal(void) { prompting = false; }

static int term_remember(lua_State *L) {
  luaL_checkstring(L, 1);
  return 0;
}

static int term_completer(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  return 0;
}

static int term_painter(lua_State *L) { return term_completer(L); }

#endif

/* ---- the primitives ---- */

/* read(prompt): a line; nil, "interrupt"; nil, "end". */
static int term_read(lua_State *L) {
  const char *prompt = luaL_checkstring(L, 1);
#ifdef GQ_LIBEDIT
  if (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && open_editor()) return read_edited(L, prompt);
#endif
  return read_plain(L, prompt);
}

static int term_write(lua_State *L) {
  size_t n;
  const char *s = luaL_checklstring(L, 1, &n);
  fwrite(s, 1, n, stdout);
  fflush(stdout);
  return 0;
}

/* call(f, ...): true, results... or false, message with traceback; Ctrl-C stops f. */
static int term_call(lua_State *L) {
  int status;
  luaL_checktype(L, 1, LUA_TFUNCTION);
  status = gqlua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  lua_pushboolean(L, status == LUA_OK);
  lua_insert(L, 1);
  return lua_gettop(L);
}

/* Make the folders of path (mode 0700) and the file (0600): the history is nobody else's. */
static bool make_private(char *path) {
  int fd;
  for (char *p = path + 1; *p; p++) {
    if (*p != '/') continue;
    *p = '\0';
    if (mkdir(path, 0700) != 0 && errno != EEXIST) return false;
    *p = '/';
  }
  fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  return fd >= 0 && close(fd) == 0;
}

static int term_private(lua_State *L) {
  size_t n;
  const char *path = luaL_checklstring(L, 1, &n);
  char *copy = lua_newuserdatauv(L, n + 1, 0);
  memcpy(copy, path, n + 1);
  lua_pushboolean(L, n > 0 && make_private(copy));
  return 1;
}

void gqlua_pushterminal(lua_State *L) {
  static const luaL_Reg functions[] = { { "read", term_read },           { "write", term_write },
                                        { "call", term_call },           { "remember", term_remember },
                                        { "completer", term_completer }, { "painter", term_painter },
                                        { "private", term_private },     { NULL, NULL } };
  luaL_newlib(L, functions);
  prompting = true;
  disarm(L);
}
