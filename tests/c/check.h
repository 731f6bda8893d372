/*
** check.h -- what C tests share: RUN counts a test, which fails when a CHECK in it does; CHECK names
** the line of a failure; DONE prints the totals and is the exit code.
*/
#ifndef GQ_CHECK_H
#define GQ_CHECK_H

#include <stdio.h>

static __attribute__((unused)) int check_bad, tests_passed, tests_failed;

#define CHECK(condition) \
  do \
    if (!(condition)) check_bad++, printf("%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
  while (0)

#define RUN(call) \
  do { \
    int before_ = check_bad; \
    call; \
    if (check_bad == before_) tests_passed++; \
    else tests_failed++, printf("failed: %s\n", #call); \
  } while (0)

#define DONE() (printf("%d passed, %d failed\n", tests_passed, tests_failed), tests_failed != 0)

#endif
