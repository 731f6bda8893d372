/*
** lanes.h -- samples that are solved side by side, each at its own time with its own steps. One program evaluates all
** lanes at once; a lane whose sample is done takes the next one. The number of lanes and the programs depend on nothing
** that other samples could change, and no operation mixes lanes: a sample's numbers are the same, bit by bit, in any
** company, in any lane, on any number of threads.
*/
#ifndef GQ_LANES_H
#define GQ_LANES_H

#include "../method/lane.h"
#include "solution.h"

/* What became of each sample, and what the forward solve left of it. */
typedef struct gq_sampleset {
  gq_pool own;                 /* its arrays */
  int64_t n;
  size_t bytes;                /* of a sample */
  int workers;                 /* worker i solves samples i, i + workers, ... */
  gq_samples took;
  gq_steps *tape;              /* [workers] direct and aca: of all in turn, each with its y and f; anchor: the
                               ** sample's step before, or -1 */
  int64_t *nfe;                /* [n] forward: took.nfe is the user's */
  int *reached;                /* [n] times of a sample */
  int64_t *last;               /* [n] a sample's last record in its worker's tape, or -1 */
  const gq_backend *on;
  void *results;               /* of a device that solved them: [n] gq_laneresult; its tape has a gq_lanerecord behind
                               ** each y and f */
} gq_sampleset;
void gq_sampleset_free(gq_sampleset *r_);
static inline int64_t *gq_sample_count(gq_tensor *x) { return gq_tensor_data(x); }

typedef struct gq_lanes gq_lanes;
/* What is done with lanes. A status that concerns a sample (step limit, underflow, not finite) ends that one alone. */
typedef struct gq_laneuse {
  bool (*next)(gq_lanes *p, int j);      /* another into lane j: y, sample, t, stop, h or search, stage; false: none */
  int (*accepted)(gq_lanes *p, int j);   /* an accepted step, from y, f at t to y1, f1 at t1 */
  int (*arrived)(gq_lanes *p, int j);    /* at stop: set another one and a stage, or go idle */
  void (*failed)(gq_lanes *p, int j, int status);   /* and gq_message() tells */
} gq_laneuse;

/* What programs take from the host and give back to it, shared by both: [n] each. */
typedef struct gq_lanenumbers {
  double *t, *h, *ht, *atol[GQ_MAXPARTS], *sum[3][GQ_MAXPARTS];
  double *pt, *ph;             /* derivatives in t and h, of phase 2 */
  double *rtol, *zero;         /* one number */
} gq_lanenumbers;

/* How programs are called: tables, and where they work. */
typedef struct gq_lanecall {
  const void **in;
  void **out;
  const void **cut;            /* [nb] lanes of boundaries that are cut with the samples */
  void **cut_grad;             /* [nb] and of their gradients */
  void *arena, *evaluator_arena;
} gq_lanecall;

/* Of an SDE: the path of the lane's sample; the time that it goes to; ends of refused steps, as gq_walk has them. */
typedef struct gq_lanepath {
  gq_along along;
  double goal, refused[GQ_REFUSED_MOST];
  int nrefused;
} gq_lanepath;

/* What the programs of an SDE read of the paths. */
typedef struct gq_lanenoise {
  gq_lanepath *lane;           /* [n] */
  size_t numbers;              /* of W, of a sample */
  void *w;                     /* all lanes; what else of the path is read lies `apart` bytes behind */
  size_t apart;
} gq_lanenoise;

/* Fields: gq_walk's and gq_attempt's with a lane's share in each array, since one program reads the arrays of all. */
struct gq_lanes {
  gq_solution *s;
  const gq_field *f;
  const gq_stepper *st;
  const gq_evaluator *slope;   /* (t, parts) to derivatives */
  const gq_laneuse *use;
  void *context;
  int n, parts;                /* lanes */
  size_t numbers;              /* of a sample */
  size_t across, along;        /* from one of them to the next, from a lane to the next */
  gq_lanerule rule;
  gq_lane *lane;               /* [n] */
  void *y[GQ_MAXPARTS], *f0[GQ_MAXPARTS], *y1[GQ_MAXPARTS], *f1[GQ_MAXPARTS];   /* all lanes; f0: slopes at y */
  void *ey[GQ_MAXPARTS], *ef[GQ_MAXPARTS];                                      /* of the slope's evaluation */
  void *cy, *cf, *ck[GQ_MAXSTAGES], *py, *pf;                                   /* of the step's derivative (direct) */
  gq_lanenumbers shared;
  gq_lanecall call;
  gq_lanenoise noise;
  bool dense_done, *taken;     /* [n] accepted in this attempt */
  void *te, *dt;               /* [n] times of the slope's evaluation, and products in time, in the state's dtype */
  const gq_grads *grads;       /* where phase 2 adds, but for cut boundaries */
  void *scratch;               /* one sample */
  void *block[3];              /* of the host, of the backend, shared */
  size_t bytes;
};

/* Bytes of n samples of boundary j, which is cut with the samples. */
size_t gq_cut_bytes(const gq_field *f, int j, int64_t n);
/* It is outer x samples x inner numbers of `size` bytes. */
void gq_cut_sizes(const gq_field *f, int j, size_t *outer, size_t *inner, size_t *size);
/* parts to be solved by st from slopes by `slope`; pull: with buffers for phase 2. */
int gq_lanes_init(gq_lanes *p, gq_solution *s, const gq_stepper *st, const gq_evaluator *slope, bool pull);
/* Those of blocks of a device, of which the first's are bound: each has `head` bytes, then its arrays;
** *blocks at most. */
int gq_lanes_blocks(gq_lanes *p, gq_solution *s, const gq_stepper *st, const gq_evaluator *slope, bool pull, size_t head,
                   int *blocks, size_t *each);
/* Tolerances and sizes of steps of the forward solve. */
void gq_samples_rule(gq_lanerule *r, const gq_field *f, const gq_ode_options *o);
void gq_lanes_done(gq_lanes *p);
/* Where number d of lane j is. */
static inline size_t gq_lanes_at(const gq_lanes *p, int j, size_t d) { return j * p->along + d * p->across; }
/* A sample between contiguous numbers and lane j. */
void gq_lanes_put(const gq_lanes *p, void *lanes, int j, const void *sample);
void gq_lanes_get(const gq_lanes *p, const void *lanes, int j, void *sample);
/* What a sample has of every cut boundary into place j of buffers of n, and the other way round, added. */
void gq_lanes_cut(const gq_solution *s, int64_t sample, int64_t n, int j, const void *const *lanes);
void gq_lanes_uncut(const gq_field *f, int64_t sample, int64_t n, int j, void *const *lanes, const gq_grads *grads);
void gq_lanes_bind_slope(const gq_lanes *p);
void gq_lanes_bind_step(const gq_lanes *p, int phase);
int gq_lanes_phase(gq_lanes *p, int phase);
void gq_lanes_bind_point(const gq_lanes *p, const gq_evaluator *e, void *const *x, void *out);
/* Run an evaluator with one output besides products at times te. */
int gq_lanes_evaluate(gq_lanes *p, const gq_evaluator *e, void *const *x, void *out);
/* The step of lane j in the next phases. */
void gq_lanes_step(const gq_lanes *p, int j, double t, double h);
void gq_lanes_set_time(const gq_lanes *p, int j, double t);
/* y(theta) of a part of lane j's step; the interpolant is completed for all lanes, and charged to this one, when it
** is first needed in a step. */
int gq_lanes_interpolate(gq_lanes *p, int part, int j, double theta, void *sample);
const void *gq_lanes_slope(const gq_lanes *p, int i, int part);
/* lanes_path.c; without noise nothing happens. */
int gq_lanes_path_begin(gq_lanes *p, int j);                /* with the sample that has come into lane j */
void gq_lanes_path_aim(const gq_lanes *p, int j);           /* where the next step may end at the latest */
int gq_lanes_path_read(const gq_lanes *p, int j);           /* what the step that is tried reads of the path */
void gq_lanes_path_refused(const gq_lanes *p, int j, double end);
void gq_lanes_path_accepted(const gq_lanes *p, int j);      /* the end of a refused step is no stop of the caller's */
bool gq_lanes_path_there(const gq_lanes *p, int j);         /* at its stop */
void gq_lanes_path_on(const gq_lanes *p, int j);            /* which has been set anew */
void gq_lanes_path_done(gq_lanes *p);
/* What a sample's step read of its path, in lane j, and so many bytes in a record. */
size_t gq_lanes_noise_bytes(const gq_lanes *p);
void gq_lanes_noise_put(const gq_lanes *p, int j, const char *sample);
void gq_lanes_noise_get(const gq_lanes *p, int j, char *sample);
/* Solve until no sample is left. */
int gq_lanes_run(gq_lanes *p, const gq_laneuse *use);
/* Weighted norm of x - minus_ in lane j in units of the tolerance. */
double gq_lanes_norm(const gq_lanes *p, int part, int j, const void *x, const void *y, const void *minus_);
/* Fails, or not, as the lane's end says. */
int gq_lane_failure(const gq_solution *s, const gq_lanerule *r, const gq_lane *l);
int gq_lane_over(const gq_lanes *p, int j, gq_laneend end, int64_t bad);
/* What ended a worker, or a sample: messages belong to threads. */
typedef struct gq_outcome {
  int status;
  char message[512];
} gq_outcome;
void gq_outcome_set(gq_outcome *o, int status);

int gq_samples_forward(gq_solution *s);

#endif
