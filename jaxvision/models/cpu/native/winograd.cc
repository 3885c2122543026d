// 3x3 convolutions in bfloat16 with fewer products, for processors with AVX512-BF16.
//
// oneDNN's direct convolution does nine tenths of the products that such a processor can
// do. Winograd's F(2x2, 3x3) does 2.25 times fewer: a tile of 4x4 pixels is transformed,
// multiplied with the transformed kernel at each of 16 positions, which is a product of
// matrices over the channels, and transformed back to 2x2 pixels of the result. Lavin and
// Gray 2015, "Fast algorithms for convolutional neural networks",
// https://arxiv.org/abs/1509.09308, section 4.1. Stride 1, one pixel of padding on each
// side, images NHWC, kernels HWIO, channels in multiples of 16.
//
// Transforms and sums are float32; what is multiplied is rounded to bfloat16 once more,
// as are the results. Tiles are taken in blocks that stay in the second-level cache.

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <mutex>

#include "handlers.h"
#include "room.h"
#include "xla/ffi/api/ffi.h"

// Of this file alone: the rest of the library runs on older processors too.
#define JAXVISION_AVX512 \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))
#define JAXVISION_INLINE JAXVISION_AVX512 inline __attribute__((always_inline))

namespace {

namespace ffi = ::xla::ffi;
using jaxvision::Blocks;
using jaxvision::Guarded;
using jaxvision::Parallel;
using jaxvision::Room;

using Number = uint16_t;  // bfloat16
using Pair = uint32_t;    // two of them, neighbours along a sum

constexpr int kLanes = 16;       // float32 numbers in a register
constexpr int kPositions = 16;   // of a tile of 4x4
constexpr int kRows = 12;        // of a block of a product whose sums stay in registers
constexpr int kColumns = 32;     // of that block
constexpr int64_t kMostTiles = 96;                // of a block
constexpr int64_t kBlockBytes = 640 << 10;        // of its transformed images
constexpr int64_t kChunkBytes = int64_t{8} << 20;  // of a gradient's transformed tiles

JAXVISION_INLINE __m512 Load(const Number* from) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

JAXVISION_INLINE __m256i Round(__m512 values) {
  return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(values));
}

JAXVISION_INLINE void Store(Number* to, __m512 values) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), Round(values));
}

// Stores pairs of the numbers of two registers.
JAXVISION_INLINE void StorePairs(Pair* to, __m512 first, __m512 second) {
  const __m512i low = _mm512_cvtepu16_epi32(Round(first));
  const __m512i high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(Round(second)), 16);
  _mm512_storeu_si512(to, _mm512_or_si512(low, high));
}

// The transforms along one side: of images (B^T), of the gradient of results (A), of
// results (A^T), of kernels (G) and of their gradient (G^T).

JAXVISION_INLINE void ImageSide(const __m512 (&d)[4], __m512 (&to)[4]) {
  to[0] = _mm512_sub_ps(d[0], d[2]);
  to[1] = _mm512_add_ps(d[1], d[2]);
  to[2] = _mm512_sub_ps(d[2], d[1]);
  to[3] = _mm512_sub_ps(d[1], d[3]);
}

JAXVISION_INLINE void GradientSide(const __m512 (&y)[2], __m512 (&to)[4]) {
  to[0] = y[0];
  to[1] = _mm512_add_ps(y[0], y[1]);
  to[2] = _mm512_sub_ps(y[0], y[1]);
  to[3] = _mm512_sub_ps(_mm512_setzero_ps(), y[1]);
}

JAXVISION_INLINE void ResultSide(const __m512 (&m)[4], __m512 (&to)[2]) {
  to[0] = _mm512_add_ps(m[0], _mm512_add_ps(m[1], m[2]));
  to[1] = _mm512_sub_ps(_mm512_sub_ps(m[1], m[2]), m[3]);
}

JAXVISION_INLINE void KernelSide(const __m512 (&g)[3], __m512 (&to)[4]) {
  const __m512 half = _mm512_set1_ps(0.5f);
  const __m512 outer = _mm512_mul_ps(half, _mm512_add_ps(g[0], g[2]));
  const __m512 inner = _mm512_mul_ps(half, g[1]);
  to[0] = g[0];
  to[1] = _mm512_add_ps(outer, inner);
  to[2] = _mm512_sub_ps(outer, inner);
  to[3] = g[2];
}

JAXVISION_INLINE void KernelGradientSide(const __m512 (&s)[4], __m512 (&to)[3]) {
  const __m512 half = _mm512_set1_ps(0.5f);
  const __m512 sum = _mm512_mul_ps(half, _mm512_add_ps(s[1], s[2]));
  to[0] = _mm512_add_ps(s[0], sum);
  to[1] = _mm512_mul_ps(half, _mm512_sub_ps(s[1], s[2]));
  to[2] = _mm512_add_ps(sum, s[3]);
}

// Applies a transform along both sides of a square.
template <int from, int to, typename Side>
JAXVISION_INLINE void Both(Side side, const __m512 (&square)[from][from],
                           __m512 (&found)[to][to]) {
  __m512 half[to][from];
#pragma GCC unroll 4
  for (int j = 0; j < from; ++j) {
    __m512 column[from], done[to];
#pragma GCC unroll 4
    for (int i = 0; i < from; ++i) column[i] = square[i][j];
    side(column, done);
#pragma GCC unroll 4
    for (int i = 0; i < to; ++i) half[i][j] = done[i];
  }
#pragma GCC unroll 4
  for (int i = 0; i < to; ++i) side(half[i], found[i]);
}

// Images, or results, [batch, height, width, channels], as tiles.
struct Tiles {
  Number* start;
  int64_t batch, height, width, channels;
  Number* zeros;  // of all channels, for what lies outside

  int64_t down() const { return Blocks(height, 2); }
  int64_t across() const { return Blocks(width, 2); }
  int64_t count() const { return batch * down() * across(); }

  // Finds the pixels of a tile: those of its 2x2 results, with `border` around them.
  template <int size>
  void Find(int64_t tile, int border, Number* (&pixels)[size][size]) const {
    const int64_t image = tile / (down() * across());
    const int64_t top = tile / across() % down() * 2 - border;
    const int64_t left = tile % across() * 2 - border;
    for (int i = 0; i < size; ++i) {
      for (int j = 0; j < size; ++j) {
        const int64_t y = top + i, x = left + j;
        const bool inside = tile < count() && y >= 0 && y < height && x >= 0 && x < width;
        pixels[i][j] =
            inside ? start + ((image * height + y) * width + x) * channels : zeros;
      }
    }
  }
};

template <int size>
JAXVISION_INLINE void LoadTile(Number* const (&pixels)[size][size], int64_t channel,
                               __m512 (&to)[size][size]) {
#pragma GCC unroll 4
  for (int i = 0; i < size; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < size; ++j) to[i][j] = Load(pixels[i][j] + channel);
  }
}

// Adds a product of matrices to sums of [rows, columns * 16], or begins them.
//
// The steps are those between neighbours along an axis, `pairs` the length of the sum.
struct Product {
  const Pair* a;
  int64_t a_row, a_pair;
  const Pair* b;
  int64_t b_pair, pairs;
  float* sums;
  int64_t sums_row;
  bool adds;
};

template <int rows, int columns>
JAXVISION_AVX512 void MultiplyBlock(const Product& product) {
  const auto [a, a_row, a_pair, b, b_pair, pairs, sums, sums_row, adds] = product;
  __m512 found[rows][columns];
#pragma GCC unroll 12
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 2
    for (int c = 0; c < columns; ++c)
      found[r][c] = adds ? _mm512_loadu_ps(sums + r * sums_row + c * kLanes)
                         : _mm512_setzero_ps();
  }
  for (int64_t k = 0; k < pairs; ++k) {
    __m512bh right[columns];
#pragma GCC unroll 2
    for (int c = 0; c < columns; ++c)
      right[c] = reinterpret_cast<__m512bh>(
          _mm512_loadu_si512(b + k * b_pair + c * kLanes));
#pragma GCC unroll 12
    for (int r = 0; r < rows; ++r) {
      const __m512bh left =
          reinterpret_cast<__m512bh>(_mm512_set1_epi32(a[r * a_row + k * a_pair]));
#pragma GCC unroll 2
      for (int c = 0; c < columns; ++c)
        found[r][c] = _mm512_dpbf16_ps(found[r][c], left, right[c]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 2
    for (int c = 0; c < columns; ++c)
      _mm512_storeu_ps(sums + r * sums_row + c * kLanes, found[r][c]);
  }
}

template <int rows>
void MultiplyRows(const Product& product, int columns) {
  columns == 1 ? MultiplyBlock<rows, 1>(product) : MultiplyBlock<rows, 2>(product);
}

// Multiplies any number of rows; `columns` are registers, 1 or 2.
void Multiply(Product product, int64_t rows, int columns) {
  for (; rows >= kRows; rows -= kRows) {
    MultiplyRows<kRows>(product, columns);
    product.a += kRows * product.a_row;
    product.sums += kRows * product.sums_row;
  }
  if (rows & 8) {
    MultiplyRows<8>(product, columns);
    product.a += 8 * product.a_row;
    product.sums += 8 * product.sums_row;
  }
  if (rows & 4) {
    MultiplyRows<4>(product, columns);
    product.a += 4 * product.a_row;
    product.sums += 4 * product.sums_row;
  }
  for (rows &= 3; rows > 0; --rows) {
    MultiplyRows<1>(product, columns);
    product.a += product.a_row;
    product.sums += product.sums_row;
  }
}

// A block of columns of a product: where it begins, and its registers.
struct Columns {
  int64_t first;
  int registers;
};

Columns ColumnsOf(int64_t block, int64_t count) {
  const int64_t first = block * kColumns;
  return {first, count - first < kColumns ? 1 : 2};
}

// What all calls share. One works at a time, on all cores.
struct Common {
  std::mutex mutex;
  Room kernel, images, gradient, sums, zeros;

  Number* Zeros(int64_t channels) {
    const size_t bytes = channels * sizeof(Number);
    void* found = zeros.AtLeast(bytes);
    std::fill_n(static_cast<char*>(found), bytes, 0);
    return static_cast<Number*>(found);
  }
};

Common& Shared() {
  static auto* common = new Common;
  return *common;
}

// Transforms a block of 16 inputs by 16 outputs of a kernel [3, 3, in, out].
//
// `turned`: for the gradient by the images, which convolves with the kernel turned by half
// a turn, and its outputs as inputs.
JAXVISION_AVX512 void TransformKernel(const Number* kernel, int64_t in, int64_t out,
                                      bool turned, int64_t input, int64_t output,
                                      Pair* to, int64_t pair_step,
                                      int64_t position_step) {
  alignas(64) float taps[3][3][kLanes][kLanes];  // [.., input, output]
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) {
      for (int n = 0; n < kLanes; ++n) {
        if (!turned) {
          const int64_t row = (i * 3 + j) * in + input + n;
          _mm512_store_ps(taps[i][j][n], Load(kernel + row * out + output));
          continue;
        }
        alignas(64) float line[kLanes];
        const int64_t row = ((2 - i) * 3 + 2 - j) * in + output + n;
        _mm512_store_ps(line, Load(kernel + row * out + input));
        for (int m = 0; m < kLanes; ++m) taps[i][j][m][n] = line[m];
      }
    }
  }
  for (int n = 0; n < kLanes; n += 2) {
    __m512 found[2][4][4];
    for (int one = 0; one < 2; ++one) {
      __m512 square[3][3];
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) {
#pragma GCC unroll 3
        for (int j = 0; j < 3; ++j) square[i][j] = _mm512_load_ps(taps[i][j][n + one]);
      }
      Both<3, 4>(KernelSide, square, found[one]);
    }
    for (int p = 0; p < kPositions; ++p)
      StorePairs(to + n / 2 * pair_step + p * position_step, found[0][p / 4][p % 4],
                 found[1][p / 4][p % 4]);
  }
}

JAXVISION_AVX512 void TransformImages(const Tiles& images, int64_t first, int64_t count,
                                      Number* to) {
  for (int64_t t = 0; t < count; ++t) {
    Number* pixels[4][4];
    images.Find(first + t, 1, pixels);
    for (int64_t c = 0; c < images.channels; c += kLanes) {
      __m512 square[4][4], found[4][4];
      LoadTile(pixels, c, square);
      Both<4, 4>(ImageSide, square, found);
#pragma GCC unroll 16
      for (int p = 0; p < kPositions; ++p)
        Store(to + (p * count + t) * images.channels + c, found[p / 4][p % 4]);
    }
  }
}

// Transforms tiles as pairs of neighbours, the sum of a gradient by the kernel being over
// tiles: to [16, pairs, channels].
template <int size, int border, typename Side>
JAXVISION_INLINE void TransformPairs(const Tiles& tiles, Side side, int64_t first_tile,
                                     int64_t pair, int64_t pairs, Pair* to) {
  Number* pixels[2][size][size];
  for (int one = 0; one < 2; ++one)
    tiles.Find(first_tile + 2 * pair + one, border, pixels[one]);
  for (int64_t c = 0; c < tiles.channels; c += kLanes) {
    __m512 square[size][size], found[2][4][4];
    for (int one = 0; one < 2; ++one) {
      LoadTile(pixels[one], c, square);
      Both<size, 4>(side, square, found[one]);
    }
    for (int p = 0; p < kPositions; ++p)
      StorePairs(to + (p * pairs + pair) * tiles.channels + c, found[0][p / 4][p % 4],
                 found[1][p / 4][p % 4]);
  }
}

JAXVISION_AVX512 void TransformImagePairs(const Tiles& images, int64_t first_tile,
                                          int64_t pair, int64_t pairs, Pair* to) {
  TransformPairs<4, 1>(images, ImageSide, first_tile, pair, pairs, to);
}

JAXVISION_AVX512 void TransformGradientPairs(const Tiles& results, int64_t first_tile,
                                             int64_t pair, int64_t pairs, Pair* to) {
  TransformPairs<2, 0>(results, GradientSide, first_tile, pair, pairs, to);
}

// Transforms sums [16, count, 32] back to the results of so many tiles.
JAXVISION_AVX512 void TransformBack(const Tiles& results, const float* sums,
                                    int64_t first, int64_t count, Columns columns) {
  for (int64_t t = 0; t < count; ++t) {
    Number* pixels[2][2];
    results.Find(first + t, 0, pixels);
    for (int r = 0; r < columns.registers; ++r) {
      __m512 square[4][4], found[2][2];
#pragma GCC unroll 16
      for (int p = 0; p < kPositions; ++p)
        square[p / 4][p % 4] =
            _mm512_loadu_ps(sums + (p * count + t) * kColumns + r * kLanes);
      Both<4, 2>(ResultSide, square, found);
      for (int i = 0; i < 2; ++i) {
        for (int j = 0; j < 2; ++j) {
          if (pixels[i][j] != results.zeros)
            Store(pixels[i][j] + columns.first + r * kLanes,
                  found[i][j]);
        }
      }
    }
  }
}

// Transforms sums [16, in, out] back to a row [3, 3, input, out] of a kernel's gradient.
JAXVISION_AVX512 void TransformKernelBack(const float* sums, int64_t in, int64_t out,
                                          int64_t input, Number* kernel) {
  for (int64_t f = 0; f < out; f += kLanes) {
    __m512 square[4][4], found[3][3];
#pragma GCC unroll 16
    for (int p = 0; p < kPositions; ++p)
      square[p / 4][p % 4] = _mm512_loadu_ps(sums + (p * in + input) * out + f);
    Both<4, 3>(KernelGradientSide, square, found);
    for (int tap = 0; tap < 9; ++tap)
      Store(kernel + (tap * in + input) * out + f, found[tap / 3][tap % 3]);
  }
}

Tiles TilesOf(const ffi::AnyBuffer& array, Number* zeros) {
  const auto d = array.dimensions();
  return {static_cast<Number*>(array.untyped_data()), d[0], d[1], d[2], d[3], zeros};
}

// Convolves images to results. The kernel is that of the convolution, also where `turned`.
void Convolve(ffi::ThreadPool& pool, ffi::AnyBuffer images, ffi::AnyBuffer kernel,
              ffi::AnyBuffer results, bool turned) {
  const int64_t in = images.dimensions()[3], out = results.dimensions()[3];
  const auto* weights = static_cast<const Number*>(kernel.untyped_data());
  const int64_t kernel_in = turned ? out : in, kernel_out = turned ? in : out;
  const int64_t pairs = in / 2, blocks = Blocks(out, kColumns);

  std::lock_guard<std::mutex> lock(Shared().mutex);
  // [block of columns, position, pair of inputs, columns]
  auto* transformed =
      static_cast<Pair*>(Shared().kernel.AtLeast(kPositions * pairs * out * sizeof(Pair)));
  const int64_t across = out / kLanes;
  Parallel(pool, in / kLanes * across, [&](int64_t task) {
    const int64_t input = task / across * kLanes, output = task % across * kLanes;
    const Columns columns = ColumnsOf(output / kColumns, out);
    const int64_t width = columns.registers * kLanes;
    Pair* to = transformed + columns.first * kPositions * pairs + input / 2 * width +
               output - columns.first;
    TransformKernel(weights, kernel_in, kernel_out, turned, input, output, to, width,
                    pairs * width);
  });

  Number* zeros = Shared().Zeros(std::max(in, out));
  const Tiles from = TilesOf(images, zeros), to = TilesOf(results, zeros);
  const int64_t fit = kBlockBytes / (kPositions * in * int64_t{sizeof(Number)});
  const int64_t whole = std::max<int64_t>(1, std::min(fit, kMostTiles) / kRows) * kRows;
  // No more than shares the tiles evenly among the threads.
  const int64_t each = Blocks(from.count(), std::max<int64_t>(1, pool.num_threads()));
  const int64_t size = std::min(whole, Blocks(each, kRows) * kRows);
  Parallel(pool, Blocks(from.count(), size), [&](int64_t task) {
    thread_local Room images_room, sums_room;
    const int64_t first = task * size, count = std::min(size, from.count() - first);
    auto* tiles = static_cast<Number*>(
        images_room.AtLeast(kPositions * count * in * sizeof(Number)));
    auto* sums = static_cast<float*>(
        sums_room.AtLeast(kPositions * count * kColumns * sizeof(float)));
    TransformImages(from, first, count, tiles);
    for (int64_t block = 0; block < blocks; ++block) {
      const Columns columns = ColumnsOf(block, out);
      const int64_t width = columns.registers * kLanes;
      const Pair* right = transformed + columns.first * kPositions * pairs;
      for (int64_t p = 0; p < kPositions; ++p) {
        const auto* left = reinterpret_cast<const Pair*>(tiles + p * count * in);
        Multiply({left, pairs, 1, right + p * pairs * width, width, pairs,
                  sums + p * count * kColumns, kColumns, false},
                 count, columns.registers);
      }
      TransformBack(to, sums, first, count, columns);
    }
  });
}

template <bool turned>
ffi::Error ConvolveCall(ffi::ThreadPool pool, ffi::AnyBuffer images, ffi::AnyBuffer kernel,
                        ffi::Result<ffi::AnyBuffer> result) {
  return Guarded("Winograd", [&] { Convolve(pool, images, kernel, *result, turned); });
}

constexpr auto ForwardCall = ConvolveCall<false>;
constexpr auto ImagesCall = ConvolveCall<true>;

// Finds the gradient by the kernel.
void ConvolveToKernel(ffi::ThreadPool& pool, ffi::AnyBuffer images, ffi::AnyBuffer result,
                      ffi::AnyBuffer kernel) {
  const int64_t in = images.dimensions()[3], out = result.dimensions()[3];
  std::lock_guard<std::mutex> lock(Shared().mutex);
  Number* zeros = Shared().Zeros(std::max(in, out));
  const Tiles from = TilesOf(images, zeros), to = TilesOf(result, zeros);

  // The tiles are taken in chunks that stay in the last-level cache.
  const int64_t all = Blocks(from.count(), 2);
  const int64_t fit =
      kChunkBytes / (kPositions * (in + out) * static_cast<int64_t>(sizeof(Pair)));
  const int64_t pairs = std::min(all, std::max<int64_t>(16, fit));
  auto* left = static_cast<Pair*>(
      Shared().images.AtLeast(kPositions * pairs * in * sizeof(Pair)));
  auto* right = static_cast<Pair*>(
      Shared().gradient.AtLeast(kPositions * pairs * out * sizeof(Pair)));
  auto* sums = static_cast<float*>(
      Shared().sums.AtLeast(kPositions * in * out * sizeof(float)));
  constexpr int64_t kSome = 8, kStrip = 4 * kRows;  // of work for a thread at a time
  const int64_t strips = Blocks(in, kStrip);
  for (int64_t first = 0; first < all; first += pairs) {
    const int64_t count = std::min(pairs, all - first);
    Parallel(pool, Blocks(count, kSome), [&](int64_t task) {
      const int64_t end = std::min(count, (task + 1) * kSome);
      for (int64_t pair = task * kSome; pair < end; ++pair) {
        TransformImagePairs(from, 2 * first, pair, count, left);
        TransformGradientPairs(to, 2 * first, pair, count, right);
      }
    });
    Parallel(pool, kPositions * strips, [&](int64_t task) {
      const int64_t p = task / strips, row = task % strips * kStrip;
      for (int64_t block = 0; block < Blocks(out, kColumns); ++block) {
        const Columns columns = ColumnsOf(block, out);
        Multiply({left + p * count * in + row, 1, in,
                  right + p * count * out + columns.first, out, count,
                  sums + (p * in + row) * out + columns.first, out, first > 0},
                 std::min(kStrip, in - row), columns.registers);
      }
    });
  }
  auto* found = static_cast<Number*>(kernel.untyped_data());
  Parallel(pool, in,
           [&](int64_t input) { TransformKernelBack(sums, in, out, input, found); });
}

ffi::Error KernelCall(ffi::ThreadPool pool, ffi::AnyBuffer images, ffi::AnyBuffer result,
                      ffi::Result<ffi::AnyBuffer> kernel) {
  return Guarded("Winograd", [&] { ConvolveToKernel(pool, images, result, *kernel); });
}

}  // namespace

#define JAXVISION_HANDLER(name)                                    \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(Winograd##name, name##Call,        \
                                ffi::Ffi::Bind()                   \
                                    .Ctx<ffi::ThreadPool>()        \
                                    .Arg<ffi::AnyBuffer>()         \
                                    .Arg<ffi::AnyBuffer>()         \
                                    .Ret<ffi::AnyBuffer>())

JAXVISION_HANDLER(Forward);
JAXVISION_HANDLER(Images);
JAXVISION_HANDLER(Kernel);
