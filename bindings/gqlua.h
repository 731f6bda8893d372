/*
** gqlua.h -- what the files of the command share: gqlua.c (options, scripts, errors), gqlua_alloc.c and
** gqlua_term.c (Ctrl-C, and the terminal under the REPL). None is part of gq.so or libgq.a.
*/
#ifndef GQLUA_H
#define GQLUA_H

#include <lua.h>
#include <stdbool.h>

/* A lua_Alloc that takes over blocks of malloc; of one state, on one thread. */
void *gqlua_alloc(void *unused, void *p, size_t old, size_t size);

void gqlua_signals(lua_State *L); /* once, before anything runs: L is the state Ctrl-C stops */
bool gqlua_was_interrupted(void); /* since the last gqlua_call began */
int gqlua_call(lua_State *L, int nargs, int nresults); /* lua_pcall with a traceback, Ctrl-C armed */
void gqlua_die_interrupted(void); /* end as SIGINT ends a process, so that shell loops stop too */

/* Push the table of primitives that lua/gq/repl.lua drives. */
void gqlua_pushterminal(lua_State *L);
void gqlua_closeterminal(void);

#endif
