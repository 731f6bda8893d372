/*
** cores.c -- how many processors' time this process may use: those that it may run on, or fewer where a control group
** has a quota, as that of a container has (cgroups(7); cpu.max of version 2, cpu.cfs_quota_us of version 1).
*/
#define _GNU_SOURCE
#include "base.h"

#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

/* The first number of a file and, if there is one, the second; how many there are. */
static int numbers(const char *dir, const char *name, double *x, double *y) {
  char path[4096];
  if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path) return 0;
  FILE *f = fopen(path, "re");
  int n = f ? fscanf(f, "%lf %lf", x, y) : 0;
  if (f) fclose(f);
  return n < 0 ? 0 : n;
}

/* Processors that a group leaves its processes. */
static double quota_of(const char *dir) {
  double quota, period, unused;
  if (numbers(dir, "cpu.max", &quota, &period) != 2 &&
      (numbers(dir, "cpu.cfs_quota_us", &quota, &unused) != 1 ||
       numbers(dir, "cpu.cfs_period_us", &period, &unused) != 1))
    return INFINITY;
  return quota > 0 && period > 0 ? quota / period : INFINITY;
}

/* The least of a group and of those that it is in; `root` is where the groups are. */
static double least_quota(const char *root, const char *group) {
  char dir[4096];
  double least = INFINITY;
  if (snprintf(dir, sizeof dir, "%s%s", root, group) >= (int)sizeof dir) return least;
  for (char *end = dir + strlen(dir); end; end = strrchr(dir, '/')) {
    *end = '\0';
    if (strlen(dir) < strlen(root)) break;
    least = fmin(least, quota_of(dir));
  }
  return least;
}

/* Lines of /proc/self/cgroup: number:controllers:/group. A container may see its own group as the root alone. */
static double quota(void) {
  char line[4096];
  double least = INFINITY;
  FILE *f = fopen("/proc/self/cgroup", "re");
  while (f && fgets(line, sizeof line, f)) {
    line[strcspn(line, "\n")] = '\0';
    char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group) continue;
    *group++ = '\0', controllers++;
    if (!*controllers) least = fmin(least, least_quota("/sys/fs/cgroup", group));
    else if (strcmp(controllers, "cpu") == 0 || strncmp(controllers, "cpu,", 4) == 0)
      least = fmin(least, least_quota("/sys/fs/cgroup/cpu", group));
  }
  if (f) fclose(f);
  return least;
}

int gq_cores(void) {
  cpu_set_t set;
  CPU_ZERO(&set);
  int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  double most = fmax(1, ceil(quota()));
  return n < 1 ? 1 : n < most ? n : (int)most;
}
