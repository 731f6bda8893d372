/*
** ways.c -- what is around the phases of a kernel (tile.c), for each way that phases are run: texts in sections of solves.h
** and solves_back.h, what comes before each phase, and what that leaves.
*/
#include "code.h"

enum { NONE = GQ_LEAVES_NONE, ROWS = GQ_LEAVES_ROWS, TIMES = GQ_LEAVES_TIMES };
enum { ALONG = 17 * (17 + 6) }; /* numbers that gq_go_along shares */

/* How attempts begin and end; how lanes begin, whose struct is `name`. */
#define LOOP "  gq_loop *loop = (gq_loop *)GQ_FAR(a.loop);\n  if (loop->halted) return;\n"
#define DECIDE "  gq_loop_decide(loop, (const double *)GQ_FAR(a.sums));\n"
#define LANES(type, name, solve)                                                                  \
  "  " type " *" name " = (" type " *)GQ_FAR(a.loop);\n  char *w = GQ_FAR(" solve "room + " solve \
  "each * GQ_TILE);\n  gq_u64 began = GQ_CLOCK;\n  int what;\n"

const gq_wayform gq_cuda_ways[GQ_NWAY] = {
  [GQ_WAY_ONCE] = { .name = "tile", .begin = "", .turn = "0", .before = { "" }, .end = "" },
  [GQ_WAY_ATTEMPT] = { .name = "attempt",
                       .sections = { "power", "control", "trail", "loop", "decide" },
                       .begin = LOOP,
                       .turn = "loop->accepted",
                       .before = { "" },
                       .end = DECIDE,
                       .fixed = (GQ_NT + 2 * 2) * sizeof(double) + 16 },
  [GQ_WAY_ALONG] = { .name = "along",
                     .sections = { "power", "control", "trail", "loop", "decide", "along" },
                     .begin = LOOP "  gq_go_along(loop, a.at + GQ_TILE * a.each, (int)a.each);\n",
                     .turn = "loop->accepted",
                     .before = { "" },
                     .end = DECIDE,
                     .fixed = (GQ_NT + 2 * 2 + ALONG) * sizeof(double) + 16 },
  [GQ_WAY_AFTER] = { .name = "after",
                     .sections = { "after" },
                     .begin = "  GQ_BY(unroll 1)\n"
                              "  for (int turn = 0; turn < (int)a.each; turn++) {\n",
                     .turn = "turn",
                     .before = { "" },
                     .end = "  }\n" },
  [GQ_WAY_LANES] = { .name = "lanes",
                     .sections = { "power", "control", "lane", "lanes", "lane_end", "steps", "forward" },
                     .begin = LANES("gq_lanesolve", "f", "f->"),
                     .turn = "0",
                     .before = { "  gq_block_begin(f, w);\n"
                                 "  while ((what = gq_block_turn(f, w, began)) != GQ_LANE_IDLE) {\n"
                                 "  if (what == GQ_LANE_NEW) gq_block_take(f, w);\n"
                                 "  else if (what == GQ_LANE_SLOPE) {\n"
                                 "  gq_block_ask(f, w);\n",
                                 "  gq_block_answer(f, w);\n"
                                 "  } else {\n"
                                 "  gq_block_propose(f, w);\n",
                                 "  gq_block_judge(f, w);\n" },
                     .leaves = { ROWS, TIMES, NONE },
                     .only = { [2] = "  GQ_SYNC\n  if (((gq_laneblock *)w)->dense) {\n" },
                     .end = "  gq_block_move(f, w);\n"
                            "  }\n"
                            "  }\n",
                     .lanes = true },
  [GQ_WAY_DIRECT] = { .name = "direct",
                      .sections = { "power", "control", "lane", "lanes", "lane_direct" },
                      .begin = LANES("gq_lanedirect", "b", "b->f."),
                      .turn = "0",
                      .before = { "  gq_block_begin(&b->f, w);\n"
                                  "  while ((what = gq_direct_turn(b, w, began)) != GQ_LANE_IDLE) {\n"
                                  "  if (what == GQ_LANE_READY) {\n"
                                  "  gq_direct_load(b, w);\n",
                                  "", "  gq_direct_times(b, w);\n",
                                  "  gq_direct_back(b, w);\n"
                                  "  } else {\n"
                                  "  gq_direct_ask(b, w);\n" },
                      .leaves = { ROWS, NONE, ROWS, ROWS },
                      .follows = { [1] = true, [2] = true },
                      .unread = { true, true },
                      .end = "  gq_direct_start(b, w);\n"
                             "  }\n"
                             "  }\n",
                      .lanes = true },
  [GQ_WAY_ADJOINT] = { .name = "adjoint",
                       .sections = { "power", "control", "lane", "lanes", "adjoint_nodes", "steps",
                                     "adjoint" },
                       .begin = LANES("gq_laneadjoint", "b", "b->f."),
                       .turn = "0",
                       .before = { "  gq_block_begin(&b->f, w);\n"
                                   "  while ((what = gq_adjoint_turn(b, w, began)) != GQ_LANE_IDLE) {\n"
                                   "  if (what == GQ_LANE_NEW) gq_adjoint_take(b, w);\n"
                                   "  else if (what == GQ_LANE_TAKEN) gq_adjoint_collect(b, w);\n"
                                   "  else if (what == GQ_LANE_SLOPE) {\n"
                                   "  gq_block_ask(&b->f, w);\n",
                                   "  gq_block_answer(&b->f, w);\n"
                                   "  } else if (what == GQ_LANE_READY) {\n"
                                   "  gq_block_propose(&b->f, w);\n",
                                   "  gq_block_judge(&b->f, w);\n",
                                   "  gq_adjoint_move(b, w);\n"
                                   "  } else {\n"
                                   "  gq_adjoint_points(b, w);\n" },
                       .leaves = { ROWS, TIMES, NONE, ROWS },
                       .only = { [2] = "  GQ_SYNC\n  if (((gq_laneblock *)w)->dense) {\n" },
                       .end = "  gq_adjoint_weigh(b, w);\n"
                              "  }\n"
                              "  }\n",
                       .lanes = true },
};
