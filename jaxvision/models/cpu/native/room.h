// Memory that grows and is kept: malloc would take it anew from the system in each call.

#ifndef JAXVISION_ROOM_H_
#define JAXVISION_ROOM_H_

#include <cstddef>
#include <cstdlib>
#include <new>

namespace jaxvision {

class Room {
 public:
  Room() = default;
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;
  ~Room() { std::free(start_); }

  void* AtLeast(size_t bytes) {
    if (bytes > bytes_) {
      std::free(start_);
      bytes_ = (bytes + 63) / 64 * 64;
      start_ = std::aligned_alloc(64, bytes_);
      if (start_ == nullptr) {
        bytes_ = 0;
        throw std::bad_alloc();
      }
    }
    return start_;
  }

 private:
  void* start_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace jaxvision

#endif  // JAXVISION_ROOM_H_
