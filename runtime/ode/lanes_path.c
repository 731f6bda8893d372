/*
** lanes_path.c -- lanes of an SDE: each goes along its own sample's path, and comes back to where steps were refused.
*/
#include "lanes.h"

static size_t bytes_of(const gq_lanes *p) { return p->noise.numbers * gq_dtype_size(p->f->dtype); }

/* Moment i of lane j. */
static char *moment(const gq_lanes *p, int i, int j) {
  size_t lane = p->f->front ? bytes_of(p) : gq_dtype_size(p->f->dtype);
  return (char *)p->noise.w + i * p->noise.apart + j * lane;
}

static size_t stride(const gq_lanes *p) { return p->f->front ? 1 : p->n; }

size_t gq_lanes_noise_bytes(const gq_lanes *p) {
  return p->f->noise ? gq_along_moments(p->f) * bytes_of(p) : 0;
}

void gq_lanes_noise_put(const gq_lanes *p, int j, const char *sample) {
  for (int i = 0; p->f->noise && i < gq_along_moments(p->f); i++, sample += bytes_of(p))
    p->f->on->vec->spread(gq_dtype_size(p->f->dtype), p->noise.numbers, sample, 1, moment(p, i, j),
                          stride(p));
}

void gq_lanes_noise_get(const gq_lanes *p, int j, char *sample) {
  for (int i = 0; p->f->noise && i < gq_along_moments(p->f); i++, sample += bytes_of(p))
    p->f->on->vec->spread(gq_dtype_size(p->f->dtype), p->noise.numbers, moment(p, i, j), stride(p), sample,
                          1);
}

int gq_lanes_path_begin(gq_lanes *p, int j) {
  gq_lanepath *own = &p->noise.lane[j];
  gq_lane *lane = &p->lane[j];
  if (!p->f->noise) return GQ_OK;
  gq_along_done(&own->along);
  own->goal = lane->c.stop, own->nrefused = 0;
  lane->c.rest = GQ_ALONG_REST;
  return gq_along_row(p->f, p->s->along.path, lane->sample, &own->along);
}

/* The last of the ends of refused steps that lie ahead, and before the time that the sample goes to. */
void gq_lanes_path_aim(const gq_lanes *p, int j) {
  gq_lane *lane = &p->lane[j];
  if (!p->f->noise) return;
  const gq_lanepath *own = &p->noise.lane[j];
  double dir = own->goal < lane->t ? -1 : 1;
  bool back = own->nrefused && dir * (own->goal - own->refused[own->nrefused - 1]) > 0;
  lane->c.stop = back ? own->refused[own->nrefused - 1] : own->goal;
}

static double end_of(const gq_lane *lane) { return lane->c.clamped ? lane->c.stop : lane->t + lane->h1; }

int gq_lanes_path_read(const gq_lanes *p, int j) {
  const gq_lane *lane = &p->lane[j];
  if (!p->f->noise) return GQ_OK;
  gq_along *along = &p->noise.lane[j].along;
  GQ_TRY(gq_along_read(along, lane->t, end_of(lane)));
  for (int i = 0; i < gq_along_moments(p->f); i++)
    p->f->on->vec->put(p->f->dtype, along->n, gq_along_moment(along, i), moment(p, i, j), stride(p));
  return GQ_OK;
}

void gq_lanes_path_refused(const gq_lanes *p, int j, double end) {
  gq_lanepath *own = &p->noise.lane[j];
  if (!p->f->noise || own->nrefused == GQ_REFUSED_MOST) return;
  if (!own->nrefused || own->refused[own->nrefused - 1] != end) own->refused[own->nrefused++] = end;
}

void gq_lanes_path_accepted(const gq_lanes *p, int j) {
  gq_lanepath *own = &p->noise.lane[j];
  if (!p->f->noise || !own->nrefused || p->lane[j].t1 != own->refused[own->nrefused - 1]) return;
  own->nrefused--;
  p->lane[j].c.clamped = false;
}

bool gq_lanes_path_there(const gq_lanes *p, int j) {
  const gq_lane *lane = &p->lane[j];
  return lane->t == (p->f->noise ? p->noise.lane[j].goal : lane->c.stop);
}

void gq_lanes_path_on(const gq_lanes *p, int j) {
  if (p->f->noise) p->noise.lane[j].goal = p->lane[j].c.stop;
}

void gq_lanes_path_done(gq_lanes *p) {
  for (int j = 0; p->f && p->f->noise && p->noise.lane && j < p->n; j++)
    gq_along_done(&p->noise.lane[j].along);
  p->noise.lane = NULL;
}
