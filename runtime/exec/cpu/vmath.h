/*
** vmath.h -- the functions that the formulas of ir/ops.def name: EXP(x), TANH(x), ...
** Each picks its type by _Generic, so one formula serves float32 and float64.
*/
#ifndef GQ_VMATH_H
#define GQ_VMATH_H

#include <math.h>
#include <stdint.h>

static inline double softplus_d(double x) { return fmax(x, 0) + log1p(exp(-fabs(x))); }
static inline double sigmoid_d(double x) {
  double e = exp(-fabs(x));
  return (x >= 0 ? 1 : e) / (1 + e) + 0 * x;
}
static inline float softplus_s(float x) { return (float)softplus_d(x); }
static inline float sigmoid_s(float x) { return (float)sigmoid_d(x); }

#define BY_TYPE(x, s, d) _Generic((x), float: s, double: d)
#define EXP(x) BY_TYPE(x, expf, exp)(x)
#define LOG(x) BY_TYPE(x, logf, log)(x)
#define LOG1P(x) BY_TYPE(x, log1pf, log1p)(x)
#define EXPM1(x) BY_TYPE(x, expm1f, expm1)(x)
#define SQRT(x) BY_TYPE(x, sqrtf, sqrt)(x)
#define ABS(x) BY_TYPE(x, fabsf, fabs)(x)
#define SIGN(x) ((x) > 0 ? 1 : (x) < 0 ? -1 : (x)) /* NaN stays */
#define SIN(x) BY_TYPE(x, sinf, sin)(x)
#define COS(x) BY_TYPE(x, cosf, cos)(x)
#define TAN(x) BY_TYPE(x, tanf, tan)(x)
#define TANH(x) BY_TYPE(x, tanhf, tanh)(x)
#define SIGMOID(x) BY_TYPE(x, sigmoid_s, sigmoid_d)(x)
#define SOFTPLUS(x) BY_TYPE(x, softplus_s, softplus_d)(x)
#define ERF(x) BY_TYPE(x, erff, erf)(x)
#define POW(x, y) BY_TYPE(x, powf, pow)(x, y)
#define MAXIMUM(x, y) ((x) > (y) || (x) != (x) ? (x) : (y)) /* NaN wins */
#define MINIMUM(x, y) ((x) < (y) || (x) != (x) ? (x) : (y))

#endif
