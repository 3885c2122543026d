// What all handlers share: work for the threads of XLA, and what is told of a fault.

#ifndef JAXVISION_HANDLERS_H_
#define JAXVISION_HANDLERS_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "xla/ffi/api/ffi.h"

namespace jaxvision {

// Does what a handler is for. Nothing may be thrown into XLA: it is told as an error.
template <typename Work>
::xla::ffi::Error Guarded(const char* name, const Work& work) try {
  work();
  return ::xla::ffi::Error::Success();
} catch (const std::exception& error) {
  return ::xla::ffi::Error::Internal(std::string(name) + ": " + error.what());
}

// How many blocks of a size it takes to cover a count.
inline int64_t Blocks(int64_t count, int64_t size) { return (count + size - 1) / size; }

// Runs work(0), ..., work(count - 1) on this thread and those of XLA that are free.
//
// Whoever comes late finds nothing left, so that no thread waits for one that has not
// begun. What a piece of work throws is thrown here when all have ended.
template <typename Work>
void Parallel(::xla::ffi::ThreadPool& pool, int64_t count, const Work& work) {
  struct Shared {
    std::atomic<int64_t> next{0}, done{0};
    std::mutex mutex;
    std::exception_ptr failed;
  };
  auto shared = std::make_shared<Shared>();
  const Work* what = &work;
  const std::function<void()> take = [shared, count, what] {
    for (int64_t i; (i = shared->next++) < count; ++shared->done) {
      try {
        (*what)(i);
      } catch (...) {
        std::lock_guard<std::mutex> lock(shared->mutex);
        shared->failed = std::current_exception();
      }
    }
  };
  const int64_t threads = std::min(pool.num_threads(), count);
  for (int64_t i = 1; i < threads; ++i) pool.Schedule(std::function<void()>(take));
  take();
  while (shared->done < count) std::this_thread::yield();
  if (shared->failed) std::rethrow_exception(shared->failed);
}

}  // namespace jaxvision

#endif  // JAXVISION_HANDLERS_H_
