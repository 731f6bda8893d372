/*
** l_brownian.h -- Brownian paths as solvers of SDEs take them.
*/
#ifndef GQ_L_BROWNIAN_H
#define GQ_L_BROWNIAN_H

#include "bind.h"

gq_brownian *gqL_topath(lua_State *L, int arg);                /* lent; NULL: no path is there */
gq_brownian **gqL_pushpath(lua_State *L);                      /* a new one, to be filled */
/* A number that the table at arg must have; what: whose option it is. */
double gqL_neednumber(lua_State *L, int arg, const char *key, const char *what);

#endif
