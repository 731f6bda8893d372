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
static gqL_solve now;                 /* the innermost */
static volatile sig_atomic_t calling; /* it runs the script's own function: the host can stop that */

static void on_interrupt(int sig) {
  gq_interrupt(); /* a second Ctrl-C meets the default action: SA_RESETHAND */
  bool chain = calling && !(before.sa_flags & SA_SIGINFO) && before.sa_handler != SIG_DFL;
  if (chain) before.sa_handler(sig);
}

void gqL_catch(lua_State *L) {
  struct sigaction ours;
  luaL_checkstack(L, 4, NULL);
  lua_pushnil(L); /* the place of an error */
  now = (gqL_solve){ L, lua_gettop(L), false };
  calling = false;
  if (depth++ > 0 || gqL_host_interrupts) return;
  memset(&ours, 0, sizeof ours);
  ours.sa_handler = on_interrupt;
  ours.sa_flags = SA_RESETHAND | SA_RESTART;
  sigemptyset(&ours.sa_mask);
  installed = sigaction(SIGINT, NULL, &before) == 0 && before.sa_handler != SIG_IGN &&
              sigaction(SIGINT, &ours, NULL) == 0;
}

gqL_solve gqL_pause(void) {
  gqL_solve s = now;
  calling = true;
  return s;
}

void gqL_resume(gqL_solve s, bool raised) {
  now = s;
  calling = false;
  if (!raised) return;
  now.raised = true;
  lua_replace(s.L, s.slot);
}

void gqL_rethrow(lua_State *L) {
  if (!now.raised) return;
  now.raised = false;
  lua_settop(L, now.slot);
  lua_error(L);
}

int gqL_release(int status) {
  calling = depth > 1; /* back in the function that the solve around this one called */
  if (!now.raised) lua_settop(now.L, now.slot - 1);
  if (--depth > 0 || !installed) return status;
  installed = false;
  sigaction(SIGINT, &before, NULL);
  if (status != GQ_EINTERRUPT && gq_interrupted()) { /* it came too late for the solve: it is the host's */
    gq_interrupt_clear();
    raise(SIGINT);
  }
  return status;
}
