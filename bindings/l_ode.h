/*
** l_ode.h -- what l_ode.c and l_odeopts.c share.
*/
#ifndef GQ_L_ODE_H
#define GQ_L_ODE_H

#include "bind.h"

/* Defaults for a state of dtype d, and over them the table at `arg` (nil and none: nothing given). */
void gqL_odeoptions(lua_State *L, int arg, gq_dtype d, gq_ode_options *o);
/* The rule of that name; an error that names `key` and lists them otherwise. */
const gq_quadrature *gqL_quadrature(lua_State *L, const char *name, const char *key);

#endif
