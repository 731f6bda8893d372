/*
** check.h -- what C tests share: CHECK counts, and names the line of a failure; CHECK_DONE prints
** the totals and is the exit code.
*/
#ifndef GQ_CHECK_H
#define GQ_CHECK_H

#include <stdio.h>

static int check_passed, check_failed;

#define CHECK(condition)                                                            \
  do {                                                                              \
    if (condition) check_passed++;                                                  \
    else check_failed++, printf("%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
  } while (0)

#define CHECK_DONE() (printf("%d passed, %d failed\n", check_passed, check_failed), check_failed != 0)

#endif
