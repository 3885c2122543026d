// Convolutions and batch norms of oneDNN as custom calls of XLA:CPU, in float32 and bfloat16.
//
// Three handlers of convolutions take two arrays and return one: Forward (images, kernel ->
// result), Images (gradient by the result, kernel -> gradient by the images) and Kernel
// (images, gradient by the result -> gradient by the kernel). Images are NHWC and kernels
// HWIO, as XLA has them; oneDNN reorders kernels, which are small, into blocks.
//
// Normalize and NormalizeGradient are a batch norm by the statistics of its batch.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <map>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "handlers.h"
#include "oneapi/dnnl/dnnl.hpp"
#include "room.h"
#include "xla/ffi/api/ffi.h"

// Of libgomp, which oneDNN is linked to.
extern "C" {
int omp_get_max_threads();
void omp_set_num_threads(int count);
}

namespace {

namespace ffi = ::xla::ffi;
using dnnl::memory;
using jaxvision::Room;
using Integers = ffi::Span<const int64_t>;

enum class Kind { kForward, kImages, kKernel };

const dnnl::engine& Engine() {
  // Never destroyed: XLA's threads may outlive static objects.
  static const auto* engine = new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return *engine;
}

// The scratchpad of what is made with them is given by the caller.
dnnl::primitive_attr Attributes() {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attributes;
}

// What calls share that take all cores. One works at a time: two would wait for each
// other's.
struct Common {
  std::mutex mutex;
  Room kernel, scratchpad;
};

Common& Shared() {
  static auto* common = new Common;
  return *common;
}

// Within it, what oneDNN makes or runs in this thread is for this thread alone.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }

 private:
  int before_;
};

// What is made once for arrays of the same types and shapes.
struct Convolution {
  dnnl::primitive primitive;
  memory::desc images, kernel, result;  // as XLA has them
  memory::desc own_kernel;              // as oneDNN wants it
  memory::desc scratchpad;
  dnnl::reorder reorder;  // of the kernel, to or from oneDNN's; empty where they agree
};

memory::data_type Type(const ffi::AnyBuffer& array) {
  return array.element_type() == ffi::DataType::BF16 ? memory::data_type::bf16
                                                     : memory::data_type::f32;
}

// oneDNN names dimensions in the order N, C, H, W wherever they lie.
memory::desc ImagesDesc(const ffi::AnyBuffer& array, int64_t count) {
  const auto d = array.dimensions();
  return {{count, d[3], d[1], d[2]}, Type(array), memory::format_tag::nhwc};
}

memory::desc KernelDesc(const ffi::AnyBuffer& array, int64_t groups) {
  const auto d = array.dimensions();
  const int64_t height = d[0], width = d[1], in = d[2], out = d[3];
  if (groups == 1)
    return {{out, in, height, width}, Type(array), {1, out, width * in * out, in * out}};
  // The outputs of the groups lie side by side.
  return {{groups, out / groups, in, height, width},
          Type(array),
          {out / groups, 1, out, width * in * out, in * out}};
}

// What shapes alone do not say about a convolution.
struct Geometry {
  Integers strides, dilation, low, high;
  int64_t groups;
};

// `partial`: the gradient by the kernel is float32, to be added to others.
Convolution Make(Kind kind, const memory::desc& images, const memory::desc& kernel,
                 const memory::desc& result, const Geometry& geometry, bool partial) {
  const auto& engine = Engine();
  const auto& [strides, dilation, low, high, groups] = geometry;
  const auto of_kernel = [&](memory::data_type type) {
    return memory::desc(kernel.get_dims(), type, memory::format_tag::any);
  };
  const memory::desc any = of_kernel(kernel.get_data_type());
  const memory::desc gradient_of_kernel =
      partial ? of_kernel(memory::data_type::f32) : any;
  const auto direct = dnnl::algorithm::convolution_direct;
  const auto dims = [](Integers values, int64_t minus = 0) {
    memory::dims found;
    for (int64_t value : values) found.push_back(value - minus);
    return found;
  };
  const memory::dims step = dims(strides), holes = dims(dilation, 1), begin = dims(low),
                     end = dims(high);
  const dnnl::primitive_attr attributes = Attributes();
  Convolution made{{}, images, kernel, result, {}, {}, {}};
  const dnnl::convolution_forward::primitive_desc forward(
      engine, dnnl::prop_kind::forward_training, direct, images, any, result, step, holes,
      begin, end, attributes);
  const auto keep = [&](dnnl::primitive primitive, memory::desc own, memory::desc pad) {
    made.primitive = primitive;
    made.own_kernel = own;
    made.scratchpad = pad;
  };
  // oneDNN's descriptions of both gradients take the same arguments.
  const auto gradient = [&](auto operation, const memory::desc& kernel) {
    return typename decltype(operation)::primitive_desc(
        engine, direct, images, kernel, result, step, holes, begin, end, forward,
        attributes);
  };
  if (kind == Kind::kForward) {
    keep(dnnl::convolution_forward(forward), forward.weights_desc(),
         forward.scratchpad_desc());
  } else if (kind == Kind::kImages) {
    const auto desc = gradient(dnnl::convolution_backward_data(), any);
    keep(dnnl::convolution_backward_data(desc), desc.weights_desc(),
         desc.scratchpad_desc());
  } else {
    const auto desc = gradient(dnnl::convolution_backward_weights(), gradient_of_kernel);
    keep(dnnl::convolution_backward_weights(desc), desc.diff_weights_desc(),
         desc.scratchpad_desc());
  }
  if (made.own_kernel != kernel) {
    const bool is_result = kind == Kind::kKernel;
    made.reorder = dnnl::reorder({engine, is_result ? made.own_kernel : kernel, engine,
                                  is_result ? kernel : made.own_kernel});
  }
  return made;
}

// A convolution whose arrays are known.
struct Call {
  Kind kind;
  Geometry geometry;
  ffi::AnyBuffer images, kernel, result;

  int64_t batch() const { return images.dimensions()[0]; }

  // Returns what is made for so many images, `partial` for one thread of several.
  const Convolution& For(int64_t count, bool partial) const {
    std::vector<int64_t> key{static_cast<int64_t>(kind), count, partial, geometry.groups};
    for (const auto& array : {images, kernel, result}) {
      key.push_back(static_cast<int64_t>(array.element_type()));
      const auto dims = array.dimensions();
      key.insert(key.end(), dims.begin() + 1, dims.end());
    }
    key.push_back(kernel.dimensions()[0]);
    for (const auto& values :
         {geometry.strides, geometry.dilation, geometry.low, geometry.high})
      key.insert(key.end(), values.begin(), values.end());

    static auto* mutex = new std::mutex;
    static auto* made = new std::map<std::vector<int64_t>, Convolution>;
    std::lock_guard<std::mutex> lock(*mutex);
    auto found = made->find(key);
    if (found == made->end()) {
      found = made->emplace(key, Make(kind, ImagesDesc(images, count),
                                      KernelDesc(kernel, geometry.groups),
                                      ImagesDesc(result, count), geometry, partial))
                  .first;
    }
    return found->second;
  }

  // Runs it on `count` images from the `first` on, with a kernel as oneDNN wants it.
  void Run(const Convolution& own, int64_t first, void* own_kernel,
           void* scratchpad) const {
    const auto& engine = Engine();
    const auto from = [&](const ffi::AnyBuffer& array) {
      const int64_t bytes = array.size_bytes() / array.dimensions()[0];
      return static_cast<char*>(array.untyped_data()) + first * bytes;
    };
    const bool by_images = kind == Kind::kImages, by_kernel = kind == Kind::kKernel;
    dnnl::stream stream(engine);
    own.primitive.execute(
        stream, {{by_images ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC,
                  memory(own.images, engine, from(images))},
                 {by_kernel ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS,
                  memory(own.own_kernel, engine, own_kernel)},
                 {kind == Kind::kForward ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST,
                  memory(own.result, engine, from(result))},
                 {DNNL_ARG_SCRATCHPAD, memory(own.scratchpad, engine, scratchpad)}});
    stream.wait();
  }

  // Reorders the kernel of XLA to oneDNN's, or back.
  void Reorder(const Convolution& own, void* own_kernel) const {
    const auto& engine = Engine();
    memory theirs(own.kernel, engine, kernel.untyped_data());
    memory mine(own.own_kernel, engine, own_kernel);
    dnnl::stream stream(engine);
    const bool back = kind == Kind::kKernel;
    own.reorder.execute(stream, back ? mine : theirs, back ? theirs : mine);
    stream.wait();
  }
};

// Takes the whole batch on all of oneDNN's threads.
void RunWhole(const Call& call) {
  std::lock_guard<std::mutex> lock(Shared().mutex);
  const Convolution& own = call.For(call.batch(), false);
  const bool by_kernel = call.kind == Kind::kKernel;
  void* kernel = call.kernel.untyped_data();
  if (own.reorder) kernel = Shared().kernel.AtLeast(own.own_kernel.get_size());
  if (own.reorder && !by_kernel) call.Reorder(own, kernel);
  call.Run(own, 0, kernel, Shared().scratchpad.AtLeast(own.scratchpad.get_size()));
  if (own.reorder && by_kernel) call.Reorder(own, kernel);
}

// Takes a part of the batch on each of several of XLA's threads.
void RunParts(const Call& call, ffi::ThreadPool& pool, int64_t parts) {
  const OneThread alone;
  const int64_t size = call.batch() / parts;
  const bool by_kernel = call.kind == Kind::kKernel;
  const Convolution& own = call.For(size, true);
  const size_t bytes = own.own_kernel.get_size();
  thread_local Room kernels;  // of this thread, which waits for the others
  auto* kernel = static_cast<char*>(call.kernel.untyped_data());
  // The gradients of the parts are float32 before they are added.
  if (own.reorder || by_kernel)
    kernel = static_cast<char*>(kernels.AtLeast(by_kernel ? bytes * parts : bytes));
  if (own.reorder && !by_kernel) call.Reorder(own, kernel);
  jaxvision::Parallel(pool, parts, [&](int64_t part) {
    const OneThread inner;
    thread_local Room scratchpad;
    call.Run(own, part * size, by_kernel ? kernel + part * bytes : kernel,
             scratchpad.AtLeast(own.scratchpad.get_size()));
  });
  if (!by_kernel) return;
  auto* sum = reinterpret_cast<float*>(kernel);
  const size_t numbers = bytes / sizeof(float);
  for (int64_t part = 1; part < parts; ++part) {
    for (size_t i = 0; i < numbers; ++i) sum[i] += sum[part * numbers + i];
  }
  if (own.reorder)
    call.Reorder(own, kernel);
  else
    std::memcpy(call.kernel.untyped_data(), kernel, bytes);
}

// Up to this size of a kernel XLA's threads share the batch. oneDNN's own threads wait for
// work in a loop, on the cores that XLA wants, which costs small layers more than their
// products; of large kernels it would cost more to add up their gradients.
constexpr int64_t kSmallKernel = 1 << 18;

template <Kind kind>
ffi::Error Convolve(ffi::ThreadPool pool, ffi::AnyBuffer first, ffi::AnyBuffer second,
                    ffi::Result<ffi::AnyBuffer> returned, Integers strides,
                    Integers dilation, Integers low, Integers high, int64_t groups) {
  constexpr bool by_images = kind == Kind::kImages, by_kernel = kind == Kind::kKernel;
  const Call call{kind,
                  {strides, dilation, low, high, groups},
                  by_images ? *returned : first,
                  by_kernel ? *returned : second,
                  by_images ? first : by_kernel ? second : *returned};
  int64_t parts = std::max<int64_t>(1, std::min(pool.num_threads(), call.batch()));
  while (call.batch() % parts) --parts;
  const int64_t numbers = call.kernel.element_count();
  const bool shared =
      numbers <= kSmallKernel && (parts > 1 || pool.num_threads() < 2);
  return jaxvision::Guarded("oneDNN", [&] {
    shared ? RunParts(call, pool, parts) : RunWhole(call);
  });
}

// Of an array [N, ..., C] whose channels are normalised.
memory::desc ChannelsDesc(const ffi::AnyBuffer& array) {
  const auto d = array.dimensions();
  int64_t middle = 1;
  for (size_t i = 1; i + 1 < d.size(); ++i) middle *= d[i];
  return {{d.front(), d.back(), 1, middle}, Type(array), memory::format_tag::nhwc};
}

using NormForward = dnnl::batch_normalization_forward;
using NormBackward = dnnl::batch_normalization_backward;

NormForward::primitive_desc NormDesc(const memory::desc& inputs, float epsilon) {
  return {Engine(), dnnl::prop_kind::forward_training, inputs, inputs, epsilon,
          dnnl::normalization_flags::use_scale | dnnl::normalization_flags::use_shift,
          Attributes()};
}

std::vector<int64_t> NormKey(const memory::desc& inputs, float epsilon) {
  const auto dims = inputs.get_dims();
  std::vector<int64_t> key(dims.begin(), dims.end());
  int32_t bits;
  std::memcpy(&bits, &epsilon, sizeof(bits));
  key.push_back(bits);
  key.push_back(static_cast<int64_t>(inputs.get_data_type()));
  return key;
}

// Runs a batch norm, made by `describe` where there is none yet for such inputs.
//
// `whole` are arrays of the shape of the inputs, `channels` those of [C], by oneDNN's
// arguments.
template <typename Norm, typename Describe>
ffi::Error RunNorm(const memory::desc& inputs, float epsilon, Describe describe,
                   std::initializer_list<std::pair<int, void*>> whole,
                   std::initializer_list<std::pair<int, void*>> channels) {
  return jaxvision::Guarded("oneDNN", [&] {
    const auto& engine = Engine();
    const auto key = NormKey(inputs, epsilon);
    std::lock_guard<std::mutex> lock(Shared().mutex);
    static auto* made = new std::map<std::vector<int64_t>,
                                     std::pair<Norm, typename Norm::primitive_desc>>;
    auto found = made->find(key);
    if (found == made->end()) {
      const typename Norm::primitive_desc desc = describe();
      found = made->emplace(key, std::make_pair(Norm(desc), desc)).first;
    }
    const auto& [primitive, desc] = found->second;
    const auto scratchpad = desc.scratchpad_desc();
    std::unordered_map<int, memory> arguments{
        {DNNL_ARG_SCRATCHPAD,
         memory(scratchpad, engine, Shared().scratchpad.AtLeast(scratchpad.get_size()))}};
    for (const auto& [name, data] : whole)
      arguments.emplace(name, memory(inputs, engine, data));
    for (const auto& [name, data] : channels)
      arguments.emplace(name, memory(desc.mean_desc(), engine, data));
    dnnl::stream stream(engine);
    primitive.execute(stream, arguments);
    stream.wait();
  });
}

ffi::Error NormalizeCall(ffi::AnyBuffer inputs, ffi::AnyBuffer scale, ffi::AnyBuffer bias,
                         ffi::Result<ffi::AnyBuffer> outputs,
                         ffi::Result<ffi::AnyBuffer> mean,
                         ffi::Result<ffi::AnyBuffer> variance, float epsilon) {
  const auto desc = ChannelsDesc(inputs);
  return RunNorm<NormForward>(
      desc, epsilon, [&] { return NormDesc(desc, epsilon); },
      {{DNNL_ARG_SRC, inputs.untyped_data()}, {DNNL_ARG_DST, outputs->untyped_data()}},
      {{DNNL_ARG_SCALE, scale.untyped_data()},
       {DNNL_ARG_SHIFT, bias.untyped_data()},
       {DNNL_ARG_MEAN, mean->untyped_data()},
       {DNNL_ARG_VARIANCE, variance->untyped_data()}});
}

ffi::Error NormalizeGradientCall(ffi::AnyBuffer inputs, ffi::AnyBuffer scale,
                                 ffi::AnyBuffer mean, ffi::AnyBuffer variance,
                                 ffi::AnyBuffer gradient,
                                 ffi::Result<ffi::AnyBuffer> by_inputs,
                                 ffi::Result<ffi::AnyBuffer> by_scale,
                                 ffi::Result<ffi::AnyBuffer> by_bias, float epsilon) {
  const auto desc = ChannelsDesc(inputs);
  const auto describe = [&] {
    return NormBackward::primitive_desc(
        Engine(), dnnl::prop_kind::backward, desc, desc, desc, epsilon,
        dnnl::normalization_flags::use_scale | dnnl::normalization_flags::use_shift,
        NormDesc(desc, epsilon), Attributes());
  };
  return RunNorm<NormBackward>(desc, epsilon, describe,
                               {{DNNL_ARG_SRC, inputs.untyped_data()},
                                {DNNL_ARG_DIFF_DST, gradient.untyped_data()},
                                {DNNL_ARG_DIFF_SRC, by_inputs->untyped_data()}},
                               {{DNNL_ARG_SCALE, scale.untyped_data()},
                                {DNNL_ARG_MEAN, mean.untyped_data()},
                                {DNNL_ARG_VARIANCE, variance.untyped_data()},
                                {DNNL_ARG_DIFF_SCALE, by_scale->untyped_data()},
                                {DNNL_ARG_DIFF_SHIFT, by_bias->untyped_data()}});
}

}  // namespace

#define JAXVISION_HANDLER(name)                                       \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(name, Convolve<Kind::k##name>,        \
                                ffi::Ffi::Bind()                      \
                                    .Ctx<ffi::ThreadPool>()           \
                                    .Arg<ffi::AnyBuffer>()            \
                                    .Arg<ffi::AnyBuffer>()            \
                                    .Ret<ffi::AnyBuffer>()            \
                                    .Attr<Integers>("strides")        \
                                    .Attr<Integers>("dilation")       \
                                    .Attr<Integers>("low")            \
                                    .Attr<Integers>("high")           \
                                    .Attr<int64_t>("groups"))

JAXVISION_HANDLER(Forward);
JAXVISION_HANDLER(Images);
JAXVISION_HANDLER(Kernel);

XLA_FFI_DEFINE_HANDLER_SYMBOL(Normalize, NormalizeCall,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<float>("epsilon"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(NormalizeGradient, NormalizeGradientCall,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<float>("epsilon"));

extern "C" {

// Whether this processor multiplies matrices of bfloat16 by AMX.
bool HasAmx() {
  const auto isa = dnnl::get_effective_cpu_isa();
  return isa == dnnl::cpu_isa::avx512_core_amx || isa == dnnl::cpu_isa::avx512_core_amx_fp16;
}

// Whether it multiplies bfloat16 itself: by AVX512-BF16 or AMX.
bool HasBfloat16() {
  const auto isa = dnnl::get_effective_cpu_isa();
  return HasAmx() || isa == dnnl::cpu_isa::avx512_core_bf16 ||
         isa == dnnl::cpu_isa::avx512_core_fp16;
}

}  // extern "C"
