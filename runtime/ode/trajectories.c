/*
** trajectories.c -- the table of trajectories; each row stands in the file of its functions.
*/
#include "trajectory.h"

const gq_trajectory_kind *const gq_trajectories[] = { &gq_trajectory_reverse, &gq_trajectory_dense,
                                                      &gq_trajectory_checkpoint, &gq_trajectory_interpolated,
                                                      NULL };
