// Checked, aligned buffers for state that is allocated before the loop and never inside it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

#include "core/check.h"

namespace nsrt {

inline constexpr std::size_t kCacheLine = 64;

// A grow-only array; contents are lost when it grows. Memory comes untouched from the allocator, so that pages are
// committed only as the loop reaches them.
template <class T>
class Buffer {
 public:
  void reserve(std::size_t n) {
    if (n <= size_) return;
    data_.reset();
    size_ = 0;
    void* p = ::operator new(n * sizeof(T), std::align_val_t{kCacheLine}, std::nothrow);
    check(p != nullptr, "out of memory: could not allocate ", n * sizeof(T), " bytes; ask for fewer or smaller images");
    data_.reset(static_cast<T*>(p));
    size_ = n;
  }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  std::size_t nbytes() const { return size_ * sizeof(T); }

 private:
  struct Free {
    void operator()(T* p) const { ::operator delete(p, std::align_val_t{kCacheLine}); }
  };
  std::unique_ptr<T, Free> data_;
  std::size_t size_ = 0;
};

}  // namespace nsrt
