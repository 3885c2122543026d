// Gradients that go over memory once, in float32 and bfloat16: that of the maximum of windows
// of 2x2 pixels, and that of a bias, which is a sum over all pixels.
//
// XLA:CPU goes over memory several times, or picks numbers out of it one by one.

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "handlers.h"
#include "room.h"
#include "xla/ffi/api/ffi.h"

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

// Adds rows [count, channels] to sums float32 [channels].
template <typename Number>
inline __attribute__((always_inline)) void Add(const Number* rows, int64_t count,
                                               int64_t channels, float* sums) {
  for (int64_t row = 0; row < count; ++row, rows += channels) {
    int64_t c = 0;
    for (; c + 16 <= channels; c += 16) {
      Number x[16];
      std::memcpy(x, rows + c, sizeof(x));
      for (int i = 0; i < 16; ++i) sums[c + i] += Value(x[i]);
    }
    for (; c < channels; ++c) sums[c] += Value(rows[c]);
  }
}

// Both, compiled for processors with these instructions and for all others.
#define JAXVISION_VARIANT(variant, ...)                                                  \
  struct variant {                                                                       \
    template <typename Number>                                                           \
    __attribute__((optimize("O3"), ##__VA_ARGS__)) static void Route(                    \
        const Number* images, const Number* gradient, Number* found, int64_t height,     \
        int64_t width, int64_t channels, int64_t first, int64_t end) {                   \
      Rows(images, gradient, found, height, width, channels, first, end);                \
    }                                                                                    \
    template <typename Number>                                                           \
    __attribute__((optimize("O3"), ##__VA_ARGS__)) static void Sum(                      \
        const Number* rows, int64_t count, int64_t channels, float* sums) {              \
      Add(rows, count, channels, sums);                                                  \
    }                                                                                    \
  };

JAXVISION_VARIANT(Avx512, target("avx512f,avx512bw,avx512dq,avx512vl"))
JAXVISION_VARIANT(Avx2, target("avx2"))
JAXVISION_VARIANT(Plain)

// Calls a function with the variant for this processor.
template <typename Function>
void WithVariant(const Function& function) {
  if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
    function(Avx512());
  else if (__builtin_cpu_supports("avx2"))
    function(Avx2());
  else
    function(Plain());
}

// Calls a function with a number of the type of an array.
template <typename Function>
void WithType(const ffi::AnyBuffer& array, const Function& function) {
  if (array.element_type() == ffi::DataType::F32)
    function(float());
  else
    function(Bfloat16());
}

template <typename Number>
void Route(ffi::ThreadPool& pool, ffi::AnyBuffer images, ffi::AnyBuffer gradient,
           ffi::AnyBuffer found) {
  const auto d = images.dimensions();
  const size_t last = d.size() - 1;
  const int64_t height = d[last - 2], width = d[last - 1], channels = d[last];
  int64_t rows = height / 2;
  for (size_t i = 0; i + 2 < last; ++i) rows *= d[i];
  const auto* from = static_cast<const Number*>(images.untyped_data());
  const auto* given = static_cast<const Number*>(gradient.untyped_data());
  auto* to = static_cast<Number*>(found.untyped_data());
  constexpr int64_t kSome = 16;
  WithVariant([&](auto variant) {
    jaxvision::Parallel(pool, jaxvision::Blocks(rows, kSome), [&](int64_t task) {
      const int64_t first = task * kSome, end = std::min(rows, first + kSome);
      variant.Route(from, given, to, height, width, channels, first, end);
    });
  });
}

ffi::Error MaxPoolGradientCall(ffi::ThreadPool pool, ffi::AnyBuffer images,
                               ffi::AnyBuffer gradient,
                               ffi::Result<ffi::AnyBuffer> found) {
  return jaxvision::Guarded("max pooling", [&] {
    WithType(images, [&](auto number) {
      Route<decltype(number)>(pool, images, gradient, *found);
    });
  });
}

// Sums [rows, channels] over the rows. Parts of them are summed by themselves, in a size
// that no number of threads changes, and then added in their order.
template <typename Number>
void SumRows(ffi::ThreadPool& pool, ffi::AnyBuffer array, float* sums) {
  const int64_t rows = array.dimensions()[0], channels = array.dimensions()[1];
  const auto* start = static_cast<const Number*>(array.untyped_data());
  // Several rows are one longer one, which fills registers.
  const int64_t fold = std::max<int64_t>(1, 64 / channels), width = fold * channels;
  constexpr int64_t kPart = 1 << 16;  // numbers
  const int64_t each = std::max<int64_t>(1, kPart / width), whole = rows / fold;
  const int64_t parts = std::max<int64_t>(1, jaxvision::Blocks(whole, each));
  thread_local jaxvision::Room room;  // of this thread, which waits for the others
  auto* partial = static_cast<float*>(room.AtLeast(parts * width * sizeof(float)));
  WithVariant([&](auto variant) {
    jaxvision::Parallel(pool, parts, [&](int64_t part) {
      float* own = partial + part * width;
      std::fill_n(own, width, 0.0f);
      const int64_t first = part * each, count = std::min(each, whole - first);
      variant.Sum(start + first * width, count, width, own);
    });
    std::fill_n(sums, channels, 0.0f);
    for (int64_t i = 0; i < parts * width; ++i) sums[i % channels] += partial[i];
    variant.Sum(start + whole * width, rows - whole * fold, channels, sums);
  });
}

ffi::Error SumCall(ffi::ThreadPool pool, ffi::AnyBuffer array,
                   ffi::Result<ffi::AnyBuffer> found) {
  return jaxvision::Guarded("sum", [&] {
    WithType(array, [&](auto number) {
      auto* sums = static_cast<float*>(found->untyped_data());
      SumRows<decltype(number)>(pool, array, sums);
    });
  });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(Sum, SumCall,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(MaxPoolGradient, MaxPoolGradientCall,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>());
