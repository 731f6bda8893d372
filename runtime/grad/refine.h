/*
** refine.h -- Gauss-Legendre quadrature with error control: pieces of an interval, refined in batched rounds until what
** is left out is less than the tolerance. The integrand is seen through a few numbers of every parameter tensor.
**
** A round evaluates every piece of the list at its nodes; gq_refine_judge then accepts pieces and makes the list of the
** next round of those that are not resolved. Tensors (groups of numbers) are judged one by one: one norm over all would
** hide a small tensor that is wrong behind a large one that is right.
*/
#ifndef GQ_REFINE_H
#define GQ_REFINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  GQ_PIECE_MOST = 10,          /* nodes that a piece is given instead of fewer; */
  GQ_PIECE_FIRST = 32,         /* in the first round at most, and half of them and one in each half */
  GQ_REFINE_ROUNDS = 12,
  GQ_REFINE_NODES = 1024       /* or 16 times the first round's, where that is more */
};

typedef struct gq_piece {
  double from, to;
  int n;                       /* nodes */
  bool accepted;               /* by gq_refine_judge */
} gq_piece;

/* Fields: what the integral is of, and an array of each thing that pieces and tensors have. */
typedef struct gq_refine {
  int groups, numbers;         /* a node has `numbers` values, then one magnitude a group: of what was summed up */
  int *first;                  /* [groups + 1] group g: numbers first[g] .. first[g + 1] - 1 */
  double rtol;
  double eps;                  /* rounding of the values, relative to their magnitudes */
  double *total;               /* [numbers] integrals of accepted pieces; [groups] each of: */
  double *mass;                /* of the norm, */
  double *noise;               /* of the magnitude, */
  double *used;                /* estimated errors */
  double *tolerance;
  double *floor;               /* [groups] errors that cannot show: no piece is refined for them more than twice */
  double *agreed;              /* differences of accepted panels, apart from the errors of pieces */
  double limit, before;        /* the part of the tolerance spent behind the present list, and its share of the last */
  gq_piece *work, *next;
  int nwork, nnext, room;
  double *value, *sums;        /* [nodes][numbers + groups]; [nwork][numbers + 4 groups + 1] */
  size_t value_room, sums_room;
  int64_t nodes, first_nodes;  /* of the list's whole refinement */
  int round, rounds;           /* of the present list; the most so far */
  int64_t unresolved;          /* pieces accepted at a limit */
  int64_t halved;              /* pieces that more nodes would not have served */
} gq_refine;

/* size[groups]: numbers of each. */
int gq_refine_init(gq_refine *r, int groups, const int *size, double rtol, double eps);
void gq_refine_done(gq_refine *r);
void gq_refine_clear(gq_refine *r);    /* integrals from nothing */
/* A piece of a new list's first round, once the list before is worked off. */
int gq_refine_add(gq_refine *r, double from, double to, int n);
/* Room for the values of this round: nodes of work[0] first, each piece from `from` to `to`. */
int gq_refine_round(gq_refine *r);
/* Node j of a piece; its weight is signed. */
double gq_piece_node(const gq_piece *p, int j, double *weight);
/* Values are there, without weights. share: the part of the tolerance that may be spent when this list is worked off.
** spacing: pieces shorter than that are not halved. */
int gq_refine_judge(gq_refine *r, double share, double spacing);
/* Behind gq_refine_judge: all of the round, where the integrals that it gives and other[numbers], found in another way,
** differ by no more than `most` tolerances. */
int gq_refine_agree(gq_refine *r, const double *other, double most);
/* On to the next round, once rejected pieces have been taken back; false: worked off. */
bool gq_refine_next(gq_refine *r);
/* A node outside of any list, whose values have their weight. */
void gq_refine_count(gq_refine *r, const double *value);
/* Panels that were integrated by two rules: pieces of a list and room for it, as above; then what their nodes have,
** with weights, and the sums by the second rule, other[nwork][numbers], INFINITY where there is none. The smallest
** differences are accepted, up to `most` tolerances; the list is empty then,
** the panels in the order of adding still in `work`. */
void gq_refine_put(gq_refine *r, int i, const double *value);
int gq_refine_compare(gq_refine *r, const double *other, double most);
/* The largest of the groups' errors, relative to their integrals (a tenth of the integral of the norm where that is
** more), and to what rounding makes of them. */
double gq_refine_error(const gq_refine *r);
/* The same of the differences to integrals found in another way: other[numbers]. */
double gq_refine_difference(const gq_refine *r, const double *other);

#endif
