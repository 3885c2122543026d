// The gradient of the maximum of windows of 2x2 pixels.
//
// XLA's goes over memory several times, or picks numbers out of it one by one.

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "parallel.h"
#include "xla/ffi/api/ffi.h"

// Compiled for each of these instruction sets, of which the processor's is taken.
#define JAXVISION_EVERY_PROCESSOR \
  __attribute__((optimize("O3"), target_clones("default", "avx2", "arch=skylake-avx512")))

namespace {

namespace ffi = ::xla::ffi;

using Bfloat16 = uint16_t;

inline float Value(float number) { return number; }

inline float Value(Bfloat16 number) {
  const uint32_t bits = static_cast<uint32_t>(number) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// Some channels of a window: its pixels row by row, what they get, and the gradient.
//
// The first of equal pixels has it all; where one is no number, the last has.
template <int channels, typename Number>
inline __attribute__((always_inline)) void Window(const Number* const (&pixels)[4],
                                                  Number* const (&found)[4],
                                                  const Number* gradient, int64_t start) {
  // Copied, so that the compiler knows that nothing overlaps.
  Number x[4][channels], y[4][channels], g[channels];
  for (int i = 0; i < 4; ++i) std::memcpy(x[i], pixels[i] + start, sizeof(x[i]));
  std::memcpy(g, gradient + start, sizeof(g));
  for (int c = 0; c < channels; ++c) {
    const float v0 = Value(x[0][c]), v1 = Value(x[1][c]);
    const float v2 = Value(x[2][c]), v3 = Value(x[3][c]);
    const bool first = (v0 >= v1) & (v0 >= v2) & (v0 >= v3);
    const bool second = !first & (v1 >= v0) & (v1 >= v2) & (v1 >= v3);
    const bool third = !first & !second & (v2 >= v0) & (v2 >= v1) & (v2 >= v3);
    y[0][c] = first ? g[c] : Number{0};
    y[1][c] = second ? g[c] : Number{0};
    y[2][c] = third ? g[c] : Number{0};
    y[3][c] = first | second | third ? Number{0} : g[c];
  }
  for (int i = 0; i < 4; ++i) std::memcpy(found[i] + start, y[i], sizeof(y[i]));
}

// Rows of windows [rows, width / 2, channels] of images [.., height, width, channels].
template <typename Number>
inline __attribute__((always_inline)) void Rows(const Number* images,
                                                const Number* gradient, Number* found,
                                                int64_t height, int64_t width,
                                                int64_t channels, int64_t first,
                                                int64_t end) {
  const int64_t line = width * channels, down = height / 2, across = width / 2;
  for (int64_t row = first; row < end; ++row) {
    const int64_t start = (row / down * height + row % down * 2) * line;
    for (int64_t i = 0; i < across; ++i) {
      const int64_t at = start + 2 * i * channels;
      const Number* const pixels[4] = {images + at, images + at + channels,
                                       images + at + line, images + at + line + channels};
      Number* const to[4] = {found + at, found + at + channels, found + at + line,
                             found + at + line + channels};
      const Number* own = gradient + (row * across + i) * channels;
      int64_t c = 0;
      for (; c + 32 <= channels; c += 32) Window<32>(pixels, to, own, c);
      for (; c + 8 <= channels; c += 8) Window<8>(pixels, to, own, c);
      for (; c < channels; ++c) Window<1>(pixels, to, own, c);
    }
    // What no window covers.
    for (int64_t i = 0; i < 2 && width % 2; ++i)
      std::fill_n(found + start + (i + 1) * line - channels, channels, Number{0});
    if (height % 2 && row % down == down - 1)
      std::fill_n(found + start + 2 * line, line, Number{0});
  }
}

JAXVISION_EVERY_PROCESSOR void RowsFloat32(const float* images, const float* gradient,
                                           float* found, int64_t height, int64_t width,
                                           int64_t channels, int64_t first, int64_t end) {
  Rows(images, gradient, found, height, width, channels, first, end);
}

JAXVISION_EVERY_PROCESSOR void RowsBfloat16(const Bfloat16* images,
                                            const Bfloat16* gradient, Bfloat16* found,
                                            int64_t height, int64_t width,
                                            int64_t channels, int64_t first,
                                            int64_t end) {
  Rows(images, gradient, found, height, width, channels, first, end);
}

ffi::Error MaxPoolGradientCall(ffi::ThreadPool pool, ffi::AnyBuffer images,
                               ffi::AnyBuffer gradient,
                               ffi::Result<ffi::AnyBuffer> found) {
  const auto d = images.dimensions();
  const size_t last = d.size() - 1;
  const int64_t height = d[last - 2], width = d[last - 1], channels = d[last];
  int64_t rows = height / 2;
  for (size_t i = 0; i + 2 < last; ++i) rows *= d[i];
  constexpr int64_t kSome = 16;
  jaxvision::Parallel(pool, (rows + kSome - 1) / kSome, [&](int64_t task) {
    const int64_t first = task * kSome, end = std::min(rows, first + kSome);
    if (images.element_type() == ffi::DataType::F32)
      RowsFloat32(static_cast<const float*>(images.untyped_data()),
                  static_cast<const float*>(gradient.untyped_data()),
                  static_cast<float*>(found->untyped_data()), height, width, channels,
                  first, end);
    else
      RowsBfloat16(static_cast<const Bfloat16*>(images.untyped_data()),
                   static_cast<const Bfloat16*>(gradient.untyped_data()),
                   static_cast<Bfloat16*>(found->untyped_data()), height, width, channels,
                   first, end);
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(MaxPoolGradient, MaxPoolGradientCall,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>());
