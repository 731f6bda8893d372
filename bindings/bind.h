/*
** bind.h -- what the binding files share. A binding is check, call, push; it raises only when
** it holds nothing, or what it holds sits in a userdata pushed first.
*/
#ifndef GQ_BIND_H
#define GQ_BIND_H

#include <lua.h>
#include <lauxlib.h>
#include "../runtime/gq.h"

#define GQL_CORE "gq.core"            /* the registry's name for gq.core */
#define GQL_TENSOR "gq.tensor"        /* metatable name; the userdata is a gq_tensor * (NULL: freed) */

/* luaL_error, but the place is that in the script where one of our own Lua files stands between. */
int gqL_error(lua_State *L, const char *format, ...);
/* luaL_argerror; where one of our own Lua files called, in terms of the script's call of `name`. */
int gqL_argerror(lua_State *L, int arg, const char *name, const char *text);
int gqL_badarg(lua_State *L, int arg, const char *text);
void gqL_checktype(lua_State *L, int arg, int type);
/* Push the metatable of a kind of userdata: released by gc, out of reach for scripts. */
void gqL_pushclass(lua_State *L, const char *name, lua_CFunction gc);
/* Make that of another kind: its metamethods, and the methods that __index finds. */
void gqL_class(lua_State *L, const char *name, const luaL_Reg *meta, const luaL_Reg *methods_);
/* Raise the runtime's message if status is not GQ_OK. On GQ_ENOMEM callers that can retry use
** gqL_retry: collect fully once and call again (`call` may run twice: it must not push). */
int gqL_try(lua_State *L, int status);
#define gqL_retry(L, call) do { int s_ = (call); \
    if (s_ == GQ_ENOMEM && (s_ = gqL_room(L)) == GQ_OK) s_ = (call); \
    gqL_try(L, s_); } while (0)
/* Collect fully. GQ_OK, or a failure of other than memory that nobody has been told of. */
int gqL_room(lua_State *L);
/* To stderr, since warnings of a stock lua are off; false: gq.warnings(false). */
bool gqL_warn(const char *text);
/* A solve, or what may contain one; gives the call's status. Ctrl-C ends it with GQ_EINTERRUPT: l_signal.c. The
** call must not raise. */
#define gqL_solving(call) (gqL_catch(L), gqL_release(call))
void gqL_catch(lua_State *L);
int gqL_release(int status);
/* status = gqL_solving(call); without memory collect and try once more. */
#define gqL_solve_retry(L, status, call) \
  do { (status) = gqL_solving(call); \
    if ((status) == GQ_ENOMEM && ((status) = gqL_room(L)) == GQ_OK) (status) = gqL_solving(call); \
    (status) = gqL_cause(status); } while (0)
/* Of a failure: what it follows from, where that was in a call without a status. */
int gqL_cause(int status);
/* Inside a solve: the state that runs it. Around a call of the script's own function from there (which may solve
** itself): pause, and resume with what pause gave; an error of that function, on the top of the stack, goes to the
** solve's caller, who raises it with gqL_rethrow once the solve has ended. */
typedef struct gqL_solve { lua_State *L; int slot; bool raised; } gqL_solve;
gqL_solve gqL_pause(void);
void gqL_resume(gqL_solve s, bool raised);
void gqL_rethrow(lua_State *L);
extern bool gqL_host_interrupts;                            /* the host's own handler stops solves: gqlua */
/* lua_call, where something must be put back after an error: a coroutine that dies of one closes nothing, so there
** the call is protected, which costs the traceback. Gives the status; not LUA_OK: put it back, then lua_error. */
int gqL_guarded(lua_State *L, int nargs, int nresults);
void gqL_collect(lua_State *L);                             /* full collection (not inside a finaliser) */

/* The tensor's numbers are asked for (x:item(), x < y): an error on a traced value, naming gq.where. */
void gqL_checknumbers(lua_State *L, const gq_tensor *t, const char *what);
/* An in-place write to t is allowed: not traced, no gradient (leaves: under gq.no_grad), not expanded. */
void gqL_checkwritable(lua_State *L, const gq_tensor *t, const char *what);
/* A nested table, number or boolean as a new tensor, pushed; dtype GQ_NDTYPE: by its contents. */
gq_tensor *gqL_fromtable(lua_State *L, int arg, gq_dtype d);
int gqL_index(lua_State *L);                                /* x[key] for a number or table key: l_index.c */
int gqL_newindex(lua_State *L);
gq_tensor **gqL_pushtensor(lua_State *L);                   /* empty, collectable; set *handle to a new reference */
void gqL_pushref(lua_State *L, gq_tensor *t);               /* a handle of t of its own */
void gqL_counted(lua_State *L);                             /* after a handle was filled: should memory be collected? */
void gqL_held(lua_State *L, int n);                         /* the n handles on top keep functions that they need */
void gqL_callee(lua_State *L, const void *of);              /* the function that this address calls, pushed */
void gqL_setcallee(lua_State *L, const void *of);           /* that is the one on top, popped; it is not kept */
void gqL_newweak(lua_State *L, const char *mode);           /* a table with that __mode, pushed */
void gqL_pushweak(lua_State *L, const void *key, const char *mode); /* the registry's under that address */
gq_tensor *gqL_checktensor(lua_State *L, int arg);          /* lent; errors name the function and what was given */
void gqL_pushtensorclass(lua_State *L);                      /* the metatable of tensors */
gq_tensor **gqL_tohandle(lua_State *L, int arg);            /* NULL if it is none; of a freed tensor: of NULL */
gq_tensor *gqL_totensor(lua_State *L, int arg);             /* NULL if it is none */
/* A tensor, or a Lua number as a 0-d tensor of dtype `like` (pushed on the stack to keep it alive). */
gq_tensor *gqL_operand(lua_State *L, int arg, gq_dtype like);
const char *gqL_typename(lua_State *L, int arg);            /* pushed: "number 3.5", "tensor float32 {2, 3}", "nil" */
/* The same of what should be a tensor, with what to write instead. Pushed. */
const char *gqL_notensor(lua_State *L, int arg);
int gqL_columns(int *rows);                                  /* of the terminal on stdout; 0: none */

/* An integral number, any number: strings are refused. */
int64_t gqL_checkint(lua_State *L, int arg, int64_t min, int64_t max, const char *what);
double gqL_checknumber(lua_State *L, int arg, const char *what);
gq_shape gqL_checkshape(lua_State *L, int arg);             /* a table of sizes */
int gqL_axis(lua_State *L, int arg, int ndim);              /* 1-based or negative -> 0-based */
const char *gqL_devices(lua_State *L);   /* those that are there, "cpu", ..., pushed */
const gq_device *gqL_device(lua_State *L, const char *name, const char *what);   /* or an error that lists them */
gq_tensor *gqL_onhost(lua_State *L, gq_tensor *t);  /* its numbers, to be read: packed, on the CPU, pushed */
void gqL_place(lua_State *L, const gq_device *d);   /* the tensor at the top goes there */
gq_dtype gqL_checkdtype(lua_State *L, int arg);

gq_dense **gqL_pushinterpolant(lua_State *L);               /* empty, collectable: l_dense.c */

/* Options: one trailing table; an unknown key raises and names the nearest known one.
** known: NULL-terminated. what: "gq.odeint". A table with an __index, which may do anything, is read once, by
** gqL_plainoptions, and replaced by a plain one: before the caller lends what that may free. */
void gqL_plainoptions(lua_State *L, int arg, const char *const *known);
void gqL_checkoptions(lua_State *L, int arg, const char *const *known, const char *what);
/* Field of the options table (arg may be none/nil: default). Type errors name the key. */
bool gqL_given(lua_State *L, int arg, const char *key);             /* is it there? Nothing at arg has none */
double gqL_optnumber(lua_State *L, int arg, const char *key, double def);
/* A positive and finite number; a limit of steps, 0 where there is none: given as 0 or as `none`. what: "gq.odeint". */
double gqL_optpositive(lua_State *L, int arg, const char *what, const char *key, double def);
double gqL_optlimit(lua_State *L, int arg, const char *what, const char *key, double none, double def);
int64_t gqL_optint(lua_State *L, int arg, const char *key, int64_t def, int64_t min, int64_t max);
bool gqL_optbool(lua_State *L, int arg, const char *key, bool def);
/* gqL_choose of the option; key "adjoint.norm": norm in the table at arg, as messages call it. */
int gqL_optchoice(lua_State *L, int arg, const char *what, const char *key, const char *def,
                  const char *const *names);
bool gqL_optindependent(lua_State *L, int arg, const char *what);     /* batch = "independent", not "joint" */
const char *gqL_optstring(lua_State *L, int arg, const char *key, const char *def);   /* lent by the table */
gq_dtype gqL_optdtype(lua_State *L, int arg, const char *key);     /* default: gq.set_default_dtype's */
gq_dtype gqL_default_dtype(lua_State *L);
const gq_device *gqL_default_device(lua_State *L);                                    /* gq.set_default_device's */
/* Seed for the next draw, from the generator of gq.manual_seed (advances it). */
uint64_t gqL_nextseed(lua_State *L);
uint64_t gqL_optseed(lua_State *L, int arg);                          /* options.seed, or that */

/* What one Lua state remembers; lives in its registry. */
typedef struct gqL_state {
  uint64_t seed, counter;          /* generator: draw number `counter` of stream `seed` */
  gq_dtype dtype;                  /* default of constructors */
  const gq_device *device;         /* and where they make them */
  size_t survived;                 /* tensor bytes alive after the last full collection */
  size_t told, owed;               /* alive when they were last counted, and counted but not told to Lua's collector */
  int scopes;                      /* open gq.scope() */
} gqL_state;
gqL_state *gqL_getstate(lua_State *L);

/* The index of one of a list of names, or an error that lists them and says which may be meant. */
int gqL_choose(lua_State *L, const char *what, const char *key, const char *given, const char *const *names);
/* The same of a table's rows: name(i) is that of row i, NULL behind the last. */
int gqL_chooserow(lua_State *L, const char *what, const char *key, const char *given, const char *(*name)(int i));
/* "nearest" name in a NULL-terminated list, for "did you mean": NULL if none is near. */
const char *gqL_nearest(const char *name, const char *const *known);
/* What to write for an option that other libraries call `name`: l_hints.c; NULL if nothing is known. */
const char *gqL_hint(const char *name, const char *const *known, const char *what);
/* The name in the list for what other libraries call a method or engine `given`; NULL if nothing is known. */
const char *gqL_alike(const char *given, const char *const *names);

void gqL_checkcallable(lua_State *L, int fn, const char *what);   /* a function or what has __call */
/* Trace fn (stack index) over inputs of the given dtypes and shapes: calls it once with traced
** tensors, checks that it returns nout tensors, and returns the trace (in a userdata pushed on the
** stack that frees it). what: "the dynamics function of gq.odeint". */
gq_trace *gqL_trace(lua_State *L, int fn, const gq_device *on, int nin, const gq_dtype *d, const gq_shape *s, int nout,
                    const char *what);
void gqL_endtrace(lua_State *L, int at);   /* free the trace in the userdata there now */
/* What `what` returned (d, s) as dz/dt of a state dz, sz: NULL if it has its dtype and shape, else what is wrong,
** pushed. */
const char *gqL_wrongslope(lua_State *L, const char *what, gq_dtype d, gq_shape s, gq_dtype dz, gq_shape sz);

/* An operation on lent tensors, recorded or traced; pushes the result's handle and lends its tensor.
** Out of memory: collects and tries again. Raises on failure. */
gq_tensor *gqL_op(lua_State *L, gq_op op, int nargs, gq_tensor *const *args, const gq_attr *attr_);

gq_tensor *gqL_reshape(lua_State *L, gq_tensor *t, gq_shape s);       /* the same, pushed */
gq_tensor *gqL_cast(lua_State *L, gq_tensor *t, gq_dtype d);
gq_tensor *gqL_clone(lua_State *L, gq_tensor *t); /* the same numbers with storage of their own, pushed */
/* Bring n tensors to one dtype: floats win over integers over bool, 0-d floats take the others'
** float; float32 with float64 otherwise raises, naming :to. Casts are pushed; t is updated. */
void gqL_promote(lua_State *L, int n, gq_tensor **t, const char *what);

/* Functions with their one-line help: set in the module table on top of the stack, in gq.docs
** (keyed by the function), and, where `method`, among the methods of tensors too. */
typedef struct gqL_function { const char *name; lua_CFunction f; bool method; const char *doc; } gqL_function;
void gqL_register(lua_State *L, const gqL_function *list);     /* list ends with a NULL name */
/* t[key] = v, t the table on top */
void gqL_setinteger(lua_State *L, const char *key, int64_t v);
void gqL_setnumber(lua_State *L, const char *key, double v);
void gqL_setstring(lua_State *L, const char *key, const char *v_);    /* NULL: nil */
void gqL_setboolean(lua_State *L, const char *key, bool v);
void gqL_core(lua_State *L, const luaL_Reg *list);   /* functions for our own Lua files, into gq.core */
int gqL_callcore(lua_State *L, const char *name, int nresults);   /* return gq.core[name](what is on the stack) */
/* gqL_register for the function on top, popped; the module table is below it. */
void gqL_setfunction(lua_State *L, const char *name, bool method, const char *doc);

/* Lua files carried inside the binary (scripts/embed.lua): name is the path below lua/gq without
** suffix ("init", "nn/layers"). The list ends with a NULL name. */
typedef struct gq_embedded {
  const char *name, *text;
  size_t ntext;
  const char *code; /* compiled */
  size_t ncode;
} gq_embedded;
extern const gq_embedded gq_embedded_files[];
const gq_embedded *gqL_embedded(const char *name);             /* NULL: there is none */
/* Push the file as a function, or an error's message: LUA_OK or Lua's status. */
int gqL_loadembedded(lua_State *L, const gq_embedded *f);
/* Our files see the standard functions and libraries as they are at the first call, which is require "gq" or before: a
** script may call its own `type`, `table` or `next`. */
void gqL_keepglobals(lua_State *L);

/* Parts: each pushes nothing and adds its functions to the module table on top of the stack. */
void gqL_open_handle(lua_State *L);     /* l_handle.c: handles, operands, scopes */
void gqL_open_tensor(lua_State *L);     /* l_tensor.c: the metatable of tensors, properties, numbers out */
void gqL_open_make(lua_State *L);       /* l_make.c: constructors */
void gqL_open_ops(lua_State *L);        /* l_ops.c: everything of ir/ops.def, reductions */
void gqL_open_shape(lua_State *L);      /* l_shape.c: reshape, permute, cat, split, index_select ... */
void gqL_open_linear(lua_State *L);     /* l_linear.c: LAPACK, orders and places, for Lua files */
void gqL_open_autograd(lua_State *L);   /* l_autograd.c */
void gqL_open_window(lua_State *L);     /* l_window.c: gq.core.windows and its kin */
void gqL_open_trace(lua_State *L);      /* l_trace.c: gqL_trace, gq.core.trace */
void gqL_open_ode(lua_State *L);        /* l_ode.c: odeint */
void gqL_open_tables(lua_State *L);     /* l_tables.c: core.tableaux and its kin */
void gqL_open_brownian(lua_State *L);   /* l_brownian.c: brownian, cosines, seeds */
void gqL_open_sde(lua_State *L);        /* l_sde.c: sdeint */
void gqL_open_optim(lua_State *L);      /* l_optim.c: optimiser userdata core */
void gqL_open_io(lua_State *L);         /* l_io.c: npy, safetensors, files */
void gqL_open_json(lua_State *L);       /* l_json.c: json_encode, json_decode, json_array, json_null (cJSON) */
void gqL_open_batches(lua_State *L);    /* l_batches.c: batches of data sets */
void gqL_open_data(lua_State *L);       /* l_data.c: bytes, streams, text with separators, images */
void gqL_open_system(lua_State *L);     /* l_system.c: clock, threads, seeds, devices, versions, gq.debug */
void gqL_open_process(lua_State *L);    /* l_process.c: other programs, locks and directories, in gq.core */
void gqL_fill_infos(lua_State *L);      /* l_backward.c: after a backward pass, its figures into info tables */

int luaopen_gq_core(lua_State *L);      /* gq.c: the C module; lua/gq/init.lua wraps it */
int luaopen_gq(lua_State *L);           /* gq.c: core + embedded lua/gq/init.lua: require "gq" */

#endif
