/*
** engines.c -- the gradient engines: what each keeps of the forward solve, what it needs, how it goes back. All that
** other files know of an engine are these columns.
*/
#include "../ode/solution.h"

#include <string.h>

/* clang-format off */
/* What the rows point to: a file an engine, or a family of them. */
typedef void shape(const gq_ode_options *o, gq_plankey *k);
typedef int build(gq_plan *p), backward(gq_pullback *b), samples(struct gq_samplepull *w);
typedef int choose(const gq_planspec *s, gq_ode_options *o, int64_t steps, gq_info *info);
build    gq_stochastic_build, gq_direct_build, gq_inverse_build, gq_continuous_build, gq_collocation_build;
backward gq_stochastic_backward, gq_direct_backward, gq_inverse_backward, gq_continuous_backward,
         gq_collocation_backward;
samples  gq_samples_direct, gq_samples_quadrature;
shape    gq_nodes_shape, gq_collocation_shape;
choose   gq_auto_choose, gq_noise_choose;

static int build_none(gq_plan *p) { return gq_plan_forward(p, false); }
static bool is_alf(const gq_tableau *m) { return m->tuple && m->tuple->damped; }

const gq_engine gq_engines[] = {
  { .name = "none", .keeps = GQ_KEEP_NOTHING, .build = build_none,
    .kept = "nothing",
    .doc = "no gradients" },

  /* along the steps taken */
  { .name = "direct", .keeps = GQ_KEEP_ACTIVATIONS, .traits = GQ_OF_STEPS,
    .build = gq_direct_build, .backward = gq_direct_backward, .samples = gq_samples_direct,
    .kept = "every activation",
    .doc = "backpropagation through the steps taken; second derivatives too (create_graph)" },
  { .name = "aca", .keeps = GQ_KEEP_STEPS, .traits = GQ_OF_STEPS,
    .build = gq_direct_build, .backward = gq_direct_backward, .samples = gq_samples_direct,
    .kept = "the states of the steps", .source = "Zhuang et al. 2020",
    .doc = "the same, second derivatives too, with the steps run again one by one" },
  { .name = "mali", .keeps = GQ_KEEP_END, .method = is_alf,
    .build = gq_inverse_build, .backward = gq_inverse_backward,
    .kept = "the end state", .source = "Zhuang et al. 2021",
    .doc = "the same, with the steps of alf undone" },
  { .name = "reversible", .keeps = GQ_KEEP_END, .method = gq_method_reversible,
    .build = gq_inverse_build, .backward = gq_inverse_backward,
    .kept = "the end state", .source = "Kidger et al. 2021",
    .doc = "the same, with the steps of alf, reversible_heun or leapfrog undone" },

  /* by the adjoint equation */
  { .name = "adjoint", .keeps = GQ_KEEP_TRAJECTORY, .integral = GQ_INTEGRAL_INSIDE,
    .build = gq_continuous_build, .backward = gq_continuous_backward,
    .kept = "the states at the times asked for", .source = "Chen et al. 2018",
    .doc = "the parameters' integral solved with the adjoint, in its error norm" },
  { .name = "seminorm", .keeps = GQ_KEEP_TRAJECTORY, .integral = GQ_INTEGRAL_OUTSIDE,
    .build = gq_continuous_build, .backward = gq_continuous_backward,
    .kept = "the states at the times asked for", .source = "Kidger et al. 2021",
    .doc = "that integral outside of the error norm" },
  { .name = "interpolated", .keeps = GQ_KEEP_TRAJECTORY, .integral = GQ_INTEGRAL_OUTSIDE,
    .trajectory = &gq_trajectory_interpolated, .traits = GQ_PATH_OWN,
    .build = gq_continuous_build, .backward = gq_continuous_backward,
    .kept = "Chebyshev points", .source = "IRDM, Daulbaev et al. 2020",
    .doc = "seminorm with z read from its interpolant" },
  { .name = "gqc", .keeps = GQ_KEEP_TRAJECTORY, .most_nodes = GQ_MAX_ELEMENT,
    .trajectory = &gq_trajectory_dense, .traits = GQ_PATH_OWN | GQ_ALL_STEPS,
    .shape = gq_collocation_shape, .build = gq_collocation_build, .backward = gq_collocation_backward,
    .kept = "the dense solution",
    .doc = "Gauss collocation with a Jacobian a row, f batched over the nodes of all steps, any number "
           "of times at no cost; for fields that treat rows alone, at most 8 numbers a row (or 8 in all)" },
  { .name = "kronrod", .keeps = GQ_KEEP_TRAJECTORY, .integral = GQ_INTEGRAL_ADAPTIVE,
    .trajectory = &gq_trajectory_dense, .traits = GQ_PATH_KEPT,
    .build = gq_continuous_build, .backward = gq_continuous_backward,
    .kept = "the dense solution",
    .doc = "adaptive Gauss-Kronrod quadrature of that integral" },
  { .name = "gq", .keeps = GQ_KEEP_TRAJECTORY, .integral = GQ_INTEGRAL_NODES,
    .shape = gq_nodes_shape, .build = gq_continuous_build, .backward = gq_continuous_backward,
    .samples = gq_samples_quadrature,
    .kept = "the states at the times asked for", .source = "Norcliffe & Deisenroth 2023",
    .doc = "that integral by Gauss-Legendre nodes, as many as eq. (9) or gq.nodes says" },
  { .name = "check", .keeps = GQ_KEEP_TRAJECTORY, .integral = GQ_INTEGRAL_NODES, .traits = GQ_TWICE,
    .shape = gq_nodes_shape, .build = gq_continuous_build, .backward = gq_continuous_backward,
    .samples = gq_samples_quadrature,
    .kept = "the states at the times asked for",
    .doc = "gq with n and with 2n nodes, the gradient that of 2n, their difference info.audit: ?guards" },

  { .name = "auto", .keeps = GQ_KEEP_TRAJECTORY, .choose = gq_auto_choose, .find = gq_engine_find,
    .kept = "what fits memory_limit",
    .doc = "gqc for few short rows, else direct where its activations fit memory_limit (bytes; 1 GiB), "
           "otherwise gq (reversible methods are undone); "
           "info.engine and info.reason tell" },
};

/* The engines of SDEs. */
const gq_engine gq_noise_engines[] = {
  { .name = "auto", .keeps = GQ_KEEP_ACTIVATIONS, .choose = gq_noise_choose, .find = gq_noise_engine_find,
    .kept = "what fits memory_limit",
    .doc = "aca where layers are narrow; else direct where its activations fit memory_limit (bytes; 1 GiB); reversible "
           "where not even states fit and the method is reversible_heun" },
  { .name = "direct", .keeps = GQ_KEEP_ACTIVATIONS, .traits = GQ_OF_STEPS,
    .build = gq_direct_build, .backward = gq_direct_backward, .samples = gq_samples_direct,
    .kept = "every activation",
    .doc = "backpropagation through the steps taken; second derivatives too (create_graph)" },
  { .name = "aca", .keeps = GQ_KEEP_STEPS, .traits = GQ_OF_STEPS,
    .build = gq_direct_build, .backward = gq_direct_backward, .samples = gq_samples_direct,
    .kept = "the states of the steps",
    .doc = "the same, with the steps run again one by one along the same path" },
  { .name = "reversible", .keeps = GQ_KEEP_END, .method = gq_method_reversible,
    .build = gq_inverse_build, .backward = gq_inverse_backward,
    .kept = "the end state", .source = "Kidger et al. 2021",
    .doc = "the same, with the steps of reversible_heun undone" },
  { .name = "adjoint", .keeps = GQ_KEEP_END, .integral = GQ_INTEGRAL_OUTSIDE,
    .build = gq_stochastic_build, .backward = gq_stochastic_backward,
    .kept = "the states at the times asked for", .source = "Li et al. 2020",
    .doc = "the stochastic adjoint, solved backwards along the same path" },
  { .name = "none", .keeps = GQ_KEEP_NOTHING, .build = build_none,
    .kept = "nothing",
    .doc = "no gradients" },
};
/* clang-format on */
const int gq_nengines = sizeof gq_engines / sizeof *gq_engines;
const int gq_nnoise_engines = sizeof gq_noise_engines / sizeof *gq_noise_engines;

static const gq_engine *find(const gq_engine *rows, int n, const char *name) {
  for (int i = 0; i < n; i++)
    if (!strcmp(rows[i].name, name)) return &rows[i];
  return NULL;
}

const gq_engine *gq_noise_engine_find(const char *name) {
  return find(gq_noise_engines, gq_nnoise_engines, name);
}
const gq_engine *gq_engine_find(const char *name) { return find(gq_engines, gq_nengines, name); }

void gq_ode_defaults(gq_ode_options *o, gq_dtype d) {
  double tol = d == GQ_F32 ? 1e-3 : 1e-6;
  *o = (gq_ode_options){ .method = gq_tableau_find("dopri5"),
                         .eta = 1,
                         .theta = 1,
                         .rtol = tol,
                         .atol = tol,
                         .max_steps = 100000,
                         .controller = { 0.9, 10, 0.2, 0, 1, 0 },
                         .engine = gq_engine_find("auto"),
                         .back_rtol = tol,
                         .back_atol = tol,
                         .back_max_steps = 100000,
                         .trajectory = &gq_trajectory_dense,
                         .thin = true,
                         .auto_impulses = true,
                         .checkpoints = 16,
                         .scale = true,
                         .C = 0.1,
                         .max_nodes = 64,
                         .nodes = GQ_NODES_AUTO,
                         .audit = GQ_AUDIT_UNASKED,
                         .memory_limit = (size_t)1 << 30,
                         .quadrature = gq_quadratures,
                         .panels = 1 };
  o->back_method = o->method;
}
