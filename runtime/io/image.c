/*
** image.c -- PNG by libpng's simplified interface (png.h 1.6, png_image, stable since 1.6.0) and JPEG by libturbojpeg's
** (turbojpeg.h 2.0). Both are opened when the first such file is read, so a program that reads none needs neither.
*/
#include "io.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

enum { MOST_PIXELS = 1 << 28 };

static int missing(const char *name, const char *kind, const char *package) {
  return gq_fail(GQ_EUNSUPPORTED,
                 "%s: %s files are read by a library that is not installed: apt-get install %s", name, kind,
                 package);
}

/* pixels [h][w][c] of bytes -> {c, h, w} */
static int as_tensor(const uint8_t *pixel, int64_t w, int64_t h, int64_t c, gq_tensor **t) {
  GQ_TRY(gq_tensor_empty(GQ_F32, gq_shape_of(3, (int64_t[]){ c, h, w }), t));
  float *to = gq_tensor_data(*t);
  for (int64_t k = 0; k < c; k++)
    for (int64_t i = 0; i < h * w; i++) *to++ = (float)pixel[i * c + k] / 255;
  return GQ_OK;
}

typedef struct png_image {
  void *opaque;
  uint32_t version, width, height, format, flags, colormap_entries, warning_or_error;
  char message[64];
} png_image;

/* Of libpng, and of libturbojpeg. */
static struct {
  int (*begin)(png_image *, const void *, size_t);
  int (*finish)(png_image *, const void *, void *, int32_t, void *);
  void (*done)(png_image *);
} png;
static struct {
  void *(*init)(void);
  int (*header)(void *, const void *, unsigned long, int *, int *, int *, int *);
  int (*decompress)(void *, const void *, unsigned long, uint8_t *, int, int, int, int, int);
  int (*destroy)(void *);
  char *(*error)(void *);
} jpeg;
static bool png_there, jpeg_there;

/* Functions of a library into pointers that follow each other; false: one is missing. */
static bool take(const char *file, const char *const *names, void *into) {
  void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL), *f;
  for (int i = 0; library && names[i]; i++) {
    if (!(f = dlsym(library, names[i]))) return false;
    memcpy((char *)into + (size_t)i * sizeof f, &f, sizeof f);
  }
  return library;
}

static void open_libraries(void) {
  static const char *const of_png[] = { "png_image_begin_read_from_memory", "png_image_finish_read",
                                        "png_image_free", NULL };
  static const char *const of_jpeg[] = { "tjInitDecompress", "tjDecompressHeader3", "tjDecompress2",
                                         "tjDestroy",        "tjGetErrorStr2",      NULL };
  png_there = take("libpng16.so.16", of_png, &png);
  jpeg_there = take("libturbojpeg.so.0", of_jpeg, &jpeg);
}

static pthread_once_t once = PTHREAD_ONCE_INIT;

/* What is left of red, green, blue and alpha: the colours as they are under it, or a grey of theirs as JPEG's Y (Rec. 601)
** and PIL's "L" are. libpng's own would compose and weigh in linear light. */
static void keep(uint8_t *pixel, size_t n, int channels) {
  uint8_t *to = pixel;
  for (const uint8_t *p = pixel; n-- > 0; p += 4)
    if (channels == 1) *to++ = (uint8_t)((19595 * p[0] + 38470 * p[1] + 7471 * p[2] + (1 << 15)) >> 16);
    else memmove(to, p, 3), to += 3;
}

/* NOT_LINEAR: without it 16 bits a number that say nothing of gamma are taken for linear light, and bent. */
enum { RGBA = 3, NOT_LINEAR = 4 };

/* bytes [n] -> to, without the chunks before the pixels that say how numbers are light: libpng bends what it reads by
** them, PIL does not. How many are left. What is cut off or longer than the file stays for libpng to refuse. */
static size_t without_light(const uint8_t *bytes, size_t n, uint8_t *to) {
  static const char *const light[] = { "gAMA", "cHRM", "sRGB", "iCCP", "cICP" };
  size_t at = 8, kept = 8;
  memcpy(to, bytes, 8);
  while (n - at >= 12 && memcmp(bytes + at + 4, "IDAT", 4) != 0) {
    const uint8_t *b = bytes + at;
    uint64_t size = ((uint64_t)b[0] << 24 | (uint64_t)b[1] << 16 | (uint64_t)b[2] << 8 | b[3]) + 12;
    bool keeps = true;
    if (size > n - at) break;
    for (size_t i = 0; i < sizeof light / sizeof *light; i++) keeps &= memcmp(b + 4, light[i], 4) != 0;
    if (keeps) memcpy(to + kept, b, size), kept += size;
    at += size;
  }
  memcpy(to + kept, bytes + at, n - at);
  return kept + n - at;
}

/* Of 16 bits a number and interlaced, whose rows png_image_finish_read of libpng 1.6.39 puts in each other's place. */
static bool mixes(const uint8_t *bytes, size_t n) { return n > 28 && bytes[24] == 16 && bytes[28] != 0; }

static int decode_png(const char *name, const void *bytes, size_t n, int channels, gq_tensor **t) {
  png_image image = { .version = 1 };
  if (!png.begin(&image, bytes, n)) return gq_fail(GQ_EFORMAT, "%s: %s", name, image.message);
  size_t pixels = (size_t)image.width * image.height;
  image.format = RGBA, image.flags |= NOT_LINEAR;
  uint8_t *pixel = pixels <= MOST_PIXELS ? gq_alloc(pixels * 4 + 1) : NULL;
  int status = GQ_OK;
  if (!pixel)
    status = pixels > MOST_PIXELS
               ? gq_fail(GQ_EFORMAT, "%s: an image of %u x %u", name, image.width, image.height)
               : gq_nomem(pixels);
  else if (!png.finish(&image, NULL, pixel, 0, NULL))
    status = gq_fail(GQ_EFORMAT, "%s: %s", name, image.message);
  else {
    keep(pixel, pixels, channels);
    status = as_tensor(pixel, image.width, image.height, channels, t);
  }
  png.done(&image);
  gq_free(pixel);
  return status;
}

static int read_png(const char *name, const void *bytes, size_t n, int channels, gq_tensor **t) {
  uint8_t *plain;
  if (!png_there) return missing(name, "PNG", "libpng16-16");
  if (mixes(bytes, n))
    return gq_fail(GQ_EUNSUPPORTED, "%s: an interlaced PNG of 16 bits a number: save it without interlacing",
                   name);
  if (!(plain = gq_alloc(n))) return gq_nomem(n);
  int status = decode_png(name, plain, without_light(bytes, n, plain), channels, t);
  gq_free(plain);
  return status;
}

static int read_jpeg(const char *name, const void *bytes, size_t n, int channels, gq_tensor **t) {
  void *z;
  if (!jpeg_there) return missing(name, "JPEG", "libturbojpeg0");
  if (!(z = jpeg.init())) return gq_nomem(1 << 16);
  int w = 0, h = 0, sampling, space, status = GQ_OK, format = channels == 1 ? 6 : 0; /* TJPF_GRAY; TJPF_RGB */
  uint8_t *pixel = NULL;
  if (jpeg.header(z, bytes, n, &w, &h, &sampling, &space) != 0)
    status = gq_fail(GQ_EFORMAT, "%s: %s", name, jpeg.error(z));
  else if (w < 1 || h < 1 || (int64_t)w * h > MOST_PIXELS)
    status = gq_fail(GQ_EFORMAT, "%s: an image of %d x %d", name, w, h);
  else if (!(pixel = gq_alloc((size_t)w * (size_t)h * (size_t)channels)))
    status = gq_nomem((size_t)w * (size_t)h);
  else if (jpeg.decompress(z, bytes, n, pixel, w, 0, h, format, 0) != 0)
    status = gq_fail(GQ_EFORMAT, "%s: %s", name, jpeg.error(z));
  else status = as_tensor(pixel, w, h, channels, t);
  jpeg.destroy(z);
  gq_free(pixel);
  return status;
}

int gq_image_read(const char *name, const void *bytes, size_t n, int channels, gq_tensor **t) {
  const unsigned char *b = bytes;
  *t = NULL;
  pthread_once(&once, open_libraries);
  if (n > 8 && memcmp(b, "\x89PNG\r\n\x1a\n", 8) == 0) return read_png(name, bytes, n, channels, t);
  if (n > 3 && b[0] == 0xff && b[1] == 0xd8 && b[2] == 0xff) return read_jpeg(name, bytes, n, channels, t);
  return gq_fail(GQ_EFORMAT, "%s: neither a PNG nor a JPEG file", name);
}
