/*
** narrate.c -- what the runtime does, told to whom it was asked to tell it.
*/
#include "base.h"

#include <stdatomic.h>
#include <string.h>

static const char *const topics[GQ_NTOPICS] = {
  [GQ_TELL_IR] = "ir", [GQ_TELL_STEP] = "step", [GQ_TELL_QUAD] = "quad", [GQ_TELL_MEM] = "mem"
};

static atomic_uint told; /* a bit a topic */
static void (*_Atomic teller)(const char *text);

int gq_narrate(const char *names, void (*to)(const char *text)) {
  unsigned wanted = 0;
  for (const char *at = names + strspn(names, ", "); *at; at += strspn(at, ", ")) {
    size_t n = strcspn(at, ", ");
    int k = 0;
    while (k < GQ_NTOPICS && (strlen(topics[k]) != n || memcmp(at, topics[k], n) != 0)) k++;
    if (k == GQ_NTOPICS)
      return gq_fail(GQ_EARG,
                     "ir, step, quad, mem or several of these (\"step,quad\") expected, got \"%.*s\"", (int)n,
                     at);
    wanted |= 1u << k;
    at += n;
  }
  atomic_store(&teller, to);
  atomic_store(&told, wanted);
  return GQ_OK;
}

bool gq_narrates(gq_topic topic) { return atomic_load_explicit(&told, memory_order_relaxed) >> topic & 1; }

void gq_tell(gq_topic topic, const char *fmt, ...) {
  if (!gq_narrates(topic)) return;
  gq_text text = { 0 };
  va_list args;
  gq_text_put(&text, "%s: ", topics[topic]);
  va_start(args, fmt);
  gq_text_putv(&text, fmt, args);
  va_end(args);
  gq_text_put(&text, "\n");
  if (!text.failed) atomic_load (&teller)(text.s);
  gq_free(text.s);
}
