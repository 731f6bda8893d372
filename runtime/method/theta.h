/*
** theta.h -- steps of SDEs whose drift is implicit: z1 = z + ((1 - theta) f(t, z) + theta f(t + h, z1)) h + G(t, z) dW.
*/
#ifndef GQ_THETA_H
#define GQ_THETA_H

#include "attempt.h"

extern const gq_stepclass gq_theta_steps;

#endif
