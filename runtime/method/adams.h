/*
** adams.h -- multistep methods: an integration whose steps hang on the slopes of the steps before. It has no step
** program; an attempt runs f and sums the history in C.
*/
#ifndef GQ_ADAMS_H
#define GQ_ADAMS_H

#include "attempt.h"

extern const gq_multistep gq_multistep_explicit_adams, gq_multistep_implicit_adams;

#endif
