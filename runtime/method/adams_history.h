/*
** adams_history.h -- the history of a multistep solve, for the files that sum it.
*/
#ifndef GQ_ADAMS_HISTORY_H
#define GQ_ADAMS_HISTORY_H

#include "attempt.h"

enum {
  GQ_ADAMS_ROOM = GQ_ADAMS_MOST + 4, /* indices of the literature: from 1 */
  GQ_ADAMS_CHUNK = 64                /* numbers at a time: arrays of doubles are padded to it */
};

/* Fields: those of Shampine and Gordon's code STEP, in their names, and the first steps' on a fixed grid. */
typedef struct gq_adams {
  const gq_tableau *m;
  bool corrects, fixed;
  int most;                    /* highest order of the predictor */
  gq_dtype dtype;
  size_t n;                    /* numbers of the state */
  int slices;
  int k;                       /* order of the predictor */
  int count;                   /* slopes that the differences know, most + 1 at most; 0: start anew */
  double past[GQ_ADAMS_ROOM];  /* [count - 1] sizes of the steps taken, the last first */
  double *phi[GQ_ADAMS_ROOM];  /* [1..most + 2][n] differences at the last point */
  /* of the attempt */
  double beta[GQ_ADAMS_ROOM], g[GQ_ADAMS_ROOM], sigma[GQ_ADAMS_ROOM];
  double *guess, *move;        /* [n] the predicted slope; (p - y) / h */
  double *scale;               /* [n] adaptive: of one tolerance, inverse */
  /* adaptive: errors at the orders k, k - 1, k - 2 in tolerances */
  double c[GQ_ADAMS_ROOM], error[3], factor;
  bool growing;                /* the start: order and step grow with every step */
  int fails;
  /* the accepted step's polynomial: through so many slopes; where it begins, from the last point */
  int points;
  double offset;
  bool ready;
  void *slope[GQ_MAXSTAGES];
  /* fixed: the first steps */
  int starts, ahead, next;     /* at most; made; handed on */
  bool broken;                 /* the last of them is not finite */
  void *start_y[GQ_ADAMS_MOST], *start_f[GQ_ADAMS_MOST];
  double start_h[GQ_ADAMS_MOST];
  int columns;
  double *column[GQ_ADAMS_MOST], *z[2];
  void *state, *rate;          /* of one evaluation */
  double (*sum)[3];            /* [slices] of each thread */
  void *block, *states;        /* the host's doubles; memory of the field's backend */
} gq_adams;

/* adams_history.c: g_1 .. g_n from alpha_1 .. alpha_n-1: HNW III.5, (5.9). */
void gq_adams_integrals(int n, const double *alpha, double *g);
/* Those of a step h by the order k. */
void gq_adams_coefficients(gq_adams *a, double h, int k);
/* A step of h has been taken. */
void gq_adams_advance(gq_adams *a, double h);
/* f at the end of a step, on its side of a jump. */
int gq_adams_slope_at(gq_attempt *w, double t, double h, void *y, void *f);

/* The accepted step's polynomial: y(theta) = y0 + h sum_i slope_i theta^(i+1); whole arrays of the state. */
void *gq_adams_slope(const gq_attempt *w, int i);
/* adams_sums.c: over the numbers of the state */
void gq_adams_load(gq_attempt *w, const void *x, double *to);
void gq_adams_predict(gq_attempt *w, int k, double h);             /* guess, move, y1 */
void gq_adams_errors(gq_attempt *w, int k, double norm[3]);        /* of the differences k + 1, k, k - 1 with f1 */
void gq_adams_correct(gq_attempt *w, double h, double g);          /* y1 */
double gq_adams_update(gq_attempt *w, int k, const void *f);       /* the differences; norm of the one k + 2 */

/* adams_start.c: the first steps on a fixed grid, up to the stop, and one of them as an attempt */
int gq_adams_start(gq_attempt *w, const gq_control *c);
int gq_adams_started(gq_attempt *w, double *ratio);

#endif
