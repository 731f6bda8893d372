/*
** l_ode.h -- what l_ode.c, l_odeopts.c and l_call.c share.
*/
#ifndef GQ_L_ODE_H
#define GQ_L_ODE_H

#include "bind.h"

/* Defaults for a state of dtype d, and over them the table at `arg` (nil and none: nothing given). */
void gqL_odeoptions(lua_State *L, int arg, gq_dtype d, gq_ode_options *o);
/* The rule of that name; an error that names `key` and lists them otherwise. */
const gq_quadrature *gqL_quadrature(lua_State *L, const char *name, const char *key);

/* trace = false: the dynamics at index fn as a callback, in a userdata that is pushed. params: index of opts.params or
** of nil; gradient: one is wanted, so that a parameter which nobody named is an error. */
typedef struct gqL_call gqL_call;
gqL_call *gqL_pushcall(lua_State *L, int fn, const gq_tensor *z0, int params, bool gradient);
gqL_call *gqL_call_ref(gqL_call *c);
void gqL_call_unref(gqL_call *c_);
const gq_graph *gqL_call_graph(const gqL_call *c);             /* lent, as are the captures */
int gqL_call_captures(const gqL_call *c);
gq_tensor *gqL_call_capture(const gqL_call *c, int i);
void gqL_call_keep(gqL_call *c, bool on);                      /* around a backward pass: no value is asked for twice */
int64_t gqL_call_count(const gqL_call *c);                     /* evaluations so far */
#endif
