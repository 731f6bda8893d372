/*
** langevin.h -- steps of methods for Langevin SDEs (noise.c has their rows).
*/
#ifndef GQ_LANGEVIN_H
#define GQ_LANGEVIN_H

#include "builder.h"

int gq_langevin_align(gq_builder *b);
int gq_langevin_should(gq_builder *b);
int gq_langevin_quicsort(gq_builder *b);

#endif
