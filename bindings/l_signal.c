/*
** l_signal.c -- Ctrl-C during a solve, under a host that cannot stop one: stock lua's handler sets a hook,
** which C code never looks at. Around a solve, and only there, SIGINT ends the solve with an error; the host's
** own action is back afterwards. gqlua stops solves itself and sets gqL_host_interrupts.
*/
#include <signal.h>
#include <string.h>
#include "bind.h"

bool gqL_host_interrupts = false;

static struct sigaction before; /* the host's */
static int depth;               /* solves inside solves */
static bool installed;

static void on_interrupt(int sig) {
  (void)sig;
  gq_interrupt(); /* a second Ctrl-C meets the default action: SA_RESETHAND */
}

void gqL_catch(void) {
  struct sigaction ours;
  if (depth++ > 0 || gqL_host_interrupts) return;
  memset(&ours, 0, sizeof ours);
  ours.sa_handler = on_interrupt;
  ours.sa_flags = SA_RESETHAND | SA_RESTART;
  sigemptyset(&ours.sa_mask);
  installed = sigaction(SIGINT, NULL, &before) == 0 && before.sa_handler != SIG_IGN &&
              sigaction(SIGINT, &ours, NULL) == 0;
}

int gqL_release(int status) {
  if (--depth > 0 || !installed) return status;
  installed = false;
  sigaction(SIGINT, &before, NULL);
  if (status != GQ_EINTERRUPT && gq_interrupted()) { /* it came too late for the solve: it is the host's */
    gq_interrupt_clear();
    raise(SIGINT);
  }
  return status;
}
