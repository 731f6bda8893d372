/*
** l_ode.h -- what the files behind gq.odeint share.
*/
#ifndef GQ_L_ODE_H
#define GQ_L_ODE_H

#include "bind.h"

/* gq.odeint(f, z0, t, opts). A function of C, whose errors find the line of the script also where
** that says `return gq.odeint(...)`. What one call of the solver does not know is lua/gq/solve.lua's. */
int gqL_odeint(lua_State *L);
/* core.solve(f, z0, t, opts) -> z, info [, interpolant]: one call of the solver. z0 is a tensor, grid points inside
** are among the times, and with an event the place where it stops is only looked for. l_solve.c */
int gqL_solveode(lua_State *L);
int gqL_unchanged(lua_State *L);

void gqL_odeplain(lua_State *L, int arg);                      /* gqL_plainoptions of gq.odeint */
/* Defaults for a state of dtype d, and over them the table at `arg` (nil and none: nothing given). */
void gqL_odeoptions(lua_State *L, int arg, gq_dtype d, gq_ode_options *o);
/* The rule of that name; an error that names `key` and lists them otherwise. */
const gq_quadrature *gqL_quadrature(lua_State *L, const char *name, const char *key);

/* trace = false: the dynamics at index fn as a callback, in a userdata that is pushed. opts: index of the options, whose
** params are differentiated, without them those of a module; gradient: one is wanted, so that another parameter which
** nobody named is an error. */
typedef struct gqL_call gqL_call;
gqL_call *gqL_pushcall(lua_State *L, int fn, const gq_tensor *z0, int opts, bool gradient);
gqL_call *gqL_call_ref(gqL_call *c);
void gqL_call_unref(gqL_call *c_);
const gq_graph *gqL_call_graph(const gqL_call *c);             /* lent, as are the captures */
int gqL_call_captures(const gqL_call *c);
gq_tensor *gqL_call_capture(const gqL_call *c, int i);
void gqL_call_keep(gqL_call *c, bool on);                      /* around a backward pass: no value is asked for twice */
int64_t gqL_call_running(void);                              /* the number of the one that is being called; 0: none */
int64_t gqL_call_count(const gqL_call *c);                     /* evaluations so far */

/* What one call of a solver holds while Lua may raise: a userdata, pushed. */
typedef struct gqL_box {
  double *t;
  bool *want;
  gq_tensor **capture; /* lent */
  gq_solution *sol;
  gq_tensor *z;
  bool *jump; /* [nt] grid points among the times */
  bool moves; /* they want gradients */
  int64_t *tensors;
  gq_tensor **event_in;
  gq_samples samples;
} gqL_box;
gqL_box *gqL_pushbox(lua_State *L);
/* The times of argument arg of solver name, a table of numbers or a tensor of one dimension, into the box; how many. */
int gqL_readtimes(lua_State *L, int arg, const char *name, gqL_box *b);
bool gqL_tensoramong(lua_State *L, int arg);   /* is one in the table of times? Then lua/gq/solve.lua reads it first */
typedef struct gqL_dynamics { /* held by what is on the stack */
  const gq_graph *graph;
  int ncapture;
  gq_trace *trace_; /* traced, */
  int at;           /* by a trace there on the stack; */
  gqL_call *call_;  /* or called at every evaluation */
} gqL_dynamics;
/* The captures of f into the box, and which of them want a gradient. Does any? opts: index of the options. */
bool gqL_takecaptures(lua_State *L, int opts, const gqL_dynamics *f, gqL_box *b);
/* Solve p, onto the tape where o.engine keeps anything; pushes z and info. engine: what was asked for. f's trace and
** what is in the box are freed. */
void gqL_runsolve(lua_State *L, int opts, const gq_problem *p, const gq_ode_options *o, const char *engine,
                  gq_tensor *t_, const gqL_dynamics *f, gqL_box *b);

/* A solve onto the tape, which takes over *sol: out[0] is z, then what else it gave. info: index of its info table. */
void gqL_record(lua_State *L, gq_solution **sol, gq_tensor *z0, gq_tensor *t_, int ncapture,
                gq_tensor *const *capture, gqL_call *call_, int info, int nout, gq_tensor **out);

/* Into the info table on the top of the stack. engine: what was asked for, said where no gradient was needed. */
void gqL_info_forward(lua_State *L, const gq_info *i, const gq_ode_options *o, const char *engine);
void gqL_info_samples(lua_State *L, gq_samples *s);           /* info.samples: {rows}, what each row took; takes s */
/* info.regularisers: those sums over the whole solve that are asked for, tensors that the table owns, and how many. */
int gqL_info_sums(lua_State *L, const gq_ode_options *o, const gq_info *info, const gq_tensor *z, gq_tensor **sums);
/* A Brownian path: lent, or NULL where none is; a new one, to be filled. l_brownian.c */
gq_brownian *gqL_topath(lua_State *L, int arg);
gq_brownian **gqL_pushpath(lua_State *L);
/* A number that the table at arg must have; what: whose option it is. */
double gqL_neednumber(lua_State *L, int arg, const char *key, const char *what);

void gqL_info_backward(lua_State *L, const gq_info *i, const gq_ode_options *o);   /* warnings too */

#endif
